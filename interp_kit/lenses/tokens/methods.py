"""The methods of token attribution, each a few lines around the library that is known for it.

A method takes the masked prompt, the difference f(x) - f(x0), the seed and its own options.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Literal

import numpy as np
import torch

from .masking import MaskedPrompt

Method = Literal[
    "gradient", "input_x_gradient", "integrated_gradients", "occlusion", "shapley", "shap", "lime", "attention",
    "rollout",
]  # fmt: skip
TOLERANCE = 0.01  # of f(x) - f(x0), that values which should add up to it may miss
AT_ONCE = 64  # versions that a library hands over together; the masked prompt splits what is too much
EXTRA = 'it comes with the extra `xai`: pip install "interp_kit[xai]" (in a clone: pip install -e ".[xai]")'


@dataclass
class MethodResult:
    """What a method gives back.

    values: one a token that can be hidden.
    random: whether they depend on the seed.
    in_nats: whether they are differences of the score.
    about: what else the method reports, by name.
    """

    values: list[float]
    random: bool = False
    in_nats: bool = True
    about: dict[str, object] = field(default_factory=dict)


def gradient(masked: MaskedPrompt, difference: float, seed: int) -> MethodResult:
    """The length of the score's gradient at each token's embedding."""
    from captum.attr import Saliency

    embeddings = masked.embedded(_whole(masked)).requires_grad_()
    slopes = Saliency(masked.scored).attribute(embeddings, abs=False)[0, masked.positions]
    return MethodResult(slopes.norm(dim=-1).tolist(), in_nats=False)


def input_x_gradient(masked: MaskedPrompt, difference: float, seed: int) -> MethodResult:
    """The slope of `value` at the whole prompt: the gradient times (embedding - baseline), summed over d_model."""
    from captum.attr import InputXGradient

    return MethodResult(InputXGradient(masked.value).attribute(_whole(masked).requires_grad_())[0].tolist())


def integrated_gradients(
    masked: MaskedPrompt, difference: float, seed: int, steps: int = 32, max_steps: int = 1024
) -> MethodResult:
    """The slope of `value`, averaged on the way from no token to all; steps are doubled until the values add up."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(masked.value)
    while True:
        # Midpoints, for the function bends most near the baseline, where denominators of norms are small.
        values = method.attribute(
            _whole(masked), 0, n_steps=steps, method="riemann_middle", internal_batch_size=masked.at_once_with_gradients
        )[0]
        converged = abs(float(values.sum()) - difference) <= TOLERANCE * abs(difference)
        if converged or 2 * steps > max_steps:
            return MethodResult(values.tolist(), about={"steps": steps, "converged": converged})
        steps *= 2


@torch.no_grad()
def occlusion(masked: MaskedPrompt, difference: float, seed: int) -> MethodResult:
    """What the score loses when one token is hidden."""
    from captum.attr import FeatureAblation

    method = FeatureAblation(masked.value)
    return MethodResult(method.attribute(_whole(masked), perturbations_per_eval=AT_ONCE)[0].tolist())


@torch.no_grad()
def shapley(masked: MaskedPrompt, difference: float, seed: int, samples: int = 20) -> MethodResult:
    """What the score gains when a token is revealed, averaged over random orders of revealing them."""
    from captum.attr import ShapleyValueSampling

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = ShapleyValueSampling(masked.value)
        values = method.attribute(_whole(masked), n_samples=samples, perturbations_per_eval=AT_ONCE)[0]
    return MethodResult(values.tolist(), random=True, about={"orders": samples})


def import_shap() -> ModuleType:
    """The package shap, whose loops run as they are written: they are short here, and to compile them takes ten seconds
    and 100 MB. Where shap was loaded before, numba compiles them."""
    numba = importlib.import_module("numba")  # one of shap's dependencies, not of ours
    compiles_nothing, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        return importlib.import_module("shap")
    finally:
        numba.config.DISABLE_JIT = compiles_nothing


