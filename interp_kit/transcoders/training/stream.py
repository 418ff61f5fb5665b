"""Rows of token ids in, shuffled MLP inputs and outputs out, a bounded block at a time."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count, islice
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from ...models.families import mlp_activations
from ...text.batches import TOKENS_AT_ONCE, of_similar_size, pad
from ...text.rows import NOTHING, TextRows
from ...widgets.progress import ProgressBar
from ..module import TranscoderConfig

Rows = list[list[int]]

SAMPLE_ROWS = 64  # rows that tell how the model begins ...
SAMPLE_TOKENS = 16  # ... by their first tokens
MASSIVE_FACTOR = 5.0  # a first position whose MLP outputs are this many times the others' is left out


class Batch(NamedTuple):
    """The tokens of one training step; a process that shares the work with others has only some of them."""

    step: int
    x: torch.Tensor
    "what the MLPs read [layer, token, d_model]"
    y: torch.Tensor
    "what they write [layer, token, d_model]"
    places: torch.Tensor
    "of these tokens in the whole batch [token]"


class Buffer(NamedTuple):
    """The activations of a block."""

    rows: Rows
    x: torch.Tensor
    "[layer, token, d_model], of the rows that this process reads"
    y: torch.Tensor
    places: torch.Tensor
    "where each token of the block lies in x and y; -1 where another process has it [token]"


class ActivationStream:
    """What the MLPs of a transcoder's layers read and write on rows of text, in batches of shuffled tokens.

    Rows fill a buffer of at most `memory` bytes; all tokens of the buffer are shuffled together, used once and
    forgotten. Batch i depends on the seed and on i alone: a resumed run passes over what it has seen without running
    the model, and processes that share the work agree without communicating. Where all the text fits into the buffer it
    is read once. Padding is left out, and position 0 where the transcoder leaves it out.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        rows: TextRows,
        config: TranscoderConfig,
        batch: int,
        memory: float,
        share: tuple[int, int] = (0, 1),
    ):
        """`share`: (i, n) takes every n-th row of a block, from the i-th on."""
        self.hf, self.rows, self.config, self.batch, self.share = hf, rows, config, batch, share
        self.size = buffer_size(config, hf.dtype, batch, memory)[0]  # tokens of a block
        self.buffer: Buffer | None = None
        self._ahead: Iterator[Rows] | None = None

    def blocks(self) -> Iterator[Rows]:
        """Rows of successive blocks, as long as there is text: without end where it can be read again."""
        block, tokens = [], 0
        for epoch in count():
            row = None
            for row in self.rows.epoch(epoch):
                block.append(row)
                tokens += _count([row], self.config)
                if tokens >= self.size:
                    yield block
                    block, tokens = [], 0
            if row is None:
                raise ValueError(NOTHING)
            if tokens >= self.batch:
                yield block
                block, tokens = [], 0
            if not self.rows.restarts:
                return

    def first_block(self) -> tuple[torch.Tensor, torch.Tensor, Batch]:
        """This process's x and y of the first block [layer, token, d_model], and the first batch; `batches` begins with
        it all the same.

        Raises ValueError where the text has fewer tokens than a batch.
        """
        blocks = self.blocks()
        block = next(blocks, None)
        if block is None:
            raise ValueError(f"the text has fewer tokens than a batch of {self.batch}: give more of it")
        self._ahead = chain([block], blocks)  # a generator of texts cannot be read again
        buffer = self._read(block)
        return buffer.x, buffer.y, next(self._shuffled(block, 0, 0))

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Batches from the `start`-th on."""
        blocks, self._ahead = self._ahead or self.blocks(), None
        step = 0
        for number, block in enumerate(blocks):
            n = min(self.size, _count(block, self.config)) // self.batch
            if step + n > start:
                yield from islice(self._shuffled(block, number, step), max(0, start - step), n)
            step += n

    def _shuffled(self, block: Rows, number: int, step: int) -> Iterator[Batch]:
        """The batches of the `number`-th block, of which the first is that of `step`."""
        buffer = self._read(block)
        generator = torch.Generator("cpu").manual_seed(number)  # the same order on every device
        order = torch.randperm(len(buffer.places), generator=generator, device="cpu").to(buffer.places.device)
        for i in range(len(order) // self.batch):
            here = buffer.places[order[i * self.batch : (i + 1) * self.batch]]
            mine = (here >= 0).nonzero()[:, 0]
            yield Batch(step + i, buffer.x[:, here[mine]].float(), buffer.y[:, here[mine]].float(), mine)

    def _read(self, block: Rows) -> Buffer:
        """The block's activations: those in the buffer, or else they take its place."""
        rows = sorted(block, key=lambda row: (len(row), row))
        if self.buffer is None or self.buffer.rows != rows:
            self.buffer = None  # lets go of the last block before the next one is read
            which, n = self.share
            x, y = read_activations(self.hf, rows[which::n], self.config)
            mine = torch.arange(len(rows), device=x.device) % n == which
            mine = mine.repeat_interleave(torch.tensor([_count([row], self.config) for row in rows], device=x.device))
            places = torch.where(mine, mine.cumsum(0) - 1, -1)
            self.buffer = Buffer(rows, x, y, places)
        return self.buffer


