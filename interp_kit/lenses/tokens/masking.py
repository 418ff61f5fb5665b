"""What a prompt is worth with some of its tokens hidden: the one function that every token attribution explains.

`value(present)` runs the model with the embedding of each hidden token replaced by a baseline's, and scores the
target. All tokens present is f(x), none is f(x0). Between 0 and 1 it is a straight line in embedding space, along
which gradients are integrated. Which baseline is used decides the picture, so it is always named.

(To Shapley values it is the value function of a game: the tokens are its players, those present a coalition.)
"""

from collections.abc import Sequence
from typing import Literal

import torch

from ...hardware import check_memory
from ...models.language_model import LanguageModel, Prompt
from ...models.targets import Target, Tokens
from ...widgets.progress import ProgressBar

TOKENS_AT_ONCE = 1024  # of all versions in one forward ...
GRADIENT_BYTES = 128e6  # ... or fewer, where gradients keep more than this of a forward in memory
LOGIT_TENSORS = 3  # [version, vocabulary], alive at once
EMBEDDINGS_AT_ONCE = 8192

Baseline = Literal["space", "boundary", "mean", "zero"]
BASELINES: dict[Baseline, str] = {
    "space": "the token of a single space",
    "boundary": "the end-of-text token, before which models learn to forget",
    "mean": "the mean of all embeddings, which is no token",
    "zero": "the zero vector, which is no token",
}


class MaskedPrompt:
    """One prompt, one question about it, and one baseline that hides its tokens.

    target: the question.
    ids: of the whole prompt, [position].
    positions: of the tokens that can be hidden; without them all but the first one, and all but special ones.
    embeddings: of the whole prompt, [position, d_model]; absent: in the place of a hidden token, [d_model].
    f_x: the score with all tokens.
    at_once, at_once_with_gradients: versions of the prompt in one forward. They do not depend on how much memory is
        free, so that values do not either.
    forwards: versions that the model has read so far.
    bar: a progress bar that counts them, or None.

    Raises ValueError for an unknown baseline, positions outside, and a prompt without a token that can be hidden.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        target: Tokens | None = None,
        contrast: Tokens | None = None,
        baseline: Baseline | str = "space",
        positions: slice | Sequence[int] | None = None,
    ):
        self.model = model
        self.ids = model.input_ids(prompt)
        self.positions = _hideable(model, self.ids) if positions is None else _checked(positions, len(self.ids))
        self.at_once = max(1, TOKENS_AT_ONCE // len(self.ids))
        self.at_once_with_gradients = max(1, min(self.at_once, int(GRADIENT_BYTES / self._version_bytes(True))))
        logits = model.logits(self.ids)[-1]
        self.target = Target.of(model, target, contrast, logits)
        self.f_x = float(self.target.score(logits))
        self.forwards = 1  # the one above
        self.bar: ProgressBar | None = None
        embed = model.hf.get_input_embeddings()
        with torch.no_grad():
            self.embeddings = embed(self.ids)
            self.absent = _absent(model, embed, baseline)

    def check_room(self, gradients: bool) -> None:
        """Raises MemoryError where one forward, with or without gradients, does not fit into what is free."""
        versions = self.at_once_with_gradients if gradients else self.at_once
        check_memory(
            versions * self._version_bytes(gradients),
            f"reading {versions * len(self.ids):,} tokens at once{', with gradients' * gradients}",
            "Use a shorter prompt, or a smaller model" + ", or method='occlusion' or 'shapley'" * gradients,
        )

    def _version_bytes(self, gradients: bool) -> float:
        """What a forward holds of one version of the prompt: what the matrices of a layer read and write, with
        gradients those of all layers; and its logits."""
        inner, n_layers = self.model.hf.base_model, self.model.n_layers
        matrices = [w for name, w in inner.named_parameters() if w.ndim == 2 and "embed" not in name]
        a_token = sum(sum(w.shape) for w in matrices) / (1 if gradients else n_layers)
        number_bytes = max(4, self.model.dtype.itemsize)
        return number_bytes * (a_token * len(self.ids) + LOGIT_TENSORS * self.model.vocab_size)

    @property
    def tokens(self) -> list[str]:
        """The tokens that can be hidden."""
        return self.model.tokens(self.ids[self.positions])

    def embedded(self, present: torch.Tensor) -> torch.Tensor:
        """present [version, token] -> embeddings [version, position, d_model]."""
        whole = self.embeddings.new_ones(len(present), len(self.ids))
        whole[:, self.positions] = present.to(whole)
        return torch.lerp(self.absent, self.embeddings, whole[..., None])

    def scored(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The target's score for each version [version], from embeddings [version, position, d_model]."""
        self.forwards += len(embeddings)
        if self.bar is not None:
            self.bar.update(len(embeddings))
        logits = self.model.hf(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1).logits[:, -1]
        return self.target.score(logits)

    def value(self, present: torch.Tensor) -> torch.Tensor:
        """present [version, token], 1 for a token that is seen and 0 for one that is hidden -> scores [version]."""
        return torch.cat([self.scored(self.embedded(some)) for some in present.split(self.at_once)])

    @torch.no_grad()
    def ends(self) -> tuple[float, float]:
        """f(x) and f(x0)."""
        return self.f_x, float(self.value(torch.zeros(1, len(self.positions))))

    def probability(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores as probabilities: of the target, or with a contrast of the target among the two."""
        return scores.sigmoid() if self.target.contrast_ids else scores.exp()


def _hideable(model: LanguageModel, ids: torch.Tensor) -> list[int]:
    found = [p for p, token in enumerate(ids.tolist()) if p > 0 and token not in model.special_ids]
    if not found:
        raise ValueError("the prompt has no token that could be hidden: the first and special ones always stay")
    return found


def _checked(positions: slice | Sequence[int], n: int) -> list[int]:
    positions = list(range(n)[positions]) if isinstance(positions, slice) else list(positions)
    found = sorted({p % n for p in positions if -n <= p < n})
    if not found or len(found) < len(positions):
        raise ValueError(f"positions {positions}: expected some of 0 to {n - 1}, each once")
    return found


def _absent(model: LanguageModel, embed: torch.nn.Module, baseline: Baseline | str) -> torch.Tensor:
    """The embedding that stands for a hidden token, [d_model]."""
    weight = embed.get_parameter("weight")
    n_tokens, d_model = weight.shape
    if baseline == "zero":
        return weight.new_zeros(d_model)
    if baseline == "mean":  # through the module, since Gemma scales what it looks up
        total = weight.new_zeros(d_model, dtype=torch.float32)
        for ids in torch.arange(n_tokens, device=weight.device).split(EMBEDDINGS_AT_ONCE):
            total += embed(ids).sum(0, dtype=torch.float32)
        return (total / n_tokens).to(weight.dtype)
    boundary = model.tokenizer.eos_token or model.tokenizer.bos_token
    text = {"space": " ", "boundary": boundary}.get(baseline, baseline)
    try:
        return embed(torch.tensor(model.token_id(text), device=weight.device))
    except (TypeError, ValueError) as error:
        names = ", ".join(f"{name!r} ({what})" for name, what in BASELINES.items())
        raise ValueError(f"baseline {baseline!r}: expected {names}, or the text of one token. {error}") from None
