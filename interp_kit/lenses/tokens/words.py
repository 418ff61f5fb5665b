"""Words and answers as a model's tokens."""

import re
from collections.abc import Sequence

import numpy as np

from ...models import LanguageModel


def first_token(model: LanguageModel, answer: str) -> int:
    """The token that an answer begins with: that of " San" for " San Francisco".

    A lens asks about the next token, so it asks about a longer answer by its first. answer: with its leading space.

    Raises ValueError for an answer without tokens.
    """
    return model.vocabulary.first_id(answer)


def word_mask(model: LanguageModel, prompt: str, words: Sequence[str]) -> np.ndarray:
    """Which tokens of a prompt hold (a part of) one of the words: bool [position].

    Raises ValueError for a word that is not in the prompt.
    """
    ids, spans = model.vocabulary.offsets(prompt)
    before = len(model.encode(prompt)) - len(ids)
    found = np.zeros(before + len(ids), bool)
    for word in words:
        places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)]
        if not places:
            raise ValueError(f"{word!r} should matter, but it is not in {prompt!r}")
        for start, end in places:
            for i, (a, b) in enumerate(spans):
                found[before + i] |= a < end and b > start
    return found