def buffer_size(config: TranscoderConfig, dtype: torch.dtype, batch: int, memory: float) -> tuple[int, int]:
    """The tokens and the bytes of a full buffer, of at most `memory` bytes: whole batches, one at least."""
    a_token = 2 * len(config.layers) * config.d_model * dtype.itemsize
    tokens = max(1, int(memory / a_token / batch)) * batch
    return tokens, tokens * a_token


def read_activations(hf: PreTrainedModel, rows: Rows, config: TranscoderConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """MLP inputs and outputs [layer, token, d_model] of all tokens of `rows`, in order, in the model's dtype."""
    shape = (2, len(config.layers), _count(rows, config), config.d_model)
    x, y = torch.empty(shape, dtype=hf.dtype, device=hf.device)
    done = 0
    for _, _, read, written in activations(hf, rows, config):
        end = done + read.shape[1]
        x[:, done:end], y[:, done:end] = read, written
        done = end
    return x, y


def activations(
    hf: PreTrainedModel, rows: Rows, config: TranscoderConfig, what: str | None = None, most: int = TOKENS_AT_ONCE
) -> Iterator[tuple[torch.Tensor, ...]]:
    """For a few rows at a time, of at most `most` tokens, ids and which of them are real [row, position]; and of these
    tokens, but for position 0 where the transcoder leaves it out, MLP inputs and outputs [layer, token, d_model]. A bar
    shows `what`, if given."""
    for some in ProgressBar(list(of_similar_size(rows, most)), desc=what, leave=False, disable=what is None):
        ids, real = pad(some, hf.device)
        kept = real.clone()
        kept[:, 0] &= not config.excludes_first_position
        x, y = mlp_activations(hf, ids, config.feature_input_hook, config.layers)
        yield ids, real, x[:, kept.to(x.device)], y[:, kept.to(y.device)]


def first_position_is_massive(hf: PreTrainedModel, rows: TextRows, config: TranscoderConfig) -> bool:
    """Whether MLP outputs at position 0 dwarf the others, as a begin-of-text token's do in most large models.

    Raises ValueError where there is no text.
    """
    some = [row[:SAMPLE_TOKENS] for row in rows.peek(SAMPLE_ROWS)[:SAMPLE_ROWS]]
    if not some:
        raise ValueError(NOTHING)
    everywhere = replace(config, excludes_first_position=False)
    _, y = read_activations(hf, some, everywhere)
    _, first = read_activations(hf, [row[:1] for row in some], everywhere)
    usual = y.float().norm(dim=-1).median(1).values
    return bool((first.float().norm(dim=-1).mean(1) > MASSIVE_FACTOR * usual).any())


def _count(rows: Rows, config: TranscoderConfig) -> int:
    """Tokens of the rows that are used."""
    return sum(len(row) - config.excludes_first_position for row in rows)
