"""How many two-hop questions does a model answer?"""

from collections.abc import Sequence

import torch

from ..models import LanguageModel
from ..models.arguments import checked
from ..text.batches import pad
from ..worlds import Question


@checked
def two_hop_accuracy(model: LanguageModel, questions: Sequence[Question], batch: int = 256) -> list[bool]:
    """Whether the greedy continuation of each question is its whole answer followed by a full stop.

    One forward pass a batch: every token of "answer." must be the argmax given the true ones before it, which is the
    same as greedy decoding giving exactly that text.

    >>> right = ik.studies.two_hop_accuracy(model, world.questions(held_out=True))
    >>> sum(right) / len(right)
    """
    right = []
    for i in range(0, len(questions), batch):
        prompts = [model.encode(q.prompt).tolist() for q in questions[i : i + batch]]
        wholes = [model.encode(f"{q.prompt} {q.answer}.").tolist() for q in questions[i : i + batch]]
        with torch.no_grad():
            best = model.hf(input_ids=pad(wholes)[0].to(model.device)).logits.argmax(-1)
        for prompt, whole, guesses in zip(prompts, wholes, best.tolist(), strict=True):
            first = len(prompt)  # of the answer; the position before predicts it
            right.append(guesses[first - 1 : len(whole) - 1] == whole[first:])
    return right
