"""How many two-hop questions does a model answer?"""

from collections.abc import Sequence
from typing import cast

import torch

from ..models import LanguageModel
from ..worlds import Question


def two_hop_accuracy(model: LanguageModel, questions: Sequence[Question], batch: int = 256) -> list[bool]:
    """Whether the greedy continuation of each question is its whole answer followed by a full stop.

    One forward pass a batch: every token of "answer." must be the argmax given the true ones before it, which is the
    same as greedy decoding giving exactly that text.

    >>> right = ik.studies.two_hop_accuracy(model, world.questions(held_out=True))
    >>> sum(right) / len(right)
    """
    tokenizer, right = model.tokenizer, []
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    for i in range(0, len(questions), batch):
        some = questions[i : i + batch]
        rows = [(encode(q.prompt), encode(f"{q.prompt} {q.answer}.")) for q in some]
        width = 1 + max(len(whole) for _, whole in rows)
        ids = torch.full((len(rows), width), cast("int", tokenizer.pad_token_id))
        for row, (_, whole) in zip(ids, rows, strict=True):
            row[: len(whole) + 1] = torch.tensor([tokenizer.bos_token_id, *whole])
        with torch.no_grad():
            best = model.hf(input_ids=ids).logits.argmax(-1)
        for row, guess, (prompt, whole) in zip(ids, best, rows, strict=True):
            asked = slice(len(prompt), len(whole))  # position len(prompt) predicts the answer's first token
            right.append(bool((guess[asked] == row[len(prompt) + 1 : len(whole) + 1]).all()))
    return right
