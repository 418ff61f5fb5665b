"""Many prompts continued at once: what they have in common is read once, the rest side by side."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from ...models import LanguageModel
from ...models.cache import new_cache, places, read_on
from ...widgets.progress import ProgressBar

TOKENS_AT_ONCE = 2048  # read in one forward pass, padding included, what is shared not
PROMPTS_AT_ONCE = 32  # their keys and values stay in memory until the last of them is done


class Continuation(NamedTuple):
    """text: the greedy continuation, up to the first stop. logprobs: of the token after the prompt, [vocab]."""

    text: str
    logprobs: torch.Tensor


def continue_all(
    model: LanguageModel, prompts: Sequence[str], stops: Sequence[Sequence[str]], max_new_tokens: int, desc: str
) -> list[Continuation]:
    """What `model.complete` gives for each prompt, in the prompts' order, and the distribution it begins with.

    stops: for each prompt the strings that end its continuation, the first that appears does; none is in the text.
    max_new_tokens: generation also ends at the model's end of text and where its context is full.
    desc: beside the progress bar.

    Raises what `model.encode` does.
    """
    rows = [model.encode(prompt).tolist() for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    n_shared = min(len(os.path.commonprefix(rows)), len(rows[order[0]]) - 1) if rows else 0  # it compares any sequences
    found: dict[int, Continuation] = {}
    # Where padding would take a place that a row needs, only rows of one length go together.
    alike = max(map(len, rows), default=0) + max_new_tokens > (places(model.hf) or math.inf)
    with ProgressBar(total=len(rows), desc=desc, delay=1, leave=False) as bar:
        for some in _batches(order, [len(row) - n_shared for row in rows], alike):
            continued = _continue(model, [rows[i] for i in some], [stops[i] for i in some], n_shared, max_new_tokens)
            found |= zip(some, continued)
            bar.update(len(some))
    return [found[i] for i in range(len(rows))]


def _batches(order: list[int], lengths: list[int], alike: bool) -> Iterator[list[int]]:
    """Slices of `order`, which goes from short to long, that are few and short enough to be read at once; `alike`: of
    one length each."""
    while order:
        some = [i for i in order[:PROMPTS_AT_ONCE] if not alike or lengths[i] == lengths[order[0]]]
        n = sum((k + 1) * lengths[i] <= TOKENS_AT_ONCE for k, i in enumerate(some))
        yield order[: max(n, 1)]
        order = order[max(n, 1) :]


@torch.no_grad()
def _continue(
    model: LanguageModel, rows: list[list[int]], stops: list[Sequence[str]], n_shared: int, max_new_tokens: int
) -> list[Continuation]:
    """Padding stands between what is shared and the rest of each row, so that new tokens follow on; it is masked, and
    not counted as a position."""
    width = max(map(len, rows)) - n_shared
    ids = torch.tensor([[0] * (width + n_shared - len(row)) + row[n_shared:] for row in rows], device=model.device)
    real = torch.tensor([[0] * (width + n_shared - len(row)) + [1] * (len(row) - n_shared) for row in rows])
    seen = torch.cat([torch.ones(len(rows), n_shared, dtype=torch.long), real], 1).to(model.device)
    cache = new_cache(model.hf)
    if n_shared:
        shared = torch.tensor([rows[0][:n_shared]], device=model.device)
        read_on(model.hf, shared, cache, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
    first = torch.empty(0)  # the distributions that the continuations begin with, [row, vocab]
    last_position = None if model.context_length is None else model.context_length - 1  # rows that ended go on unread
    new: list[list[int]] = [[] for _ in rows]
    texts: dict[int, str] = {}  # of the rows that ended
    for step in range(max_new_tokens):
        positions = (seen.cumsum(1) - 1)[:, -ids.shape[1] :].clamp(0, last_position)
        options = {"attention_mask": seen, "position_ids": positions, "logits_to_keep": 1}
        last = read_on(model.hf, ids, cache, **options)[:, -1]
        if step == 0:
            first = last.float().log_softmax(-1)
        ids = last.argmax(-1, keepdim=True)
        seen = torch.cat([seen, torch.ones_like(ids)], 1)
        for i, token in enumerate(ids[:, 0].tolist()):
            if i not in texts and (text := _ended(model, rows[i], new[i], token, stops[i])) is not None:
                texts[i] = text
        if len(texts) == len(rows):
            break
    for i in set(range(len(rows))) - texts.keys():
        texts[i] = _text(model, rows[i], new[i])
    return [Continuation(texts[i], logprobs) for i, logprobs in enumerate(first.cpu())]


def _ended(model: LanguageModel, row: list[int], new: list[int], token: int, stops: Sequence[str]) -> str | None:
    """The text if it ends with this token, which else joins `new`."""
    if token in model.end_ids:
        return _text(model, row, new)
    new.append(token)
    text = _text(model, row, new)
    found = [at for at in map(text.find, stops) if at >= 0]
    full = model.context_length is not None and len(row) + len(new) > model.context_length
    return text[: min(found)] if found else text if full else None


def _text(model: LanguageModel, row: list[int], new: list[int]) -> str:
    return model.continuation(torch.tensor(row), new) if new else ""
