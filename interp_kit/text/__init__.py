"""Text from any source, as rows of token ids and as padded batches."""
