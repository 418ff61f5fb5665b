"""The one meaning of `target=` and `contrast=`: which next token a question is about, and against which other one.

A token is its text (" Austin", with its space) or its id. A list of tokens means their mean. Without a target the
question is about the model's likeliest next token; without a contrast there is none.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .language_model import LanguageModel
from .precision import at_least_float32

Token = str | int
Tokens = Token | Sequence[Token]  # what `target=` and `contrast=` take, besides None


@dataclass(frozen=True)
class Target:
    """A question about the next token, its tokens looked up.

        question = Target.of(model, " Austin", " Sacramento", logits)
        question.name                       # "' Austin' rather than ' Sacramento'"
        question.score(logits)              # how much the logits are for Austin rather than Sacramento, in nats
        question.weigh(unembedding.T)       # the direction in the residual stream that this is, [d_model]

    ids: the target's tokens, mostly one. contrast_ids: the contrast's, empty without a contrast. name: for display.
    """

    ids: tuple[int, ...]
    contrast_ids: tuple[int, ...]
    name: str

    @classmethod
    def of(cls, model: LanguageModel, target: Tokens | None, contrast: Tokens | None, logits: torch.Tensor) -> "Target":
        """The question in ids; `logits` [vocabulary] say which token is the likeliest where there is no target.

        Raises TypeError for what is no token, ValueError for a text that is not one token (with the nearest that is),
        an id outside the vocabulary, a list that is empty or names a token twice, and a token that is its own contrast.
        """
        ids = (int(logits.argmax()),) if target is None else token_ids(model, target)
        contrast_ids = () if contrast is None else token_ids(model, contrast)
        name = _name(model, ids)
        if both := set(ids) & set(contrast_ids):
            why = "is the model's likeliest next token, so it" if target is None else "is target and contrast: it"
            raise ValueError(f"{_name(model, (min(both),))} {why} cannot be told from itself; name another token")
        return cls(ids, contrast_ids, f"{name} rather than {_name(model, contrast_ids)}" if contrast_ids else name)

    def weigh(self, values: torch.Tensor) -> torch.Tensor:
        """values [..., vocabulary] -> [...]: the mean over the target's tokens, less that over the contrast's.

        Of logits this is what a graph or a decomposition explains; of the transposed unembedding [d_model, vocabulary]
        it is the direction that raises them.
        """
        of_target = values[..., list(self.ids)].mean(-1)
        return of_target - values[..., list(self.contrast_ids)].mean(-1) if self.contrast_ids else of_target

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """How much `logits` [..., vocabulary] are for the target, in nats [...].

        Its log-probability, or with a contrast how far its logit lies above the contrast's (log-probabilities lie as
        far apart). Half precision is computed in float32.
        """
        logits = at_least_float32(logits)
        return self.weigh(logits if self.contrast_ids else logits.log_softmax(-1))

    def probability(self, logits: torch.Tensor) -> torch.Tensor:
        """The probability that one of the target's tokens comes next: [..., vocabulary] -> [...]."""
        return at_least_float32(logits).softmax(-1)[..., list(self.ids)].sum(-1)


def token_ids(model: LanguageModel, tokens: Tokens) -> tuple[int, ...]:
    """The ids of one token, or of a list of them, each its text or its id. Raises as `Target.of` does."""
    several = [tokens] if isinstance(tokens, str) or not isinstance(tokens, Sequence) else tokens
    if not several:
        raise ValueError("an empty list names no token: give one, like ' Austin', or a list of them")
    ids = tuple(_token_id(model, token) for token in several)
    if twice := [token for token, id in zip(several, ids) if ids.count(id) > 1]:
        raise ValueError(f"{twice[0]!r} stands twice in {several}: name each token once")
    return ids


def _token_id(model: LanguageModel, token: Token) -> int:
    if isinstance(token, str):
        return model.token_id(token)
    try:
        id = operator.index(token)
    except TypeError:
        raise TypeError(f"a token is its text, like ' Austin', or its id; got {type(token).__name__}") from None
    if not 0 <= id < model.vocab_size:
        raise ValueError(f"token id {id} is not in the vocabulary: ids run from 0 to {model.vocab_size - 1}")
    return id


def _name(model: LanguageModel, ids: tuple[int, ...]) -> str:
    names = [repr(token) for token in model.tokens(list(ids))]
    return names[0] if len(names) == 1 else f"the mean of {', '.join(names)}"
