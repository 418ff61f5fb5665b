"""What training a transcoder would take: parameters, FLOPs, memory and hours, before any weight is loaded.

The arithmetic of one step of `trainer.py`, for T tokens and transcoded layers 0, 1, ..., of which layer i's F features
write to t_i layers of width d:

    reading    2 FLOP a weight of the model's layers and 4 * window * width of attention a token, in bfloat16
    choosing   2 FLOP a weight of the encoder a token, in bfloat16, and the k largest of n * F pre-activations
    the rest   for each of the k features on, rows in float32: 2 of the encoder (dots, gather), 3 of the decoder (decode,
               dots, gather), each t_i wide; and of each token's own sums, places and gradients another `OWN_ROWS`
    updating   `UPDATE` bytes a parameter, whatever T is: the larger the batch, the fewer updates

JumpReLU is dense: 4 FLOP a weight of the encoder, 6 of the decoder, in float32 (no gradient to the encoder's input).
Products are bound by a device's FLOP/s; rows, picks and updates by its memory's GB/s; what devices tell each other by
the link between them. One waits for the other, so the times add up. (A roofline: Williams et al. 2009. All-reduce of B
bytes by n devices in a ring: 2 (n - 1) / n * B over each link; Patarasu and Yuan 2009.)
"""

import re
import time
from dataclasses import asdict, dataclass, replace
from functools import cache

import pandas as pd
import psutil
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from ..memory import bytes_of
from .activations import TOKENS_AT_ONCE
from .module import CrossLayerTranscoder, TranscoderConfig
from .texts import WINDOW
from .trainer import multiplies_bfloat16

COMPUTE = 0.4  # the share of a device's FLOP/s that products reach in a run ...
TRAFFIC = 0.6  # ... of its memory's GB/s, and of its link's
FITS = 0.9  # of a device's memory may be planned for; the rest goes to libraries and fragments
STATE = 16  # bytes a parameter: weight, gradient, Adam's two moments, all in float32
UPDATE = 44  # bytes a parameter moved in a step: gradient written 4, measured 4, clipped 8, Adam 28
OWN_ROWS = 6  # rows of t_i * d a token and layer, beside those of its features
PICK = 16  # bytes a pre-activation moved to find the largest: a radix selection's passes over 2 bytes
DENSE_COPIES = 8  # float32 tensors [layer, token, feature] that autograd holds with JumpReLU
UNITS = 8  # float32 tensors [layer, token, d_model] at once in a step


@dataclass(frozen=True)
class Device:
    """TFLOP/s of dense products in bfloat16 and float32 (no sparsity, no TF32), GB of memory, GB/s of memory and of the
    link to each neighbour in one direction; `picks`, 1e9 pre-activations a second, where measured."""

    bfloat16: float
    float32: float
    memory: float
    bandwidth: float
    link: float
    picks: float | None = None


# NVIDIA's data sheets, SXM where there is a choice; links: PCIe 3 and 4 x16, NVLink 3 and 4. The T4 has no bfloat16:
# emulated, it runs at half of float32 (github.com/openxla/xla/issues/12429).
DEVICES = {
    "T4": Device(4, 8.1, 16, 320, 16),
    "L4": Device(121, 30.3, 24, 300, 32),
    "A100-40GB": Device(312, 19.5, 40, 1555, 300),
    "A100-80GB": Device(312, 19.5, 80, 2039, 300),
    "H100": Device(989, 67, 80, 3350, 450),
    "H200": Device(989, 67, 141, 4800, 450),
}
KNOWN = ("cpu", *DEVICES)


@dataclass
class Plan:
    """`summary`: a Series, units in the names. `table`: a row for each entry of `devices`: devices; split, the `parallel`
    to train with, or "does not fit"; GB a device; hours; bound by, what takes the most of them."""

    summary: pd.Series
    table: pd.DataFrame

    def __repr__(self):
        numbers = "\n".join(f"{name:45} {value:>15,.4g}" for name, value in self.summary.items())
        return f"{numbers}\n\n{self.table.to_string(index=False, float_format='{:,.3g}'.format)}"

    def _repr_html_(self):
        numbers = self.summary.to_frame("").to_html(float_format="{:,.4g}".format)
        return numbers + self.table.to_html(index=False, float_format="{:,.3g}".format)


