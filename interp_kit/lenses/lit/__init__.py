"""The Language Interpretability Tool on a model of the kit, in a process and an environment of its own."""
