"""Training a transcoder: stream activations, keep the strongest features, rebuild what the MLPs wrote.

The step is sparse where it can be. With k of F features on, the decoders' share of the work (five sixths
in a dense step) falls by F / k: `embedding_bag` gathers only the rows that are on, forward and back, and
the encoder's gradient touches only those rows too.

Recipe, after EleutherAI's clt-training and Ameisen et al. 2025: inputs and centred outputs scaled to norm
sqrt(d_model) per layer, zero decoders, encoder biases centred on the data, Adam with a warm-up and a linear
end, mean squared error per layer as a share of its variance. Scales are folded into the weights on return.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..checkpoint import load_checkpoint, save_checkpoint
from .activations import ActivationStream, encode_texts
from .module import CrossLayerTranscoder, TranscoderConfig

WARMUP = 50
LAST = 0.2  # the share of the run over which the learning rate falls to zero
MASSIVE = 5.0  # a first position whose MLP outputs are this many times the others' is left out
FORGET = 100  # steps without firing after which a feature counts as dead while training ...
NUDGE = 0.02  # ... and its bias rises by this much a step until it fires
EVERY = 25  # steps between two lines of history


@dataclass
class TrainingRun:
    """What a run returns: the transcoder and its history (step, tokens, loss, L0, dead share)."""

    transcoder: CrossLayerTranscoder
    history: pd.DataFrame

    def _repr_html_(self):
        return self.transcoder._repr_html_() + self.history.tail(5).to_html(index=False)


def train_transcoder(
    model,
    texts,
    n_features: int = 1024,
    activation: str = "topk",
    kind: str = "cross-layer",
    checkpoint: str | Path | None = None,
    *,
    k: int = 8,
    steps: int = 1000,
    batch: int = 1024,
    learning_rate: float = 3e-3,
    layers: list[int] | None = None,
    seed: int = 0,
) -> TrainingRun:
    """Trains a transcoder of `model` on `texts` (a list of strings) and returns it with its history.

    `kind` is "cross-layer" (a feature writes to its own layer and all later ones) or "per-layer"; `activation`
    is "topk" (k features a token and layer) or "threshold" (k on average: all above a running threshold, which
    is fixed at the end). `batch` counts tokens. `layers` picks some layers, all by default. With a `checkpoint`
    folder a killed run goes on where it was and ends with the weights it would have had; interrupting it
    (the stop button) returns the transcoder so far.

    Raises ValueError for an unknown kind or activation, sizes that do not fit, texts without tokens.
    """
    if kind not in ("cross-layer", "per-layer"):
        raise ValueError(f"kind {kind!r} is not one of cross-layer, per-layer")
    if activation not in ("topk", "threshold"):
        raise ValueError(f"activation {activation!r} is not one of topk, threshold")
    layers = list(range(model.n_layers)) if layers is None else sorted(layers)
    if not layers or layers[0] < 0 or layers[-1] >= model.n_layers:
        raise ValueError(f"layers {layers}: expected some of 0 to {model.n_layers - 1}")
    config = TranscoderConfig(
        d_model=model.d_model,
        n_features=n_features,
        layers=layers,
        span=len(layers) if kind == "cross-layer" else 1,
        activation=activation,
        k=k,
        model={"name": model.name, "fingerprint": model.fingerprint},
    )
    stream = ActivationStream(model.hf, encode_texts(model, texts), layers, config.reads, False, seed)
    config.skips_first = stream.skip_first = first_is_massive(stream)
    trainer = Trainer(config, stream, steps, batch, learning_rate, seed)
    trainer.run(checkpoint)
    return TrainingRun(trainer.finished(), pd.DataFrame(trainer.history))


def first_is_massive(stream: ActivationStream, rows: int = 64) -> bool:
    """Whether MLP outputs at position 0 dwarf the others, as a begin-of-text token's do in most large models."""
    some = [row[:16] for row in stream.rows[:rows]]
    _, y = stream.activations(some)
    _, first = stream.activations([row[:1] for row in some])
    return bool((first.norm(dim=-1).mean(1) > MASSIVE * y.norm(dim=-1).median(1).values).any())


