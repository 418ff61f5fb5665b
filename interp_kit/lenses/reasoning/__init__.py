"""Whether a chain of thought is what the answer comes from."""
