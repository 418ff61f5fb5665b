"""What the lenses take: a prompt, and the tokens of an answer."""

from collections.abc import Sequence

import torch

from ..models import LanguageModel

Prompt = str | Sequence[int] | torch.Tensor  # a text, or its token ids [position], taken as they are


def first_token(model: LanguageModel, answer: str) -> int:
    """The token that an answer begins with: that of " San" for " San Francisco".

    A lens asks about the next token, so a longer answer is asked about by its first. answer: with its leading space.
    """
    return model.tokenizer.encode(answer, add_special_tokens=False)[0]