def plan_training(
    model,
    n_features: int,
    span: int | None = None,
    tokens: float = 10e6,
    devices=("cpu", "T4", "A100-80GB", "8 x H100"),
    *,
    k: int = 8,
    layers: list[int] | None = None,
    batch: int = 1024,
    activation: str = "topk",
    memory: str | float = "256MB",
) -> Plan:
    """What `train_transcoder` would take with these arguments.

    model: a LanguageModel, or only a transformers config, so that no weights are needed.
    span: how many layers a feature writes to: None for all later ones (cross-layer), 1 for a per-layer transcoder.
    tokens: read, each once, and trained on.
    devices: of "cpu" (this machine, measured now), "T4", "L4", "A100-40GB", "A100-80GB", "H100", "H200"; several as
        "8 x H100". The faster of the two ways to share the work that fit is taken (see `parallel.py`).

    Parameters, FLOPs and bytes are counted. Hours are estimates, right within a factor of two or so on one processor
    and unmeasured on several: they take it that products reach `COMPUTE` of a device's peak and rows `TRAFFIC` of its
    bandwidth. Below a few milliseconds a step a GPU waits for Python instead, which is not counted, nor are reading
    text, padding of rows and checkpoints. Raises ValueError for unknown devices and sizes that make no sense.
    """
    step = _Step.of(model, n_features, span, k, layers, batch, activation, memory)
    if not batch <= tokens < float("inf"):
        raise ValueError(f"tokens {tokens}: expected at least one batch, {batch}")
    rows = [_row(step, entry, tokens) for entry in ([devices] if isinstance(devices, str) else devices)]
    return Plan(step.summary(), pd.DataFrame(rows, columns=["devices", "split", "GB a device", "hours", "bound by"]))


