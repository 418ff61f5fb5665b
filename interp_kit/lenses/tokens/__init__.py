"""Which words of the prompt mattered: token attribution, and how to compare its methods."""
