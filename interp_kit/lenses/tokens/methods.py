"""The methods of token attribution, each a few lines around the library that is known for it.

A method takes the game, f(x) - f(x0), the seed and its own options, and returns a `Found`.
"""

import inspect
from dataclasses import dataclass, field

import numpy as np
import torch

from .masking import MaskedPrompt

AT_ONCE = 64  # versions that a library hands over together; the game splits what is too much
EXTRA = 'it comes with the extra `xai`: pip install "interp_kit[xai]" (in a clone: pip install -e ".[xai]")'


@dataclass
class Found:
    values: list[float]
    random: bool = False
    in_nats: bool = True
    about: dict = field(default_factory=dict)


def gradient(game: MaskedPrompt, gap, seed) -> Found:
    from captum.attr import Saliency

    embeddings = game.embedded(torch.ones(1, len(game.positions))).requires_grad_()
    slopes = Saliency(game.scored).attribute(embeddings, abs=False)[0, game.positions]
    return Found(slopes.norm(dim=-1).tolist(), in_nats=False)


def input_x_gradient(game: MaskedPrompt, gap, seed) -> Found:
    """The slope of `value` at the whole prompt: the gradient times (embedding - baseline), summed over d_model."""
    from captum.attr import InputXGradient

    return Found(InputXGradient(game.value).attribute(_whole(game).requires_grad_())[0].tolist())


def integrated_gradients(game: MaskedPrompt, gap, seed, steps: int = 32, max_steps: int = 1024) -> Found:
    from captum.attr import IntegratedGradients

    from .token_attribution import TOLERANCE

    method = IntegratedGradients(game.value)
    while True:
        # Midpoints, for the function bends most near the baseline, where denominators of norms are small.
        values = method.attribute(
            _whole(game),
            torch.zeros_like(_whole(game)),
            n_steps=steps,
            method="riemann_middle",
            internal_batch_size=game.at_once,
        )[0]
        converged = abs(float(values.sum()) - gap) <= TOLERANCE * abs(gap)
        if converged or 2 * steps > max_steps:
            return Found(values.tolist(), about={"steps": steps, "converged": converged})
        steps *= 2


@torch.no_grad()
def occlusion(game: MaskedPrompt, gap, seed) -> Found:
    from captum.attr import FeatureAblation

    method = FeatureAblation(game.value)
    return Found(method.attribute(_whole(game), perturbations_per_eval=AT_ONCE)[0].tolist())


@torch.no_grad()
def shapley(game: MaskedPrompt, gap, seed, samples: int = 20) -> Found:
    from captum.attr import ShapleyValueSampling

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = ShapleyValueSampling(game.value)
        values = method.attribute(_whole(game), n_samples=samples, perturbations_per_eval=AT_ONCE)[0]
    return Found(values.tolist(), random=True, about={"orders": samples})


def shap(game: MaskedPrompt, gap, seed, samples: int = 200) -> Found:
    try:
        import shap
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"method 'shap' needs the package shap: {EXTRA}") from error
    n, before = len(game.positions), np.random.get_state()
    try:  # shap seeds numpy's global generator
        explainer = shap.explainers.Permutation(_numpy_value(game), np.zeros((1, n)), seed=seed)
        # A round goes through an order forwards and backwards: 2 n + 1 versions.
        found = explainer(np.ones((1, n)), max_evals=max(samples, 2 * n + 1), batch_size=AT_ONCE, silent=True)
    finally:
        np.random.set_state(before)
    return Found(found.values[0].tolist(), random=True, about={"algorithm": "permutation"})


def lime(game: MaskedPrompt, gap, seed, samples: int = 200) -> Found:
    """LIME sees a text of invented words, one a token, so that a removed token is hidden just as elsewhere."""
    try:
        from lime.lime_text import LimeTextExplainer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"method 'lime' needs the package lime: {EXTRA}") from error
    n, value = len(game.positions), _numpy_value(game)
    if n == 1:  # a line through two points
        return Found([gap], random=True, about={"R2 of the surrogate": 1.0})
    if samples <= n:
        raise ValueError(f"samples={samples}: a line through {n} tokens needs more than {n}")

    def scores(texts):
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
    return Found(values, random=True, about={"R2 of the surrogate": float(found.score)})


def attention(game: MaskedPrompt, gap, seed) -> Found:
    patterns = _patterns(game)
    return Found(patterns.mean((0, 1))[-1, game.positions].tolist(), in_nats=False)


def rollout(game: MaskedPrompt, gap, seed) -> Found:
    """Half of each layer's step is attention, averaged over heads, and half the residual stream."""
    patterns = _patterns(game).mean(1)
    flow = torch.eye(patterns.shape[-1])
    for layer in patterns:
        flow = (layer + torch.eye(len(layer))) / 2 @ flow
    return Found(flow[-1, game.positions].tolist(), in_nats=False)


METHODS = {
    function.__name__: function
    for function in (
        gradient, input_x_gradient, integrated_gradients, occlusion, shapley, shap, lime, attention, rollout
    )
}  # fmt: skip


def _whole(game):
    return torch.ones(1, len(game.positions))


@torch.no_grad()
def _patterns(game):
    """[layer, head, query, key]."""
    game.forwards += 1
    out = game.model.hf(input_ids=game.ids[None], use_cache=False, output_attentions=True)
    return torch.stack([pattern[0].float() for pattern in out.attentions])


def _numpy_value(game):
    @torch.no_grad()
    def value(present):
        return game.value(torch.as_tensor(np.asarray(present), dtype=torch.float32)).double().numpy()

    return value


def check_options(method: str, options: dict) -> None:
    """Raises ValueError for an option that the method does not have, and for numbers below 1."""
    known = list(inspect.signature(METHODS[method]).parameters)[3:]
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"{method} has no option {name!r}; it has {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number of at least 1")
