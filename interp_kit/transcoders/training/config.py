"""The options of a training run, each with its manual."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, cast, get_args

import torch

from ...formats.validation import need
from ...models import LanguageModel
from ..module import TranscoderConfig, plain
from .parallel import Split

TrainingActivation = Literal["topk", "batchtopk", "jumprelu"]
Kind = Literal["cross-layer", "per-layer"]
LEAST = {"n_features": 1, "k": 1, "span": 1, "steps": 0, "batch": 1, "seed": -(2**63)}  # of the whole numbers
TRANSCODER_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class TrainingConfig:
    """What `ik.train_transcoder` takes as keywords.

    Raises ValueError for an unknown kind or activation, for a number that is none or too small, and for a k that does
    not fit.
    """

    n_features: int = 1024
    "features of each layer"
    activation: TrainingActivation = "topk"
    """what turns a feature on.
    "topk": it is among the k largest of its token and layer.
    "batchtopk": it is above a threshold, which follows the batches and is fixed at the end (Bussmann et al. 2024,
    "BatchTopK"). All layers have the same one: k features are on in their average, more where MLPs are hard to rebuild.
    "jumprelu": it is above a threshold of its own, which is trained. A tanh penalty, which grows over the run, keeps
    few features on (Ameisen et al. 2025, "Circuit Tracing"). Each layer finds its own L0. Dense, so several times
    slower."""
    kind: Kind = "cross-layer"
    '"cross-layer": a feature writes to its own layer and all later ones; "per-layer": to its own'
    k: int = 8
    "features on per token and layer; with batchtopk their average over layers; with jumprelu not used"
    sparsity: float = 2.0
    "jumprelu: the weight of the penalty at the end of the run; a larger one leaves fewer features on"
    span: int | None = None
    "how many layers a feature writes to, its own included, where `kind` should be something between"
    layers: Sequence[int] | None = None
    "the model's layers to transcode; None for all"
    steps: int = 1000
    "of Adam; text that ends before the last one is read again, if it can be"
    batch: int = 1024
    "tokens a step"
    learning_rate: float = 3e-3
    "of Adam, after the first 20 steps, over which it rises, and before the last fifth, over which it falls to zero"
    memory: str | float = "256MB"
    """the most that the buffer takes in which tokens are shuffled (bytes, or a text such as "2GB"); nothing else of the
    activations is kept. Text that fits into it as a whole is read by the model once, not in every epoch"""
    dtype: torch.dtype | None = None
    "the model's type while it is read; None for bfloat16 where the processor multiplies it natively, else its own"
    parallel: Split = "data"
    "how the processes that `accelerate launch` starts share the work; see `parallel.py`"
    seed: int = 0
    "of the encoders that training starts from, and of the order of texts"

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = plain(getattr(self, name))
            object.__setattr__(self, name, value)
            good = value is None and name == "span" or type(value) is int and least <= value < 2**63
            need(good, name, f"a whole number of at least {least}", value)
        for name in ("learning_rate", "sparsity"):
            value = getattr(self, name)
            good = isinstance(value, Real) and 0 <= float(value) < math.inf and (bool(value) or name == "sparsity")
            need(good, name, "a finite number above 0", value)
        good = self.dtype is None or isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point
        need(good, "dtype", "a floating-point type such as torch.float32", self.dtype)
        if self.kind not in TRANSCODER_KINDS:
            raise ValueError(f"kind {self.kind!r} is not one of {', '.join(TRANSCODER_KINDS)}")
        check_activation(self.activation)
        if not 1 <= self.k <= self.n_features:
            raise ValueError(f"k {self.k} is not between 1 and the {self.n_features} features of a layer")

    def transcoder(self, model: LanguageModel) -> TranscoderConfig:
        """The transcoder of `model` that is trained. Raises ValueError for layers or a span that the model has not."""
        layers = chosen_layers(self.layers, model.n_layers)
        span = self.span or (len(layers) if self.kind == "cross-layer" else 1)
        activation = "topk" if self.activation == "topk" else "jumprelu"
        about = {"name": model.name, "fingerprint": model.fingerprint}
        return TranscoderConfig(model.d_model, self.n_features, layers, span, activation, self.k, model=about)


def check_activation(activation: str) -> None:
    """Raises ValueError for what training does not know."""
    if activation not in get_args(TrainingActivation):
        raise ValueError(f"activation {activation!r} is not one of {', '.join(get_args(TrainingActivation))}")


def renamed_activation(activation: str) -> TrainingActivation:
    """The activation by today's name; "threshold" was the name of "batchtopk" before 0.2."""
    if activation == "threshold":
        warnings.warn('activation="threshold" is now activation="batchtopk"', DeprecationWarning, stacklevel=4)
        return "batchtopk"
    return cast(TrainingActivation, activation)


def chosen_layers(layers: Sequence[int] | None, n_layers: int) -> list[int]:
    """The model's layers to transcode, ascending; None for all. Raises ValueError for layers that it does not have."""
    chosen = list(range(n_layers)) if layers is None else [cast(int, plain(layer)) for layer in sorted(layers)]
    if not chosen or chosen[0] < 0 or chosen[-1] >= n_layers:
        raise ValueError(f"layers {chosen}: expected some of 0 to {n_layers - 1}")
    return chosen