class Trainer:
    """One run's state: the transcoder in normalised space, its optimizer, the scales, when each feature last fired."""

    def __init__(self, config, stream, steps, batch, learning_rate, seed):
        torch.manual_seed(seed)
        self.clt = CrossLayerTranscoder(config)
        self.stream, self.steps, self.batch, self.learning_rate = stream, steps, batch, learning_rate
        self.optimizer = torch.optim.Adam(self.clt.parameters(), lr=learning_rate, betas=(0.9, 0.999), fused=True)
        self.last_fired = torch.zeros(len(config.layers), config.n_features)
        self.history = []
        self._normalise(*stream.activations(next(stream.blocks())))

    def _normalise(self, x, y):
        """Scales and centres from the first block; decoders are zero, so biases alone start at the mean output."""
        root = self.clt.config.d_model**0.5
        self.y_mean = y.mean(1, keepdim=True)
        self.x_scale = root / x.norm(dim=-1).mean(1)[:, None, None]
        self.y_scale = root / (y - self.y_mean).pow(2).sum(-1).mean(1).sqrt()[:, None, None]
        x = x[:, :4096] * self.x_scale
        self.clt.b_enc.data = -torch.einsum("lfd,ld->lf", self.clt.W_enc.data, x.mean(1))
        if self.clt.config.activation == "threshold":
            self.clt.threshold[:] = self._quantile(self.clt.preactivations(x))[:, None]

    def run(self, checkpoint):
        extra = {"last_fired": self.last_fired}
        start, history = load_checkpoint(checkpoint, self.clt, self.optimizer, extra) if checkpoint else (0, None)
        self.history = history or []
        bar = tqdm(total=self.steps, initial=start, desc="transcoder", mininterval=1)
        try:
            for step, (x, y) in self._batches(start):
                self._step(step, x, y, bar)
                if checkpoint and ((step + 1) % 100 == 0 or step + 1 == self.steps):
                    save_checkpoint(checkpoint, self.clt, self.optimizer, step + 1, extra, self.history)
        except KeyboardInterrupt:
            bar.write("interrupted: here is the transcoder so far")
        bar.close()

    def _batches(self, start):
        """(step, batch) from `start` on; blocks before it are passed over without running the model."""
        step = 0
        for number, block in enumerate(self.stream.blocks()):
            n = self.stream.count(block) // self.batch
            if step + n > start:
                x, y = self.stream.activations(block, shuffle=number)
                x, y = x * self.x_scale, (y - self.y_mean) * self.y_scale
                for i in range(max(0, start - step), n):
                    if step + i >= self.steps:
                        return
                    part = slice(i * self.batch, (i + 1) * self.batch)
                    yield step + i, (x[:, part], y[:, part])
            step += n
            if step >= self.steps:
                return

    def _step(self, step, x, y, bar):
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * min(1, (step + 1) / WARMUP, (1 - step / self.steps) / LAST)
        rebuilt, active = self._forward(x, step)
        loss = (rebuilt - y).pow(2).sum(-1).mean(1).sum() / y.shape[-1]  # sum over layers of the unexplained share
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.clt.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if step < self.steps * (1 - LAST):
            self._wake(step)
        if (step + 1) % EVERY == 0 or step + 1 == self.steps:
            self._log(step, loss.item() / len(y), active / (len(y) * self.batch), bar)

    @torch.no_grad()
    def _wake(self, step):
        """Dead features get no gradient, so nothing else would wake them (the paper has a loss for this)."""
        self.clt.b_enc += NUDGE * (self.last_fired < step - FORGET)

    def _log(self, step, loss, l0, bar):
        dead = (self.last_fired < step - FORGET).float().mean().item()
        line = {"step": step + 1, "tokens": (step + 1) * self.batch, "loss": loss, "L0": l0, "dead": dead}
        self.history.append(line)
        bar.n = step + 1
        bar.set_postfix(loss=f"{loss:.4f}", L0=f"{l0:.1f}", dead=f"{dead:.0%}")

    def _forward(self, x, step):
        """x [layer, token, d_model] -> rebuilt outputs of that shape, and how many features were on in all."""
        clt, total = self.clt, 0
        outputs = [[clt.b_dec[i].expand(x.shape[1], -1)] for i in range(len(x))]
        for source in range(len(x)):
            tokens, features = self._select(source, x[source])
            total += len(tokens)
            self.last_fired[source, features] = step
            values = _ActiveFeatures.apply(x[source], clt.W_enc[source], clt.b_enc[source], tokens, features)
            wide = decode_active(values, tokens, features, clt.W_dec[source].flatten(1), x.shape[1])
            for j, part in enumerate(wide.split(x.shape[2], dim=1)):
                outputs[source + j].append(part)
        return torch.stack([torch.stack(parts).sum(0) for parts in outputs]), total

    @torch.no_grad()
    def _select(self, source, x):
        """(token, feature) of everything on, by token. Thresholds follow the batch's quantile as they train."""
        clt = self.clt
        pre = torch.addmm(clt.b_enc[source], x, clt.W_enc[source].T)
        if clt.config.activation == "topk":
            top = pre.topk(clt.config.k, dim=-1)
            on = top.values > 0
            return on.nonzero()[:, 0], top.indices[on]
        clt.threshold[source] += 0.1 * (self._quantile(pre[None])[0] - clt.threshold[source])
        return (pre > clt.threshold[source]).nonzero(as_tuple=True)

    def _quantile(self, pre):
        """Per layer, the value that k features a token exceed on average, at least 0. pre [layer, token, feature]."""
        some = pre[:, :128].flatten(1)
        rank = self.clt.config.k * min(128, pre.shape[1])
        return some.topk(rank, dim=1).values[:, -1].clamp(min=0)

    def finished(self) -> CrossLayerTranscoder:
        """The transcoder with the scales folded in: it reads and writes the model's own units."""
        out = CrossLayerTranscoder(self.clt.config)
        out.load_state_dict(self.clt.state_dict())
        out.W_enc.data *= self.x_scale
        for source, weights in enumerate(out.W_dec):
            reach = slice(source, source + out.n_targets(source))
            weights.data /= self.y_scale[reach, 0]
        out.b_dec.data = out.b_dec.data / self.y_scale[:, 0] + self.y_mean[:, 0]
        return out.eval().requires_grad_(False)


class _ActiveFeatures(torch.autograd.Function):
    """Pre-activations of the chosen (token, feature) pairs; the gradient touches only the chosen encoder rows."""

    @staticmethod
    def forward(ctx, x, weight, bias, tokens, features):
        ctx.save_for_backward(x, tokens, features)
        ctx.shape = weight.shape
        return (x[tokens] * weight[features]).sum(-1) + bias[features]

    @staticmethod
    def backward(ctx, grad):
        x, tokens, features = ctx.saved_tensors
        weight = torch.zeros(ctx.shape).index_add_(0, features, grad[:, None] * x[tokens])
        bias = torch.zeros(ctx.shape[0]).index_add_(0, features, grad)
        return None, weight, bias, None, None


def decode_active(values, tokens, features, rows, n_tokens):
    """sum over each token's active features of value * row: [n_tokens, width]; `tokens` is sorted."""
    offsets = torch.searchsorted(tokens, torch.arange(n_tokens))
    return F.embedding_bag(features, rows, offsets, mode="sum", per_sample_weights=values)
