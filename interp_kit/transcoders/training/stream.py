"""Rows of token ids in, shuffled MLP inputs and outputs out, a bounded block at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from ...models.anatomy import mlp_activations
from ...text.batches import of_similar_size, pad
from ...text.rows import NOTHING, TextRows

PEEKED = 64  # rows that tell how the model begins
MASSIVE = 5.0  # a first position whose MLP outputs are this many times the others' is left out


class Batch(NamedTuple):
    """Tokens of one training step: x and y [layer, token, d_model], and their places in the batch [token]; a process
    that shares the work with others has only some of them."""

    step: int
    x: torch.Tensor
    y: torch.Tensor
    places: torch.Tensor


class ActivationStream:
    """What the MLPs of `layers` read and write on rows of text, in batches of shuffled tokens.

    Rows fill a buffer of at most `memory` bytes; all tokens of the buffer are shuffled together, used once and
    forgotten. Which tokens make up a batch depends on the seed and its number alone, so that a resumed run passes over
    what it has seen without running the model, and processes that share the work agree without a word. Where all the
    text fits into the buffer it is read once. Padding is left out, and position 0 where its activations are massive.
    """

    def __init__(
        self, hf, rows: TextRows, layers, feature_input_hook, batch: int, memory: float, share: tuple[int, int] = (0, 1)
    ):
        """`share`: (i, n) takes every n-th row of a block, from the i-th on."""
        self.hf, self.rows, self.layers, self.feature_input_hook = hf, rows, layers, feature_input_hook
        self.batch, self.share = batch, share
        self.d_model = hf.config.get_text_config().hidden_size
        per_token = 2 * len(layers) * self.d_model * hf.dtype.itemsize
        self.size = max(1, int(memory / per_token / batch)) * batch  # tokens of a block
        self.skip_first = False
        self.skip_first = self._first_is_massive()
        self.held = None  # the buffer: rows, x, y, and each token's place in x and y

    def blocks(self) -> Iterator[list[list[int]]]:
        """Rows of successive blocks, as long as there is text: without end where it can be read again."""
        block, tokens, epoch = [], 0, 0
        while True:
            before = (len(block), tokens)
            for row in self.rows.epoch(epoch):
                block.append(row)
                tokens += len(row) - self.skip_first
                if tokens >= self.size:
                    yield block
                    block, tokens = [], 0
                    before = None
            if before == (len(block), tokens):
                raise ValueError(NOTHING)
            if tokens >= self.batch:
                yield block
                block, tokens = [], 0
            if not self.rows.restarts:
                return
            epoch += 1

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches from the `start`-th on."""
        step = 0
        for number, block in enumerate(self.blocks()):
            n = min(self.size, self._count(block)) // self.batch
            if step + n > start:
                yield from self._shuffled(block, number, step, n, start)
            step += n

    def _shuffled(self, block, number, step, n, start):
        x, y, places = self._held_or_read(sorted(block, key=lambda row: (len(row), row)))
        generator = torch.Generator().manual_seed(number)
        order = torch.randperm(len(places), generator=generator).to(x.device)
        for i in range(max(0, start - step), n):
            here = places[order[i * self.batch : (i + 1) * self.batch]]  # -1: another process has that token
            mine = (here >= 0).nonzero()[:, 0]
            yield Batch(step + i, x[:, here[mine]].float(), y[:, here[mine]].float(), mine)

    def _held_or_read(self, rows):
        """Activations of the block's rows, and for each of its tokens its place among them, -1 where there is none."""
        if self.held is None or self.held[0] != rows:
            self.held = None  # lets go of the last block before the next one is made
            mine = rows[self.share[0] :: self.share[1]]
            x, y = self.activations(mine)
            owner = torch.arange(len(rows)) % self.share[1] == self.share[0]
            tokens = owner.repeat_interleave(torch.tensor([self._count([row]) for row in rows]))
            places = torch.where(tokens, tokens.cumsum(0) - 1, -1)
            self.held = rows, x, y, places.to(x.device)
        return self.held[1:]

    def activations(self, rows) -> tuple[torch.Tensor, torch.Tensor]:
        """MLP inputs and outputs [layer, token, d_model] of all tokens of `rows`, in order, in the model's dtype."""
        shape = (2, len(self.layers), self._count(rows), self.d_model)
        x, y = torch.empty(shape, dtype=self.hf.dtype, device=self.hf.device)
        done = 0
        for some in of_similar_size(rows):
            ids, real = pad(some)
            real[:, 0] &= not self.skip_first
            parts = mlp_activations(self.hf, ids.to(self.hf.device), self.feature_input_hook, self.layers)
            here = slice(done, done := done + self._count(some))
            for whole, part in zip((x, y), parts, strict=True):
                whole[:, here] = part[:, real.to(part.device)]
        return x, y

    def _count(self, rows):
        return sum(len(row) - self.skip_first for row in rows)

    def _first_is_massive(self):
        """Whether MLP outputs at position 0 dwarf the others, as a begin-of-text token's do in most large models."""
        some = [row[:16] for row in self.rows.peek(PEEKED)[:PEEKED]]
        if not some:
            raise ValueError(NOTHING)
        _, y = self.activations(some)
        _, first = self.activations([row[:1] for row in some])
        usual = y.float().norm(dim=-1).median(1).values
        return bool((first.float().norm(dim=-1).mean(1) > MASSIVE * usual).any())