@dataclass(frozen=True)
class _Step:
    """A training step of one process: how many numbers of each kind it holds and touches."""

    tokens: int
    features: int  # of a layer
    k: int
    d_model: int
    writes: tuple[int, ...]  # to how many layers the features of each transcoded layer write
    encoder: int  # parameters ...
    decoder: int
    trained: int  # ... of all kinds
    model: int
    reading: float  # FLOP a token
    buffer: float  # bytes
    activation: str

    @classmethod
    def of(cls, model, n_features, span, k, layers, batch, activation, memory):
        config = getattr(model, "hf", model)
        config = config if isinstance(config, PretrainedConfig) else getattr(config, "config", None)
        if config is None:
            raise TypeError(f"expected a LanguageModel or a transformers config, got {type(model).__name__}")
        config = config.get_text_config()
        if activation not in ("topk", "threshold", "jumprelu"):
            raise ValueError(f"activation {activation!r} is not one of topk, threshold, jumprelu")
        if batch < 1 or not 1 <= k <= n_features:
            raise ValueError(f"batch {batch}, k {k}, {n_features} features: expected batch >= 1 and 1 <= k <= features")
        layers = list(range(config.num_hidden_layers)) if layers is None else sorted(layers)
        if not layers or layers[0] < 0 or layers[-1] >= config.num_hidden_layers:
            raise ValueError(f"layers {layers}: expected some of 0 to {config.num_hidden_layers - 1}")
        span = len(layers) if span is None else span
        with torch.device("meta"):  # shapes without memory
            hf = AutoModelForCausalLM.from_config(config)
            clt = CrossLayerTranscoder(TranscoderConfig(config.hidden_size, n_features, layers, span, k=k))
        a_token = 2 * len(layers) * config.hidden_size * torch.bfloat16.itemsize
        return cls(
            tokens=batch,
            features=n_features,
            k=k,
            d_model=config.hidden_size,
            writes=tuple(clt.n_targets(i) for i in range(len(layers))),
            encoder=clt.W_enc.numel(),
            decoder=_count(clt.W_dec),
            trained=_count(clt) + (clt.threshold.numel() if activation == "jumprelu" else 0),
            model=_count(hf),
            reading=forward_flops(hf.base_model),
            buffer=max(1, int(bytes_of(memory) / a_token / batch)) * batch * a_token,
            activation=activation,
        )

    @property
    def dense(self):
        return self.activation == "jumprelu"

    @property
    def choosing(self):
        """FLOP a token."""
        return 2 * self.encoder

    @property
    def rest(self):
        """FLOP a token."""
        return 2 * self.encoder + 6 * self.decoder if self.dense else 2 * self.k * self._rows(2, 3)

    @property
    def rows(self):
        """Bytes a token moved by the sparse products."""
        return 0 if self.dense else 4 * (self.k * self._rows(2, 3) + self._rows(0, OWN_ROWS))

    def _rows(self, narrow, wide):
        """Numbers in so many rows of each layer's encoder and of its decoder."""
        return self.d_model * sum(narrow + wide * targets for targets in self.writes)

    @property
    def state(self):
        """Bytes of weights, gradients and Adam's moments."""
        return STATE * self.trained

    @property
    def working(self):
        """Bytes of a step, or of reading a slice of text, whichever is more."""
        n, d, token = len(self.writes), self.d_model, self.tokens
        layer = DENSE_COPIES * 4 * n * token * self.features if self.dense else (4 * token + 6 * d) * self.features
        return max(UNITS * 4 * n * d * token + layer, 5 * 2 * n * d * TOKENS_AT_ONCE)

    @property
    def memory(self):
        return self.state + self.buffer + 2 * self.model + self.working

    def split(self, way, n):
        """The share of one of n processes."""
        if way == "data":
            return replace(self, tokens=-(-self.tokens // n), buffer=self.buffer / n)
        share = {name: getattr(self, name) / n for name in ("encoder", "decoder", "trained", "k")}
        return replace(self, features=self.features // n, **share)

    def seconds(self, device) -> dict[str, float]:
        """Of one step: compute and memory traffic."""
        half, single = (1e12 * COMPUTE * rate for rate in (device.bfloat16, device.float32))
        bandwidth = 1e9 * TRAFFIC * device.bandwidth
        picks = 1e9 * TRAFFIC * device.picks if device.picks and self.activation == "topk" else bandwidth / PICK
        a_token = (self.choosing + self.rest) / single if self.dense else self.choosing / half
        moved = self.rows / bandwidth + len(self.writes) * self.features / picks
        return {
            "compute": self.tokens * (self.reading / half + a_token),
            "memory traffic": self.tokens * moved + UPDATE * self.trained / bandwidth,
        }

    def summary(self):
        rest = "dense" if self.dense else "sparse"
        return pd.Series(
            {
                "parameters": self.trained,
                "GFLOP a token, reading the model": self.reading / 1e9,
                "GFLOP a token, choosing features": self.choosing / 1e9,
                f"GFLOP a token, the {rest} rest": self.rest / 1e9,
                "MB a token, moved by the sparse products": self.rows / 1e6,
                "GB, weights, gradients and Adam": self.state / 1e9,
                "GB, buffer": self.buffer / 1e9,
                "GB, the model in bfloat16": 2 * self.model / 1e9,
                "GB, working space of a step": self.working / 1e9,
            },
            name="plan",
        )


def forward_flops(base) -> float:
    """FLOP a token of a dense decoder without its head, on rows as long as training reads: 2 for each weight of a
    matrix, and for each layer 4 * window * heads * width (scores and their sums; masked ones are computed too)."""
    config, lookups = base.config, {id(m.weight) for m in base.modules() if isinstance(m, torch.nn.Embedding)}
    weights = sum(p.numel() for p in base.parameters() if p.ndim == 2 and id(p) not in lookups)
    window = min(getattr(config, "max_position_embeddings", None) or WINDOW, WINDOW)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * weights + 4 * window * heads * width * config.num_hidden_layers


def _row(step, entry, tokens):
    count, device = _device(entry, step.features, step.k)
    options = []
    for way in ("data", "features") if count > 1 else ("data",):
        if way == "features" and step.features % count:
            continue
        own = step.split(way, count)
        seconds = own.seconds(device)
        told = 4 * (step.trained if way == "data" else step.tokens * step.d_model * len(step.writes))
        seconds["links"] = 2 * (count - 1) / count * told / (device.link * 1e9 * TRAFFIC)
        hours = sum(seconds.values()) * tokens / step.tokens / 3600
        options.append((own.memory / 1e9, hours, way, max(seconds, key=seconds.get)))
    fitting = [option for option in options if option[0] <= FITS * device.memory]
    if not fitting:
        return entry, "does not fit", min(options)[0], float("nan"), "memory"
    size, hours, way, bound = min(fitting, key=lambda option: option[1])
    return entry, way, size, hours, bound


def _device(entry, n_features, k):
    """ "8 x H100" -> 8 and what one of them can do."""
    count, name = re.fullmatch(r"(?:(\d+)\s*x\s*)?(.*)", str(entry).strip(), re.IGNORECASE).groups()
    name = {known.lower(): known for known in KNOWN}.get(name.lower())
    if name is None or count == "0":
        raise ValueError(f"device {entry!r} is not one of {', '.join(KNOWN)}; several are written '8 x H100'")
    return int(count or 1), this_machine(n_features, k) if name == "cpu" else DEVICES[name]


@cache
def this_machine(n_features: int, k: int) -> Device:
    """This machine's processor, measured for about half a second with as many threads as torch uses; its link is taken
    to be 10 Gbit/s of Ethernet."""
    a, big, pre = torch.randn(1024, 1024), torch.randn(2**24), torch.randn(max(1, 2**20 // n_features), n_features)
    single = _rate(2 * 1024**3, lambda: a @ a)
    fast = multiplies_bfloat16(torch.device("cpu"))
    half, pre = (_rate(2 * 1024**3, lambda b=a.bfloat16(): b @ b), pre.bfloat16()) if fast else (single, pre)
    return Device(
        bfloat16=half / 1e12,
        float32=single / 1e12,
        memory=psutil.virtual_memory().total / 1e9,
        bandwidth=_rate(2 * 4 * 2**24, lambda out=torch.empty_like(big): out.copy_(big)) / 1e9,
        link=1.25,
        picks=_rate(pre.numel(), lambda: pre.topk(k)) / 1e9,
    )


def _rate(amount, work, seconds=0.12):
    """Amount a second in the best of some calls: on a busy machine the others were interrupted."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return amount / best


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())
