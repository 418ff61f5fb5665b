"""Sentences as token ids with their concepts: what a feature can be graded against."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from ..models import LanguageModel
from ..text.batches import pad
from ..widgets.progress import ProgressBar
from .sentences import Sentence, token_concepts

SENTENCES_AT_ONCE = 256


class Graded(NamedTuple):
    """Some sentences as token ids, and which concepts each real token brings up or follows."""

    ids: torch.Tensor
    "[sentence, position]"
    real: torch.Tensor
    "[sentence, position]: which are no padding"
    named: torch.Tensor
    "sparse [concept, real token]: 1 where the token completes the concept's name"
    in_play: torch.Tensor
    "sparse [concept, real token]: 1 from there on to the end of the sentence"


def says(label: str, concept: str) -> bool:
    """Whether the name of the concept ("Texas" of place:Texas, "Austin" of answer:capital=Austin) is in the label.

    >>> says("say Austin", "answer:capital=Austin")
    True
    """
    name = concept.split(":", 1)[-1].split("=", 1)[-1]
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", label, re.IGNORECASE) is not None


def concepts_of(sentences: Iterable[Sentence], kinds: Collection[str] | None = None) -> list[str]:
    """All concepts of the sentences, or those of some kinds ("place", "relation", ...), the most frequent first."""
    found = Counter(c for s in sentences for _, _, concepts in s.spans for c in concepts)
    return [c for c, _ in found.most_common() if kinds is None or c.split(":", 1)[0] in kinds]


def graded(model: LanguageModel, sentences: Sequence[Sentence], concepts: Sequence[str]) -> Iterator[Graded]:
    """The sentences in batches, each with a begin-of-text token that has no concept."""
    number = {concept: i for i, concept in enumerate(concepts)}
    for i in ProgressBar(range(0, len(sentences), SENTENCES_AT_ONCE), desc="grading", leave=False):
        rows, named, in_play, tokens = [], [], [], 0
        for sentence in sentences[i : i + SENTENCES_AT_ONCE]:
            ids, found = token_concepts(sentence, model.tokenizer)
            rows.append(model.prefix_ids + ids)
            tokens += len(model.prefix_ids)
            before = set()
            for names in found:
                here = {number[name] for name in names if name in number}
                named += [(concept, tokens) for concept in here]
                before |= here
                in_play += [(concept, tokens) for concept in before]
                tokens += 1
        yield Graded(*pad(rows), *(_sparse(places, len(concepts), tokens) for places in (named, in_play)))


def _sparse(places: Iterable[tuple[int, int]], n_concepts: int, n_tokens: int) -> torch.Tensor:
    at = torch.tensor(sorted(places), dtype=torch.long).reshape(-1, 2).T
    ones = torch.ones(at.shape[1])
    return torch.sparse_coo_tensor(at, ones, (n_concepts, n_tokens), check_invariants=False).to_sparse_csr()
