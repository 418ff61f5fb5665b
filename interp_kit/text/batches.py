"""Rows of token ids as padded batches."""

from collections.abc import Iterator

import torch

TOKENS_AT_ONCE = 2048  # of a forward pass: more would leave the processor's cache


def of_similar_size(rows: list[list[int]], most: int = TOKENS_AT_ONCE) -> Iterator[list[list[int]]]:
    """Slices of `rows`, in their order, of at most `most` tokens, padding included (or one longer row)."""
    start = 0
    while start < len(rows):
        end, width = start + 1, len(rows[start])
        while end < len(rows) and max(width, len(rows[end])) * (end + 1 - start) <= most:
            width = max(width, len(rows[end]))
            end += 1
        yield rows[start:end]
        start = end


def pad(rows: list[list[int]], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [row, position], right-padded with 0, and which of them are real. Causal attention never looks right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    real = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=device)
    return ids, real
