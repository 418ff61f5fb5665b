"""What the parts of a model write, move and change: MLPs, heads, the stream."""
