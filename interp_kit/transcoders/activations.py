"""Texts in, shuffled MLP inputs and outputs out, a bounded block at a time."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..models.anatomy import mlp_activations

BLOCK_BYTES = 192e6  # activations held at once; a block is shuffled as a whole
ROWS_AT_ONCE = 64


@dataclass
class ActivationStream:
    """The activations of `rows` (token ids of one text each), in an order that `seed` fixes.

    A block is a stretch of that order; it is a function of (seed, block number), so a resumed run can
    go straight to the block it stopped in. Padding is left out, and with `skip_first` position 0 too.
    """

    hf: torch.nn.Module
    rows: list[list[int]]
    layers: list[int]
    reads: str
    skip_first: bool
    seed: int

    def blocks(self) -> Iterator[list[list[int]]]:
        """Rows of successive blocks, without end: every epoch is a new permutation."""
        size = int(BLOCK_BYTES / (8 * len(self.layers) * self.hf.config.hidden_size))
        rng, block, tokens = random.Random(f"activations-{self.seed}"), [], 0
        while True:
            for i in rng.sample(range(len(self.rows)), len(self.rows)):
                block.append(self.rows[i])
                tokens += len(self.rows[i])
                if tokens >= size:
                    yield block
                    block, tokens = [], 0

    def count(self, block) -> int:
        """How many tokens `activations(block)` will give."""
        return sum(len(row) - self.skip_first for row in block)

    def activations(self, block, shuffle: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """MLP inputs and outputs [layer, token, d_model] of a block, shuffled by the seed `shuffle`."""
        block = sorted(block, key=len)  # rows of like length together: little padding
        parts = []
        for i in range(0, len(block), ROWS_AT_ONCE):
            ids, real = pad(block[i : i + ROWS_AT_ONCE])
            real[:, 0] &= not self.skip_first
            parts.append([t[:, real] for t in mlp_activations(self.hf, ids, self.reads, self.layers)])
        x, y = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        if shuffle is not None:
            order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(shuffle))
            x, y = x[:, order], y[:, order]
        return x, y


def pad(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [row, position], right-padded with 0, and which of them are real. Causal attention never looks right."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    real = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, real


def encode_texts(model, texts) -> list[list[int]]:
    """Token ids of every text, cut at the model's context. Raises ValueError when there is nothing to read."""
    if isinstance(texts, str):
        raise TypeError("texts should be a list of strings, got one string; wrap it in a list")
    limit = model.context_length or 1024
    first = model.encode("a").tolist()[:-1]  # the begin-of-text token that this model's prompts get, if any
    special = set(model.tokenizer.all_special_ids)
    rows = []
    for text in texts:
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append((ids if ids and ids[0] in special else first + ids)[:limit])
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise ValueError("there is no text to read: give a list of strings, each of at least one token")
    return rows