def shap(masked: MaskedPrompt, difference: float, seed: int, samples: int = 200) -> MethodResult:
    """The same by the package shap, which goes through each order forwards and backwards."""
    try:
        shap = import_shap()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"method 'shap' needs the package shap: {EXTRA}") from error
    n, before = len(masked.positions), np.random.get_state()
    try:  # shap seeds numpy's global generator
        explainer = shap.explainers.Permutation(_numpy_value(masked), np.zeros((1, n)), seed=seed)
        # A round goes through an order forwards and backwards: 2 n + 1 versions.
        found = explainer(np.ones((1, n)), max_evals=max(samples, 2 * n + 1), batch_size=AT_ONCE, silent=True)
    finally:
        np.random.set_state(before)
    values = found.values[0].tolist()  # pyright: ignore[reportAttributeAccessIssue]  (of one input there is no list)
    return MethodResult(values, random=True, about={"algorithm": "permutation"})


def lime(masked: MaskedPrompt, difference: float, seed: int, samples: int = 200) -> MethodResult:
    """LIME sees a text of invented words, one a token, so that a removed token is hidden just as elsewhere."""
    try:
        from lime.lime_text import LimeTextExplainer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"method 'lime' needs the package lime: {EXTRA}") from error
    n, value = len(masked.positions), _numpy_value(masked)
    if n == 1:  # a line through two points
        return MethodResult([difference], random=True, about={"R2 of the surrogate": 1.0})
    if samples <= n:
        raise ValueError(f"samples={samples}: a line through {n} tokens needs more than {n}")

    def scores(texts: list[str]) -> np.ndarray:
        present = np.zeros((len(texts), n))
        for row, text in zip(present, texts):
            row[[int(word[1:]) for word in text.split()]] = 1
        found = value(present)
        return np.stack([-found, found], 1)

    explainer = LimeTextExplainer(split_expression=r"\s+", random_state=seed)
    words = " ".join(f"w{i}" for i in range(n))
    found = explainer.explain_instance(words, scores, labels=(1,), num_features=n, num_samples=samples)
    weights = {int(word[1:]): weight for word, weight in found.as_list(1)}
    values = [float(weights.get(i, 0.0)) for i in range(n)]
    score = float(found.score)  # pyright: ignore[reportArgumentType]  (None only before it is fitted)
    return MethodResult(values, random=True, about={"R2 of the surrogate": score})


def attention(masked: MaskedPrompt, difference: float, seed: int) -> MethodResult:
    """Where the last position looks, averaged over layers and heads."""
    patterns = _patterns(masked)
    return MethodResult(patterns.mean((0, 1))[-1, masked.positions].tolist(), in_nats=False)


def rollout(masked: MaskedPrompt, difference: float, seed: int) -> MethodResult:
    """Attention rollout: half of each layer's step is attention, averaged over heads, and half the residual stream."""
    patterns = _patterns(masked).mean(1)
    flow = torch.eye(patterns.shape[-1], device=patterns.device)
    for layer in patterns:
        flow = (layer + torch.eye(len(layer), device=layer.device)) / 2 @ flow
    return MethodResult(flow[-1, masked.positions].tolist(), in_nats=False)


WITH_GRADIENTS = ("gradient", "input_x_gradient", "integrated_gradients")
METHODS: dict[Method, Callable[..., MethodResult]] = {
    "gradient": gradient, "input_x_gradient": input_x_gradient, "integrated_gradients": integrated_gradients,
    "occlusion": occlusion, "shapley": shapley, "shap": shap, "lime": lime, "attention": attention, "rollout": rollout,
}  # fmt: skip


def _whole(masked: MaskedPrompt) -> torch.Tensor:
    """All tokens present: [version, token]."""
    return torch.ones(1, len(masked.positions), device=masked.model.device)


@torch.no_grad()
def _patterns(masked: MaskedPrompt) -> torch.Tensor:
    """[layer, head, query, key]."""
    masked.forwards += 1
    out = masked.model.hf(input_ids=masked.ids[None], use_cache=False, output_attentions=True)
    return torch.stack([pattern[0].float() for pattern in out.attentions])


def _numpy_value(masked: MaskedPrompt) -> Callable[[np.ndarray], np.ndarray]:
    @torch.no_grad()
    def value(present: np.ndarray) -> np.ndarray:
        return masked.value(torch.as_tensor(np.asarray(present), dtype=torch.float32)).double().cpu().numpy()

    return value


def check_options(method: Method, options: Mapping[str, object]) -> None:
    """Raises ValueError for an option that the method does not have, and for numbers below 1."""
    known = list(inspect.signature(METHODS[method]).parameters)[3:]
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"{method} has no option {name!r}; it has {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number of at least 1")
