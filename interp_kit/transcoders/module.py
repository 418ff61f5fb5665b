"""The cross-layer transcoder: what an MLP does, said in sparse features.

Layer `l`'s features read the residual stream there and write to the MLP outputs of layer `l` and of the
layers after it:

    a[l]     = act(W_enc[l] x[l] + b_enc[l])                        [position, feature]
    y_hat[t] = sum over s <= t of a[s] W_dec[s -> t] + b_dec[t]     [position, d_model]

A per-layer transcoder is the same thing with span 1; a skip transcoder adds `W_skip[l] x[l]` to what it rebuilds.
(Ameisen et al. 2025, "Circuit Tracing"; skip connections: Paulo et al. 2025, "Transcoders beat sparse autoencoders".)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from html import escape
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated, Literal, cast, get_args, get_type_hints

import torch
from pydantic import Field
from torch import nn
from typing_extensions import TypedDict

from ..formats.provenance import About, check_belongs
from ..formats.validation import ModelName, check_type, need
from ..models import LanguageModel
from ..models.families import anatomy
from ..widgets.plain_text import literal, printable
from .fingerprint import fingerprint, layer_digest
from .int8_rows import Int8Rows

Activation = Literal["topk", "jumprelu", "relu"]
FeatureInputHook = Literal["hook_resid_mid", "ln2.hook_normalized", "mlp.hook_in"]  # circuit-tracer's names, explained
FeatureOutputHook = Literal["hook_mlp_out", "mlp.hook_out"]  # in `models/families.py`
Size = Annotated[int, Field(ge=1, lt=2**31)]
Index = Annotated[int, Field(ge=0, lt=2**31)]  # as numbers of layers and features are
CHOICES = {"activation": Activation, "feature_input_hook": FeatureInputHook, "feature_output_hook": FeatureOutputHook}


@dataclass
class TranscoderConfig:
    """All that is needed to build the module; written beside the weights.

    Raises ValueError for a value of another type or one that does not fit the others: an activation or a hook that is
    none of those named here, layers that are not ascending, a span or a k that is too large.
    """

    d_model: Size
    "width of the residual stream"
    n_features: Size
    "rows of every layer's weights"
    layers: list[Index]
    "the model's layers that are transcoded, ascending"
    span: int
    "how many of those layers a feature writes to, its own included; 1 is a per-layer transcoder"
    activation: Activation = "topk"
    "topk: the k largest; jumprelu: all above their threshold; relu: all above 0"
    k: int = 8
    "topk: features on per token and layer; jumprelu: the average that training aims at"
    feature_input_hook: FeatureInputHook = "mlp.hook_in"
    "the encoder's input"
    feature_output_hook: FeatureOutputHook = "hook_mlp_out"
    "what it rebuilds: what reaches the stream, or the MLP's own output; the same, but for a norm after the MLP"
    skip: bool = False
    "a linear map W_skip from the encoder's input to the output of its own layer, beside the features"
    excludes_first_position: bool = False
    "position 0 (a begin-of-text token with huge activations) was left out of training and has no features"
    n_features_per_layer: list[Index] | None = None
    "how many of its rows each layer uses, where they differ; the rest is zero padding to one shape"
    model: dict[ModelName, ModelName] = field(default_factory=dict)
    "name and fingerprint of the model it was trained on"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} {shortened(getattr(self, name))}: expected one of {', '.join(get_args(choices))}"
                )
        for name, value in vars(self).items():
            setattr(self, name, plain(value))
        check_type(_fields(), vars(self))
        ascending = bool(self.layers) and all(a < b for a, b in pairwise(self.layers))
        need(ascending, "layers", "the numbers of some layers, ascending", self.layers)
        if not 1 <= self.span <= len(self.layers):
            raise ValueError(f"span {self.span} is not between 1 and the {len(self.layers)} layers transcoded")
        if self.activation == "topk" and not 1 <= self.k <= self.n_features:
            raise ValueError(f"k {self.k} is not between 1 and the {self.n_features} features of a layer")
        counts = self.n_features_per_layer
        good = counts is None or len(counts) == len(self.layers) and max(counts) <= self.n_features
        need(good, "n_features_per_layer", f"for each layer a number from 0 to {self.n_features}", counts)


def plain(value: object) -> object:
    """A whole number of numpy as Python's, a range or a tuple of such as a list; anything else as it is."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return [plain(inner) for inner in value] if isinstance(value, list | tuple | range) else value


