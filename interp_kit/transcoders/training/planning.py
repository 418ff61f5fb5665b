"""What training a transcoder would take: parameters, FLOPs, memory and hours, before any weight is loaded.

The arithmetic of a step, as `sparse_pass.py` does it. n layers of width d have F features each, of which k are on at a
token; layer i's features write to t_i layers.

    reading    2 FLOP a token for each weight of the model's layers, and attention, in bfloat16
    choosing   2 FLOP a token for each weight of the encoder, in bfloat16, and the k largest of F pre-activations
    the rest   for each feature that is on, rows: 2 of the encoder in float32 (dots, gather), 3 of the decoder (dots in
               float32, decode and gather in bfloat16), each t_i * d wide; and for each token `TOKEN_ROWS` as wide:
               its sum, error, gradient
    updating   `UPDATE_BYTES` a parameter, however many tokens: the larger the batch, the fewer updates

JumpReLU is dense: 4 FLOP a weight of the encoder (its input needs no gradient), 6 of the decoder, in float32. Products
wait for a device's FLOP/s, rows and updates for its memory's GB/s, sums over devices for the links between them, one
after the other, so times add up. (FLOPs: Kaplan et al. 2020, "Scaling Laws", table 1. Devices as FLOP/s and GB/s:
Williams et al. 2009, "Roofline". A ring of n sums B bytes by sending 2 (n - 1) / n * B: Patarasuk and Yuan 2009.)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ...hardware import Device, bytes_of, this_machine
from ...models import LanguageModel
from ...text.batches import TOKENS_AT_ONCE
from ...text.rows import WINDOW
from ...widgets.plain_text import literal, printable
from ..module import TranscoderConfig
from .config import TrainingActivation, check_activation, chosen_layers, renamed_activation
from .parallel import Split
from .stream import buffer_size

# What a run reaches of a device's FLOP/s and GB/s, after runs on a CPU (benchmarks/planning.py); no GPU was measured.
BFLOAT16_SHARE = 0.25  # norms, softmax and copies between the products count against it
FLOAT32_SHARE = 0.6
BANDWIDTH_SHARE = 0.6  # of memory and of links
USABLE_MEMORY_SHARE = 0.9  # the rest is for libraries and fragments

STATE_BYTES = 16  # a parameter: weight, gradient and Adam's two moments in float32
UPDATE_BYTES = 44  # a parameter, moved in a step: gradient written 4, measured 4, clipped 8, Adam 28
TOKEN_ROWS = 6  # rows as wide as all that a layer's features write, for each token
TOPK_BYTES = 48  # topk takes as long for a pre-activation as moving so many bytes
STEP_TENSORS = 8  # float32 tensors [layer, token, d_model] at once in a step ...
AUTOGRAD_TENSORS = 12  # ... and [layer, token, feature] that autograd holds with JumpReLU


# NVIDIA's data sheets, SXM where there is a choice; links are PCIe 3 and 4, NVLink 3 and 4. The T4 has no bfloat16:
# emulated, it is half as fast as float32 (github.com/openxla/xla/issues/12429).
DEVICES = {
    "T4": Device(4, 8.1, 16, 320, 16),
    "L4": Device(121, 30.3, 24, 300, 32),
    "A100-40GB": Device(312, 19.5, 40, 1555, 300),
    "A100-80GB": Device(312, 19.5, 80, 2039, 300),
    "H100": Device(989, 67, 80, 3350, 450),
    "H200": Device(989, 67, 141, 4800, 450),
}


@dataclass
class Plan:
    """What `plan_training` counts and estimates."""

    summary: pd.Series
    "parameters, FLOPs and bytes, with the units in their names"
    table: pd.DataFrame
    """for each of `devices`: split (what to give as `parallel`, or "does not fit"), GB a device, hours, and what
    they are bound by"""

    def __repr__(self) -> str:
        numbers = "\n".join(f"{name:45} {value:>15,.4g}" for name, value in self.summary.items())
        return printable(f"{numbers}\n\n{self.table.to_string(index=False, float_format='{:,.3g}'.format)}")

    def _repr_html_(self) -> str:
        numbers = self.summary.to_frame("").to_html(float_format="{:,.4g}".format)
        return literal(numbers + self.table.to_html(index=False, float_format="{:,.3g}".format))


def plan_training(
    model: LanguageModel | PretrainedConfig,
    n_features: int,
    span: int | None = None,
    tokens: float = 10e6,
    devices: str | Sequence[str] = ("cpu", "T4", "A100-80GB", "8 x H100"),
    *,
    k: int = 8,
    layers: Sequence[int] | None = None,
    batch: int = 1024,
    activation: TrainingActivation = "topk",
    memory: str | float = "256MB",
) -> Plan:
    """What `train_transcoder` would take with these arguments.

    model: a LanguageModel, or only a transformers config: no weights are needed.
    span: how many layers a feature writes to: None for all later ones (cross-layer), 1 for a per-layer transcoder.
    tokens: to train on, each read once.
    devices: of "cpu" (this machine, measured now), "T4", "L4", "A100-40GB", "A100-80GB", "H100", "H200"; several as
        "8 x H100", which share the work in the faster of the two ways that fit (see `parallel.py`).

    Parameters, FLOPs and bytes are counted. Hours are estimates: they assume that a run reaches the shares
    `BFLOAT16_SHARE`, `FLOAT32_SHARE` and `BANDWIDTH_SHARE` of what a device can do, right within a third on a CPU and
    unmeasured on GPUs. Not counted: launches, for which a GPU waits where a step takes only milliseconds; tokenising,
    padding, checkpoints; libraries' memory. Raises ValueError for unknown devices and sizes that make no sense.

        ik.plan_training(model, n_features=4096, tokens=50e6, devices=["cpu", "A100-80GB"])
    """
    activation = renamed_activation(activation)
    config = getattr(getattr(model, "hf", None), "config", model)
    if not isinstance(config, PretrainedConfig):
        raise TypeError(f"expected a LanguageModel or a transformers config, got {type(model).__name__}")
    config = config.get_text_config()
    check_activation(activation)
    if batch < 1 or not 1 <= k <= n_features:
        raise ValueError(f"batch {batch}, k {k}, {n_features} features: expected batch >= 1 and 1 <= k <= features")
    layers = chosen_layers(layers, config.num_hidden_layers)
    span = len(layers) if span is None else span
    transcoder = TranscoderConfig(config.hidden_size, n_features, layers, span, k=k)  # raises where it cannot be
    if not batch <= tokens < float("inf"):
        raise ValueError(f"tokens {tokens}: expected at least one batch, {batch}")
    with torch.device("meta"):  # shapes without memory
        hf = AutoModelForCausalLM.from_config(config)
    _, buffer = buffer_size(transcoder, torch.bfloat16, batch, bytes_of(memory))
    step = Step.of(hf, transcoder, activation, batch, buffer)
    rows = [_row(step, entry, tokens / batch) for entry in ([devices] if isinstance(devices, str) else devices)]
    return Plan(step.summary(), pd.DataFrame(rows, columns=["devices", "split", "GB a device", "hours", "bound by"]))


@dataclass
class Step:
    """The sizes of one process's training step, and what follows from them."""

    batch: int  # tokens
    n_features: float  # of a layer
    k: float
    d_model: int
    n_layers: int  # transcoded
    n_targets: int  # to how many layers the features of each layer write, summed over layers
    dense: bool  # JumpReLU
    model: int  # parameters
    reading: float  # FLOP a token
    buffer: float  # bytes

    @classmethod
    def of(
        cls, hf: PreTrainedModel, transcoder: TranscoderConfig, activation: TrainingActivation, batch: int, buffer: int
    ) -> "Step":
        """Of training this transcoder of the model `hf`, whose weights are not looked at."""
        n, dense = len(transcoder.layers), activation == "jumprelu"
        targets = sum(min(transcoder.span, n - i) for i in range(n))
        size, reading = sum(weights.numel() for weights in hf.parameters()), forward_flops(hf)
        f, k, d = transcoder.n_features, transcoder.k, transcoder.d_model
        return cls(batch, f, k, d, n, targets, dense, size, reading, buffer)

    def share(self, way: Split, n: int) -> "Step":
        """One of n processes'."""
        if way == "data":
            return replace(self, batch=self.batch / n, buffer=self.buffer / n)
        return replace(self, n_features=self.n_features / n, k=self.k / n)

    def __post_init__(self) -> None:
        n, f, d, k = self.n_layers, self.n_features, self.d_model, self.k
        self.encoder, self.decoder = n * f * d, self.n_targets * f * d  # weights of all encoders, of all decoders
        # Weights and biases; with JumpReLU thresholds, which are then trained.
        self.parameters = self.encoder + self.decoder + n * (f * (2 if self.dense else 1) + d)
        # rest: FLOP a token after the choice of features. rows: bytes a token that the sparse products move.
        if self.dense:
            self.rest, self.rows = 2 * self.encoder + 6 * self.decoder, 0.0
            copies, narrow = AUTOGRAD_TENSORS * 4 * n * self.batch, 0.0
        else:
            self.rest = 2 * k * d * (2 * n + 3 * self.n_targets)
            self.rows = 4 * d * (2 * k * n + (2 * k + TOKEN_ROWS) * self.n_targets)
            copies = 4 * self.batch + 6 * d  # pre-activations and copies of encoders, a layer or two at a time
            narrow = 2 * self.decoder  # a copy of the decoders in bfloat16
        # Bytes beside weights and buffer: of a step, of a slice of text, or of the scales, whichever is most.
        step = STEP_TENSORS * 4 * n * d * self.batch + copies * f
        self.working = max(step, 5 * 2 * n * d * TOKENS_AT_ONCE, 3 * self.buffer / n)
        self.own = STATE_BYTES * self.parameters + narrow + self.buffer + self.working  # all but the model
        self.memory = self.own + 2 * self.model

    def seconds(self, device: Device) -> dict[str, float]:
        """What a step takes on one device, by what it waits for."""
        bfloat16, float32 = 1e12 * BFLOAT16_SHARE * device.bfloat16, 1e12 * FLOAT32_SHARE * device.float32
        if self.dense:
            compute, moved = (2 * self.encoder + self.rest) / float32, 0
        else:
            compute, moved = 2 * self.encoder / bfloat16, self.rows + TOPK_BYTES * self.n_layers * self.n_features
        compute = self.batch * (self.reading / bfloat16 + compute)
        traffic = self.batch * moved + UPDATE_BYTES * self.parameters
        return {"compute": compute, "memory traffic": traffic / (1e9 * BANDWIDTH_SHARE * device.bandwidth)}

    def summary(self) -> pd.Series:
        """The numbers of a plan, which do not depend on the device."""
        numbers = {
            "parameters": self.parameters,
            "GFLOP a token, reading the model": self.reading / 1e9,
            "GFLOP a token, choosing features": 2 * self.encoder / 1e9,
            f"GFLOP a token, the {'dense' if self.dense else 'sparse'} rest": self.rest / 1e9,
            "MB a token, moved by the sparse products": self.rows / 1e6,
            "GB, weights, gradients and Adam": STATE_BYTES * self.parameters / 1e9,
            "GB, buffer": self.buffer / 1e9,
            "GB, the model in bfloat16": 2 * self.model / 1e9,
            "GB, working space of a step": self.working / 1e9,
        }
        return pd.Series(numbers, name="plan")


