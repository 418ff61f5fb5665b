"""Which words mattered? Several answers to the question, from the same model, baseline and target, each with its bill.

All but the two looks at attention explain one function, `MaskedPrompt.value`: the target's log-probability (or its
distance to a contrast) as a function of which tokens are seen. Gradients, integrated gradients, occlusion and Shapley
sampling are captum's; "shap" and "lime" run those packages (extra `xai`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from ...models.arguments import checked
from ...models.language_model import LanguageModel, Prompt
from ...models.targets import Tokens
from ...widgets.plain_text import printable
from ...widgets.progress import ProgressBar
from ...widgets.token_strip import TokenStrip
from .masking import Baseline, MaskedPrompt
from .methods import METHODS, TOLERANCE, WITH_GRADIENTS, Method, check_options


@dataclass(repr=False)
class TokenAttribution:
    """What `explain_tokens` found.

    tokens: those that were explained.
    values: one a token, in nats where `in_nats`.
    method, baseline: as they were given.
    question: the target in words, "' Austin' rather than ' Sacramento'".
    f_x, f_x0: the score with all tokens and with none, in nats.
    seed: None for a method that draws nothing.
    forwards: versions of the prompt that the model read.
    in_nats: whether values are differences of the score, which take a baseline.
    about: what else the method reports (steps, R2 of LIME's surrogate, ...).
    """

    tokens: list[str]
    values: list[float]
    method: Method
    baseline: str
    question: str
    f_x: float
    f_x0: float
    seed: int | None
    forwards: int
    in_nats: bool = True
    about: dict[str, object] = field(default_factory=dict)

    @property
    def residual(self) -> float:
        """|sum of the values - (f(x) - f(x0))| / |f(x) - f(x0)|: 0 where the words account for all, NaN where the
        values have another unit."""
        if not self.in_nats:
            return math.nan
        gap = self.f_x - self.f_x0
        return abs(sum(self.values) - gap) / max(abs(gap), 1e-12)

    @property
    def complete(self) -> bool:
        """Whether the values account for f(x) - f(x0) to within 1 %."""
        return self.residual <= TOLERANCE

    @property
    def table(self) -> pd.DataFrame:
        """A row a token: token, value."""
        return pd.DataFrame({"token": self.tokens, "value": self.values})

    @property
    def note(self) -> str:
        """The bill: baseline, completeness, seed and cost."""
        if self.in_nats:
            parts = [f"baseline: {self.baseline}", f"f(x) {self.f_x:.2f}, f(x0) {self.f_x0:.2f}"]
            parts.append(f"sum misses f(x) - f(x0) by {self.residual:.1%}")
        else:
            parts = ["no baseline; the values are no shares of the score"]
        parts += [] if self.seed is None else [f"seed {self.seed}"]
        parts += [f"{self.forwards} forwards", *(f"{name} {_short(value)}" for name, value in self.about.items())]
        return "; ".join(parts)

    def show(self) -> TokenStrip:
        """The tokens, blue where they speak for the target and orange, underlined, against it."""
        warning = "DID NOT CONVERGE. " if self.about.get("converged") is False else ""
        return TokenStrip(self.tokens, self.values, title=f"{self.method}: {self.question}", note=warning + self.note)

    def _repr_html_(self) -> str:
        return self.show()._repr_html_()

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = self.show()._repr_mimebundle_()
        return data | {"text/plain": repr(self)}, metadata

    def __repr__(self) -> str:
        return printable(f"TokenAttribution({self.method}, {self.question}: {self.note})")


@checked
def explain_tokens(
    model: LanguageModel,
    prompt: Prompt,
    target: Tokens | None = None,
    contrast: Tokens | None = None,
    *,
    method: Method = "shapley",
    baseline: Baseline | str = "space",
    positions: slice | Sequence[int] | None = None,
    seed: int = 0,
    **options: int,
) -> TokenAttribution:
    """How much each token of the prompt speaks for the target.

    prompt: text, or ids [position].
    target, contrast: the next token asked about, and rather than which other one: text (" Austin") or id; a list is a
        mean. Without a target the likeliest.
    method:

    - "gradient": the length of the score's gradient at each embedding (Simonyan et al. 2014); has no sign;
    - "input_x_gradient": the gradient times embedding less baseline;
    - "integrated_gradients": that, averaged on the way from baseline to prompt (Sundararajan et al. 2017). `steps`
      (32) are doubled up to `max_steps` (1024) until the values add up to within 1 %; where they do not, it says so;
    - "occlusion": what hiding one token takes away;
    - "shapley": what a token adds, averaged over `samples` (20) orders of revealing them (Strumbelj and Kononenko
    2010);
    - "shap", "lime": those packages on the same function (Lundberg and Lee 2017; Ribeiro et al. 2016), with about
      `samples` (200) versions; pip install "interp_kit[xai]";
    - "attention", "rollout": mean attention from the last position, and its product over the layers (Abnar and Zuidema
      2020); they know neither target nor baseline and stand here for contrast.

    baseline: what a hidden token is replaced by: "space", "boundary" (the document boundary: as a default it ruins the
        picture, since all before it is forgotten), "mean", "zero", or the text of a token.
    positions: which tokens are explained; the others stay. Without them all but the first (a boundary that every prompt
        needs) and special ones.
    seed: of the methods that draw.
    options: of the method, `steps`, `max_steps` or `samples`; whole numbers.

        ik.lenses.explain_tokens(model, prompt, target=" Austin", contrast=" Sacramento", method="occlusion")

    Raises ValueError for an unknown method, baseline or option, ModuleNotFoundError when the extra is missing,
    MemoryError where a forward over some versions of the prompt would not fit.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    check_options(method, options)
    masked = MaskedPrompt(model, prompt, target, contrast, baseline, positions)
    masked.check_room(gradients=method in WITH_GRADIENTS)
    with ProgressBar(desc=method, unit=" forwards", delay=2, leave=False) as masked.bar:
        f_x, f_x0 = masked.ends()
        found = METHODS[method](masked, f_x - f_x0, seed, **options)
    return TokenAttribution(
        tokens=masked.tokens, values=found.values, method=method, baseline=baseline, question=masked.target.name,
        f_x=f_x, f_x0=f_x0, seed=seed if found.random else None, forwards=masked.forwards, in_nats=found.in_nats,
        about=found.about,
    )  # fmt: skip


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