@cache
def _fields() -> type:
    """The types of a TranscoderConfig's fields, for `check_type`."""
    hints = get_type_hints(TranscoderConfig, include_extras=True)
    return TypedDict("TranscoderFields", hints)  # pyright: ignore[reportArgumentType] - made from the class, not written


class CrossLayerTranscoder(nn.Module):
    """Features per layer, each with one encoder row and a decoder row for every layer it writes to.

    `W_enc` [layer, feature, d_model], `b_enc` and `threshold` [layer, feature], `b_dec` [layer, d_model],
    `W_dec[i]` [feature, target, d_model] where target j of source i is `config.layers[i + j]`;
    `W_skip` [layer, d_model out, d_model in], or None without skip connections. The decoders of a large transcoder
    stay on disk (mapped into memory, in the file's dtype) and only the rows that a prompt needs are read. Where it is
    int8, its encoders stay so too: `W_enc` and each `W_dec[i]` are then `Int8Rows`, of which `[...]` gives floats.

    It computes in the type and on the device of its biases, whatever those of what it is given.
    """

    threshold: torch.Tensor
    on_disk: str | None = None
    "the folder where the decoders lie, if they stay there; then they are searched for NaN only as they are used"

    def __init__(self, config: TranscoderConfig):
        super().__init__()
        self.config = config
        n, f, d = len(config.layers), config.n_features, config.d_model
        bound = d**-0.5
        self.W_enc = nn.Parameter(torch.empty(n, f, d).uniform_(-bound, bound))
        self.b_enc = nn.Parameter(torch.zeros(n, f))
        self.W_dec = nn.ParameterList(torch.zeros(f, self.n_targets(i), d) for i in range(n))
        self.b_dec = nn.Parameter(torch.zeros(n, d))
        self.W_skip = nn.Parameter(torch.zeros(n, d, d)) if config.skip else None
        self.register_buffer("threshold", torch.zeros(n, f))

    @property
    def layers(self) -> list[int]:
        """The model's layers that are transcoded, ascending."""
        return self.config.layers

    @property
    def n_features(self) -> int:
        """Rows of every layer's weights; see `n_features_per_layer`."""
        return self.config.n_features

    def n_targets(self, source: int) -> int:
        """How many layers the features of the `source`-th transcoded layer write to."""
        return min(self.config.span, len(self.config.layers) - source)

    def preactivations(self, x: torch.Tensor) -> torch.Tensor:
        """x [layer, position, d_model] -> [layer, position, feature]; layers in the order of `layers`.

        Here and below x may be of any precision and on any device: what comes out is of the transcoder's own.
        """
        x = x.to(self.b_enc)
        if isinstance(self.W_enc, Int8Rows):  # one layer's floats at a time
            return torch.stack([torch.addmm(bias, x[i], self.W_enc[i].T) for i, bias in enumerate(self.b_enc)])
        return torch.baddbmm(self.b_enc[:, None], x, self.W_enc.mT)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Feature activations [layer, position, feature] of x [layer, position, d_model] (whole prompts, from 0).

        Raises ValueError when x does not have this transcoder's layers and width.
        """
        if x.ndim != 3 or x.shape[0] != len(self.layers) or x.shape[2] != self.config.d_model:
            expected = f"[layer, position, d_model] = [{len(self.layers)}, *, {self.config.d_model}]"
            raise ValueError(f"expected {expected}, got {list(x.shape)}")
        features = self.encode_tokens(x)
        if self.config.excludes_first_position:
            features[:, 0] = 0
        return features

    def encode_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Features [layer, token, feature] of x [layer, token, d_model], tokens of any texts; none is masked."""
        return self.activate(self.preactivations(x), self.threshold[:, None])

    def encode_layer(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Features [..., feature] of the index-th transcoded layer alone, x [..., d_model]; position 0 too."""
        pre = x.to(self.b_enc) @ self.W_enc[index].T + self.b_enc[index]
        return self.activate(pre, self.threshold[index])

    def activate(self, pre: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Activations of pre-activations [..., feature]; the threshold, of a shape that fits, is JumpReLU's."""
        if self.config.activation == "topk":
            top = pre.topk(self.config.k, dim=-1)
            return torch.zeros_like(pre).scatter_(-1, top.indices, top.values.relu())
        if self.config.activation == "jumprelu":
            return pre * (pre > threshold)
        return pre.relu()

    def decode(self, features: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """Reconstructed MLP outputs [layer, position, d_model] of features [layer, position, feature].

        `x`, the encoder's input, is needed by a transcoder with skip connections only: ValueError without.
        """
        n, d = len(self.layers), self.config.d_model
        out = self.b_dec[:, None].expand(n, features.shape[1], d).clone()
        if self.W_skip is not None:
            if x is None:
                raise ValueError("this transcoder has skip connections: give x, the encoder's input, too")
            out += x.to(self.W_skip) @ self.W_skip.mT
        for source in range(n):
            out[source : source + self.n_targets(source)] += self.written(source, features[source]).transpose(0, 1)
        return out

    def written(self, source: int, features: torch.Tensor) -> torch.Tensor:
        """What features [..., feature] of the source-th layer write to each layer: [..., target, d_model].

        Raises ValueError for decoders on the disk that are not finite.
        """
        rows = self.W_dec[source][:].to(self.b_enc)
        wide = features.to(self.b_enc) @ rows.flatten(1)  # every target at once
        return self._searched(source, wide).unflatten(-1, rows.shape[1:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstructed MLP outputs of encoder inputs, both [layer, position, d_model]."""
        return self.decode(self.encode(x), x)

    def decoder_rows(self, source: int, features: torch.Tensor, target: int) -> torch.Tensor:
        """What `features` (indices) of the source-th layer write to the target-th: [len(features), d_model].

        Raises ValueError for rows on the disk that are not finite.
        """
        rows = self.W_dec[source]
        return self._searched(source, rows[features.to(rows.device), target - source].to(self.b_enc))

    def _searched(self, source: int, numbers: torch.Tensor) -> torch.Tensor:
        """What was read of the source-th layer's decoders, or ValueError."""
        if self.on_disk and not numbers.isfinite().all():
            raise ValueError(
                f"layer {self.layers[source]} of {self.on_disk}: W_dec holds NaN or infinite weights; copy it again"
            )
        return numbers

    def in_dtype(self, dtype: torch.dtype, device: torch.device | None = None) -> "CrossLayerTranscoder":
        """The transcoder itself, or a copy of another type or on another device. Decoders on the disk stay there, and
        int8 stays int8."""
        device = device or self.b_enc.device
        if (self.b_enc.dtype, self.b_enc.device) == (dtype, device):
            return self
        with torch.device("meta"):
            other = type(self)(replace(self.config))
        int8 = [rows.in_dtype(dtype, device) for rows in (self.W_enc, *self.W_dec) if isinstance(rows, Int8Rows)]
        kept, replaced = "W_dec" if self.on_disk else "nothing", ("W_enc", "W_dec") if int8 else ("nothing",)
        weights = {name: t for name, t in self.state_dict().items() if not name.startswith(replaced)}
        moved = {name: t if name.startswith(kept) else t.to(device, dtype) for name, t in weights.items()}
        other.load_state_dict(moved, strict=not int8, assign=True)
        if int8:
            other.hold_int8(*int8)
        other.on_disk = self.on_disk
        if "fingerprint" in vars(self):  # what was loaded has that of its folder, whatever its type
            other.fingerprint = self.fingerprint
        return other.train(self.training).requires_grad_(False)

    def hold_int8(self, W_enc: Int8Rows, *W_dec: Int8Rows) -> None:
        """Takes these in place of float weights: what reads some of those, reads some of these."""
        del self.W_enc
        self.W_enc, self.W_dec = cast(nn.Parameter, W_enc), cast(nn.ParameterList, nn.ModuleList(W_dec))

    @property
    def n_features_per_layer(self) -> list[int]:
        """How many features each transcoded layer has."""
        return self.config.n_features_per_layer or [self.config.n_features] * len(self.layers)

    @torch.no_grad()
    def keep_features(self, features: Sequence[torch.Tensor]) -> "CrossLayerTranscoder":
        """A transcoder with just these features, indices for each layer: to drop what never fires, say."""
        counts = [len(kept) for kept in features]
        smaller = type(self)(replace(self.config, n_features=max(1, *counts), n_features_per_layer=counts))
        smaller.W_enc.zero_()  # as all else is: the rest of a layer's rows is padding
        for i, kept in enumerate(features):
            used = slice(len(kept))
            smaller.W_enc[i, used], smaller.b_enc[i, used] = self.W_enc[i, kept], self.b_enc[i, kept]
            smaller.W_dec[i][used] = self._searched(i, self.W_dec[i][kept].to(self.b_enc))
            smaller.threshold[i, used] = self.threshold[i, kept]
        smaller.b_dec[:] = self.b_dec
        if self.W_skip is not None:
            smaller.W_skip = nn.Parameter(self.W_skip.clone())
        return smaller.eval().requires_grad_(False)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell whether a feature of another transcoder is the same one: see `fingerprint.py`.

        Computed once: weights that are changed by hand afterwards keep it.
        """
        return fingerprint(self.config, [self._digest(i) for i in range(len(self.layers))])

    def _digest(self, i: int) -> bytes:
        return layer_digest({name: getattr(self, name)[i] for name in self.layer_tensors})

    @property
    def layer_tensors(self) -> list[str]:
        """The names of what each layer has."""
        thresholds = ["threshold"] if self.config.activation == "jumprelu" else []
        return ["W_enc", "b_enc", "b_dec", "W_dec", *thresholds, *(["W_skip"] if self.config.skip else [])]

    @property
    def about(self) -> About:
        """The model that it was trained on, as far as is known, and its own fingerprint."""
        about, model = About(transcoder=self.fingerprint), self.config.model
        for key, value in (("model", model.get("name")), ("fingerprint", model.get("fingerprint"))):
            if value:
                about[key] = value
        return about

    def check_model(self, model: LanguageModel) -> None:
        """Raises ValueError when this transcoder was made for another model, or rebuilds what this one has not."""
        if self.config.d_model != model.d_model or self.layers[-1] >= model.n_layers:
            raise ValueError(
                f"this transcoder fits a model with d_model {self.config.d_model} and at least {self.layers[-1] + 1} "
                f"layers; {model.name!r} has d_model {model.d_model} and {model.n_layers}. Load the transcoder that "
                "was trained on this model, or train one with ik.train_transcoder"
            )
        if self.config.model.get("fingerprint"):  # those of other projects say nothing
            check_belongs(self, "transcoder", model, "model", keys=["fingerprint"])
        before_norm = self.config.feature_output_hook == "mlp.hook_out"
        if before_norm and any(block.writer is not block.mlp for block in anatomy(model.hf).blocks):
            raise ValueError(
                f"this transcoder rebuilds the MLP's own output (mlp.hook_out), and {model.name!r} has a norm between "
                "that and the residual stream: load one that rebuilds what the norm writes (hook_mlp_out)"
            )

    def save(self, folder: str | Path) -> None:
        """Writes circuit-tracer's on-disk format plus `interp_kit.json`; see `folder.save_transcoder`."""
        from .folder import save_transcoder  # which imports this file

        save_transcoder(self, folder)

    def __repr__(self) -> str:
        c = self.config
        kind = "per-layer" if c.span == 1 else "cross-layer" if c.span == len(c.layers) else f"span {c.span}"
        rule = {"topk": f"top {c.k}", "jumprelu": "JumpReLU", "relu": "ReLU"}[c.activation]
        kind += ", skip" if c.skip else ""
        n_features = sum(self.n_features_per_layer)
        return printable(f"CrossLayerTranscoder({kind}, {len(c.layers)} layers, {n_features:,} features, {rule})")

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{k}</th><td>{escape(str(v))}</td></tr>" for k, v in asdict(self.config).items())
        return literal(f"<table><caption>{escape(repr(self))}</caption>{rows}</table>")
