"""Which next token a lens asks about, and against which other one."""

import operator

import torch


def token_of(model, token: str | int | None, logits: torch.Tensor) -> int:
    """An id: of a string that is one token (" Austin", with its space), an id as it is, or the likeliest by `logits`.

    Raises TypeError for anything else, ValueError for text that is not one token and ids outside the vocabulary.
    """
    if token is None:
        return int(logits.argmax())
    if isinstance(token, str):
        return model.token_id(token)
    try:
        token = operator.index(token)
    except TypeError:
        raise TypeError(f"a token is its text, like ' Austin', or its id; got {type(token).__name__}") from None
    if not 0 <= token < model.vocab_size:
        raise ValueError(f"token id {token} is not in the vocabulary: ids run from 0 to {model.vocab_size - 1}")
    return token


def score(logits: torch.Tensor, target: int, contrast: int | None) -> torch.Tensor:
    """How much `logits` [..., vocabulary] are for the target: its log-probability, or with a contrast how far it lies
    above that (the difference of their logits, which is also that of their log-probabilities): [...], in nats."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if contrast is not None:
        return logits[..., target] - logits[..., contrast]
    return logits.log_softmax(-1)[..., target]


def named(model, target: int, contrast: int | None) -> str:
    """The question in words: "' Austin'" or "' Austin' rather than ' Houston'"."""
    text = repr(model.tokens([target])[0])
    return text if contrast is None else f"{text} rather than {model.tokens([contrast])[0]!r}"
