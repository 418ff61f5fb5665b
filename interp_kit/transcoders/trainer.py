"""One training run's arithmetic: steps, scales, thresholds, what has died; resumable to the last bit.

The step is sparse where it can be (`sparse.py`). Which features are on is decided by a product in bfloat16 where the
processor multiplies it natively, four times as fast; the values of the few that are on are computed in float32. The
loss is quadratic, so its gradient by the reconstruction is known, and there is no graph to record: a forward pass
returns what it rebuilt and a function that takes that gradient to the weights.
"""

import math
import time
from dataclasses import asdict, replace
from itertools import chain, repeat

import torch

from ..checkpoint import load_checkpoint, save_checkpoint
from ..cores import pool_of
from . import jumprelu
from .activations import ActivationStream, Batch
from .module import CrossLayerTranscoder, TranscoderConfig
from .parallel import Processes
from .progress import Progress
from .sparse import ActiveFeatures, features_where, top_features

WARMUP = 50
LAST = 0.2  # the share of the run over which the learning rate falls to zero
CLIP = 1.0  # the largest norm of the gradient
FORGET = 100  # steps without firing after which a feature counts as dead while training ...
NUDGE = 0.02  # ... and its bias rises by this much a step until it fires
SAMPLE = 64  # tokens of a batch that move the running threshold ...
FOLLOW = 0.3  # ... by this share of the way
MOST = 8  # times k: the most features a layer can claim of the others' share
EVERY = 25  # steps between two lines of history
SAVE_SECONDS = 60  # between two checkpoints


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them it is slower than float32."""
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return bool({"avx512_bf16", "amx_bf16"} & {name for name, has in torch.cpu.get_capabilities().items() if has})
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


class Trainer:
    """The transcoder in normalised space, its optimizer, the scales, and when each feature last fired."""

    def __init__(
        self,
        config: TranscoderConfig,
        stream: ActivationStream,
        processes: Processes,
        *,
        jump: bool,
        sparsity: float,
        steps: int,
        learning_rate: float,
        seed: int,
    ):
        self.config, self.stream, self.processes = config, stream, processes
        self.jump, self.sparsity = jump, sparsity
        self.steps, self.learning_rate, self.seed = steps, learning_rate, seed
        self.fast = multiplies_bfloat16(processes.device)
        # Products in bfloat16 gain from a core a layer; those in float32 are a library's, with threads of its own.
        own_cores = self.fast and processes.device.type == "cpu" and not processes.by_features
        workers = min(torch.get_num_threads(), len(config.layers)) if own_cores else 1
        self.each = pool_of(workers).map if workers > 1 else map
        self.clt = self._fresh().to(processes.device)
        self.optimizer = torch.optim.Adam(self._trained(), lr=learning_rate, betas=(0.9, 0.999), fused=True)
        n, d = len(config.layers), config.d_model
        self.scales = {"x": torch.ones(n, 1, 1), "y": torch.ones(n, 1, 1), "mean": torch.zeros(n, 1, d)}
        self.scales = {name: scale.to(processes.device) for name, scale in self.scales.items()}
        self.last_fired = torch.zeros(n, self.clt.n_features, device=processes.device)
        self.history = []

    def _fresh(self):
        """Encoders as those of a whole transcoder, whatever this process's share of it; decoders zero."""
        own = self.processes.features(self.config.n_features)
        clt = CrossLayerTranscoder(replace(self.config, n_features=own.stop - own.start, k=1))
        clt.config.k = self.config.k
        bound = self.config.d_model**-0.5
        generator = torch.Generator().manual_seed(self.seed)
        for weights in clt.W_enc.data:
            whole = torch.empty(self.config.n_features, self.config.d_model)
            weights.copy_(whole.uniform_(-bound, bound, generator=generator)[own])
        return clt.requires_grad_(False)

    def _trained(self):
        """Every weight; with JumpReLU the thresholds too."""
        return [*self.clt.parameters(), *([self.clt.threshold] if self.jump else [])]

    # ---------------------------------------------------------------- a run

    def run(self, checkpoint=None, shown: bool = True) -> None:
        folder = self._folder(checkpoint)
        start = self._resume(folder) if folder else 0
        batches = self.stream.batches(start) if start < self.steps else iter(())
        if start == 0:
            batches = self._normalised(batches)
        progress = Progress(self.steps, start, shown and self.processes.rank == 0)
        done, saved, message = start, time.monotonic(), "the text ended before the last step: give more, or fewer steps"
        try:
            for batch in batches:
                self.step(batch)
                done = batch.step + 1
                if done % EVERY == 0 or done == self.steps:
                    progress.update(self.history)
                if folder and (done == self.steps or time.monotonic() - saved > SAVE_SECONDS):
                    self._save(folder, done)
                    saved = time.monotonic()
                if done == self.steps:
                    break
        except KeyboardInterrupt:
            message = "interrupted: here is the transcoder so far"
        progress.close(self.history, message if done < self.steps else None)

    def _folder(self, checkpoint):
        """Each process keeps its own share of the features; otherwise all hold the same, and the first one saves."""
        if checkpoint is None or not self.processes.by_features:
            return checkpoint
        return f"{checkpoint}/{self.processes.rank}-of-{self.processes.size}"

    def _state(self):
        return {"last_fired": self.last_fired, **self.scales}

    def _settings(self):
        """What a checkpoint must agree with to be gone on from."""
        settings = {**asdict(self.config), "batch": self.stream.batch, "seed": self.seed, "steps": self.steps}
        settings |= {"learning_rate": self.learning_rate, "jumprelu": self.jump, "sparsity": self.sparsity}
        return settings | {"buffer": self.stream.size}

    def _save(self, folder, step):
        if self.processes.rank == 0 or self.processes.by_features:
            notes = {"history": self.history, "settings": self._settings()}
            save_checkpoint(folder, self.clt, self.optimizer, step, self._state(), notes)

    def _resume(self, folder):
        step, notes = load_checkpoint(folder, self.clt, self.optimizer, self._state())
        if notes is None:
            return step
        self.history = notes["history"]
        ours, theirs = self._settings(), notes["settings"]
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        if differing:
            was = ", ".join(f"{name} {theirs.get(name)!r}, now {ours[name]!r}" for name in differing)
            raise ValueError(f"the checkpoint in {folder} is of another run ({was}): name another folder, or delete it")
        return step

    def _normalised(self, batches):
        """The same batches, of which the first has been seen."""
        first = next(batches, None)
        if first is None:
            raise ValueError(f"the text has fewer tokens than a batch of {self.stream.batch}: give more of it")
        self.normalise(first)
        return chain([first], batches)

    @torch.no_grad()
    def normalise(self, some: Batch) -> None:
        """Scales and centres from the first buffer, in which the batch `some` lies; decoders are zero, so biases alone
        start at the mean output."""
        clt = self.clt
        _, x, y, _ = self.stream.held
        n = torch.tensor(float(x.shape[1]), device=x.device)
        sums = [n]
        for i in range(len(x)):  # a layer at a time: in float32 the whole buffer would take twice its memory
            a, b = x[i].float(), y[i].float()
            sums.append(torch.cat([a.norm(dim=-1).sum()[None], b.pow(2).sum()[None], b.sum(0)]))
        self.processes.sum_over_tokens(*sums)
        norms, squares, total = (torch.stack(sums[1:]) / n).split([1, 1, self.config.d_model], dim=1)
        root = self.config.d_model**0.5
        self.scales["x"][:] = root / norms[:, :, None]
        self.scales["y"][:] = root / (squares - total.pow(2).sum(1, keepdim=True)).sqrt()[:, :, None]
        self.scales["mean"][:] = total[:, None]
        x = some.x * self.scales["x"]
        mean = x.sum(1) / self.stream.batch
        self.processes.sum_over_tokens(mean)
        clt.b_enc[:] = -torch.einsum("lfd,ld->lf", clt.W_enc, mean)
        if self.jump:
            clt.threshold[:] = jumprelu.START
        elif clt.config.activation == "threshold":
            clt.threshold[:] = self._usual([self._highest(self._preactivations(i, x[i]), some) for i in range(len(x))])

    # ---------------------------------------------------------------- a step

    def step(self, batch: Batch) -> None:
        rate = min(1, (batch.step + 1) / WARMUP, (1 - batch.step / self.steps) / LAST)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate
        x = batch.x * self.scales["x"]
        y = _by_token((batch.y - self.scales["mean"]) * self.scales["y"])
        rebuilt, on, backward = (self._dense if self.jump else self._sparse)(x, batch)
        self.processes.sum_over_features(rebuilt)
        error = rebuilt + self.clt.b_dec.flatten() - y
        by = 1 / (self.stream.batch * self.config.d_model)  # sum over layers of the share left unexplained
        penalty = backward(error * (2 * by))
        self.clt.b_dec.grad = error.sum(0).mul(2 * by).view_as(self.clt.b_dec)
        self.processes.sum_over_tokens(*(weights.grad for weights in self._trained()))
        self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.jump:
            self.clt.threshold.clamp_(min=0)
        if batch.step < self.steps * (1 - LAST):
            self._wake(batch.step)
        if (batch.step + 1) % EVERY == 0 or batch.step + 1 == self.steps:
            self._log(batch.step, error.pow(2).sum() * by / len(x), penalty, on / (len(x) * self.stream.batch))

    def _sparse(self, x, batch):
        """x [layer, token, d_model] -> what features rebuild [token, layer * d_model], how many were on in all, and
        the way back."""
        clt, d = self.clt, self.config.d_model
        layers, reach = range(len(x)), [slice(i * d, (i + clt.n_targets(i)) * d) for i in range(len(x))]

        def forward(i):
            pre = self._preactivations(i, x[i])
            on, highest = self._select(i, pre), self._highest(pre, batch)
            self.last_fired[i, on.features] = batch.step
            values = (on.dots(x[i], clt.W_enc[i]) + clt.b_enc[i, on.features]).clamp_(min=0)
            return on, values, on.decode(values, clt.W_dec[i].flatten(1)), highest

        def back(i, gradient):
            (on, values), written = active[i], gradient[:, reach[i]].contiguous()
            slope = on.dots(written, clt.W_dec[i].flatten(1))
            clt.W_dec[i].grad = on.gather(values, written).view_as(clt.W_dec[i])
            clt.W_enc.grad[i] = on.gather(slope, x[i])
            clt.b_enc.grad[i] = torch.zeros_like(clt.b_enc[i]).index_add_(0, on.features, slope)

        def backward(gradient):
            clt.W_enc.grad, clt.b_enc.grad = torch.empty_like(clt.W_enc), torch.empty_like(clt.b_enc)
            list(self.each(back, layers, repeat(gradient)))
            return 0.0

        rebuilt, active, highest = x.new_zeros(x.shape[1], len(x) * d), [], []
        for i, (on, values, written, best) in enumerate(self.each(forward, layers)):  # added up in the order of layers
            rebuilt[:, reach[i]] += written
            active.append((on, values))
            highest.append(best)
        if self.config.activation == "threshold":
            clt.threshold += FOLLOW * (self._usual(highest) - clt.threshold)
        return rebuilt, sum(len(on) for on, _ in active), backward

    def _dense(self, x, batch):
        """The same with JumpReLU, by autograd: near the start half of the features are on."""
        clt = self.clt
        leaves = [weights for weights in self._trained() if weights is not clt.b_dec]
        for weights in leaves:
            weights.requires_grad_(True)
        values = jumprelu.JumpReLU.apply(clt.preactivations(x), clt.threshold)
        rebuilt = _by_token(clt.decode(values)) - clt.b_dec.flatten()
        weight = self.sparsity * (batch.step + 1) / self.steps / self.config.d_model
        share = x.shape[1] / self.stream.batch
        penalty = weight * share * jumprelu.penalty(values, clt.W_dec)

        def backward(gradient):
            torch.autograd.backward([rebuilt, penalty], [gradient, None])
            for weights in leaves:
                weights.requires_grad_(False)
            return penalty.detach()

        fired = values.detach() > 0
        self.last_fired[fired.any(1)] = batch.step
        return rebuilt.detach().clone(), fired.sum(), backward

    def _preactivations(self, i, x):
        """x [token, d_model] -> [token, feature], just exact enough to see which are on."""
        weights, bias = self.clt.W_enc[i], self.clt.b_enc[i]
        if self.fast:
            weights, bias, x = weights.bfloat16(), bias.bfloat16(), x.bfloat16()
        return torch.addmm(bias, x, weights.T)

    def _select(self, i, pre) -> ActiveFeatures:
        """Of layer i's pre-activations [token, feature]."""
        if self.config.activation == "threshold":
            return features_where(pre > self.clt.threshold[i])
        if not self.processes.by_features:
            return top_features(pre, self.config.k)
        best = self.processes.all_values(_largest(pre, self.config.k))
        least = best.topk(self.config.k).values[:, -1:]  # where two tie for the last place, both are on
        return features_where((pre >= least) & (pre > 0))

    def _highest(self, pre, batch):
        """Of a sample of the batch, a layer's largest pre-activations, as many as it could claim."""
        if self.config.activation == "threshold":
            share = min(MOST, len(self.config.layers)) * self.config.k
            return _largest(pre[batch.places < SAMPLE].flatten(), share * min(SAMPLE, self.stream.batch))

    def _usual(self, highest):
        """The threshold that k features a token and layer exceed on average, at least 0. It is the same in all layers,
        so that features compete across them and a layer that is hard to rebuild has more of them on."""
        best = self.processes.all_values(torch.cat(highest))
        rank = self.config.k * len(highest) * min(SAMPLE, self.stream.batch)
        return best.topk(rank).values[-1].float().clamp(min=0)

    def _clip(self):
        """Scales the gradient down to the norm `CLIP`, where it is longer."""
        shared, own = self.clt.b_dec.grad, [w.grad for w in self._trained() if w is not self.clt.b_dec]
        square = torch.stack(torch._foreach_norm(own)).pow(2).sum()
        norm = math.sqrt(self.processes.sum_over_features(square) + shared.norm().pow(2))
        if norm > CLIP:
            torch._foreach_mul_([*own, shared], CLIP / norm)

    def _wake(self, step):
        """Dead features get no gradient, so nothing else would wake them (the paper has a loss for this)."""
        self.processes.latest(self.last_fired)
        self.clt.b_enc += NUDGE * (self.last_fired < step - FORGET)

    def _log(self, step, unexplained, penalty, on):
        """A line of history; every number is that of the whole batch and the whole transcoder."""
        processes = self.processes
        processes.latest(self.last_fired)
        dead = (self.last_fired < step - FORGET).float().mean() / (processes.size if processes.by_features else 1)
        penalty, on = (torch.as_tensor(number, dtype=torch.float32, device=dead.device) for number in (penalty, on))
        for share in (penalty, on, dead):
            processes.sum_over_features(share)
        processes.sum_over_tokens(penalty, on, unexplained)
        line = {"step": step + 1, "tokens": (step + 1) * self.stream.batch}
        line |= {"loss": unexplained + penalty / len(self.config.layers), "NMSE": unexplained, "L0": on, "dead": dead}
        self.history.append({name: float(n) if torch.is_tensor(n) else n for name, n in line.items()})

    # ---------------------------------------------------------------- the result

    @torch.no_grad()
    def finished(self) -> CrossLayerTranscoder:
        """The transcoder with the scales folded in: it reads and writes the model's own units."""
        x, y, mean = self.scales["x"], self.scales["y"], self.scales["mean"]
        whole, own = CrossLayerTranscoder(self.config), self.clt
        whole.requires_grad_(False)
        whole.W_enc.copy_(self.processes.whole(own.W_enc * x, 1))
        whole.b_enc.copy_(self.processes.whole(own.b_enc, 1))
        whole.threshold.copy_(self.processes.whole(own.threshold, 1))
        for i, weights in enumerate(own.W_dec):
            reach = slice(i, i + own.n_targets(i))
            whole.W_dec[i].copy_(self.processes.whole(weights / y[reach, 0], 0))
        whole.b_dec.copy_(own.b_dec / y[:, 0] + mean[:, 0])
        return whole.eval()


def _by_token(t):
    """[layer, token, d_model] -> [token, layer * d_model]."""
    return t.transpose(0, 1).flatten(1)


def _largest(values, n):
    """The n largest of the last dimension, filled up with -inf."""
    best = values.topk(min(n, values.shape[-1])).values
    return torch.nn.functional.pad(best, (0, n - best.shape[-1]), value=-torch.inf)