def forward_flops(hf: PreTrainedModel) -> float:
    """FLOP a token of a model without its head, in rows as long as training reads: 2 a weight of each matrix, and in
    each layer 4 * window * heads * width for attention's scores and sums (the masked ones are computed too)."""
    base, config = hf.base_model, hf.config.get_text_config()
    lookups = {m.weight for m in base.modules() if isinstance(m, torch.nn.Embedding)}
    weights = sum(w.numel() for w in base.parameters() if w.ndim == 2 and w not in lookups)
    window = min(getattr(config, "max_position_embeddings", None) or WINDOW, WINDOW)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * weights + 4 * window * config.num_attention_heads * width * config.num_hidden_layers


def _row(step: Step, entry: str, steps: float) -> tuple[str, str, float, float, str]:
    """A line of the plan's table: the faster way of those that fit."""
    n, device = _device(entry)
    options = []
    for way in ("data", "features") if n > 1 and step.n_features % n == 0 else ("data",):
        told = step.parameters if way == "data" else step.batch * step.d_model * step.n_layers
        own = step.share(way, n)
        seconds = own.seconds(device) | {"links": 2 * (n - 1) / n * 4 * told / (1e9 * BANDWIDTH_SHARE * device.link)}
        hours = steps * sum(seconds.values()) / 3600
        options.append((entry, way, own.memory / 1e9, hours, max(seconds, key=lambda name: seconds[name])))
    fitting = [option for option in options if option[2] <= USABLE_MEMORY_SHARE * device.memory]
    if not fitting:
        return entry, "does not fit", min(option[2] for option in options), float("nan"), "memory"
    return min(fitting, key=lambda option: option[3])


def _device(entry: str) -> tuple[int, Device]:
    """ "8 x H100" -> 8 and what one of them can do."""
    devices = {name.lower(): device for name, device in DEVICES.items()}
    written = re.fullmatch(rf"(?:([1-9]\d*)\s*x\s*)?(cpu|{'|'.join(devices)})", entry.strip().lower())
    if written is None:
        raise ValueError(f"device {entry!r} is not one of cpu, {', '.join(DEVICES)}; several are written '8 x H100'")
    return int(written[1] or 1), this_machine() if written[2] == "cpu" else devices[written[2]]
