"""One training run's arithmetic: steps, scales, thresholds, what has died; resumable to the last bit.

The step is sparse where it can be (`sparse.py`). Where the processor multiplies bfloat16 natively, a product in it,
four times as fast, decides which features are on, and rows that are added up are read in it, half as many bytes; the
values of the few features that are on, and Adam, are in float32. The loss is quadratic, so its gradient by the
reconstruction is known, and there is no graph to record: a forward pass returns what it rebuilt and a function that
takes the errors to the weights.
"""

import math
import time
from dataclasses import asdict
from itertools import chain, repeat

import torch

from ...hardware import multiplies_bfloat16, one_core_pool
from ...storage.checkpoint import load_checkpoint, save_checkpoint
from ..module import CrossLayerTranscoder, TranscoderConfig
from ..sparse import ActiveFeatures, features_where, joined, top_features
from . import jumprelu
from .parallel import Processes
from .progress import Progress
from .stream import ActivationStream, Batch
from .weights import Weights

WARMUP = 20
LAST = 0.2  # the share of the run over which the learning rate falls to zero
CLIP = 1.0  # the largest norm of the gradient
FORGET = 100  # steps without firing after which a feature counts as dead while training ...
NUDGE = 0.02  # ... and its bias rises by this much a step until it fires
SAMPLE = 64  # tokens of a batch that move the running threshold ...
FOLLOW = 0.3  # ... by this share of the way
MOST = 8  # times k: the most features a layer can claim of the others' share
EVERY = 25  # steps between two lines of history
SAVE_SECONDS = 60  # between two checkpoints


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
        self.each = one_core_pool(workers).map if workers > 1 else map
        self.weights = Weights(config, processes, seed).to(processes.device)
        self.optimizer = torch.optim.Adam(self._trained(), lr=learning_rate, betas=(0.9, 0.99), fused=True)
        n, d = len(config.layers), config.d_model
        self.scales = {"x": torch.ones(n, 1, 1), "y": torch.ones(n, 1, 1), "mean": torch.zeros(n, 1, d)}
        self.scales = {name: scale.to(processes.device) for name, scale in self.scales.items()}
        self.buffers = {}  # large, so kept from step to step: memory that is new costs more than what is written to it
        self.last_fired = torch.zeros(n, self.weights.n_features, device=processes.device)
        self.history = []

    def _trained(self):
        """Every weight; with JumpReLU the thresholds too."""
        return [*self.weights.parameters(), *([self.weights.threshold] if self.jump else [])]

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
            save_checkpoint(folder, self.weights, self.optimizer, step, self._state(), notes)

    def _resume(self, folder):
        step, notes = load_checkpoint(folder, self.weights, self.optimizer, self._state())
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
        weights = self.weights
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
        for i, encoder in enumerate(weights.W_enc):
            weights.b_enc[i] = -(encoder @ mean[i])
        if self.jump:
            weights.threshold[:] = jumprelu.START
        elif self.config.activation == "jumprelu":
            weights.threshold[:] = self._usual(
                [self._highest(self._preactivations(*each), some) for each in enumerate(x)]
            )

    # ---------------------------------------------------------------- a step

    def step(self, batch: Batch) -> None:
        rate = min(1, (batch.step + 1) / WARMUP, (1 - batch.step / self.steps) / LAST)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate
        written, on, backward = (self._dense if self.jump else self._sparse)(batch)
        self.processes.sum_over_features(*written)
        errors = list(self.each(self._error, range(len(written)), written, batch.y))
        by = 1 / (self.stream.batch * self.config.d_model)  # sum over layers of the share left unexplained
        penalty = backward(errors, 2 * by)
        self.weights.b_dec.grad = torch.stack([error.sum(0) for error in errors]).mul(2 * by)
        self.processes.sum_over_tokens(*(weights.grad for weights in self._trained()))
        self._clip()
        self.optimizer.step()
        if self.jump:
            self.weights.threshold.clamp_(min=0)
        if batch.step < self.steps * (1 - LAST):
            self._wake(batch.step)
        if (batch.step + 1) % EVERY == 0 or batch.step + 1 == self.steps:
            unexplained = sum(error.pow(2).sum() for error in errors) * by / len(errors)
            self._log(batch.step, unexplained, penalty, on / (len(errors) * self.stream.batch))

    def _error(self, i, written, y):
        """What features wrote to layer i [token, d_model], in place: what is too much of it."""
        wanted = (y - self.scales["mean"][i]).mul_(self.scales["y"][i])
        return written.add_(self.weights.b_dec[i]).sub_(wanted)

    def _sparse(self, batch):
        """What features write to each layer [token, d_model], how many were on in all, and the way back to the weights
        from the errors [token, d_model] of the layers, of which the gradient is a multiple."""
        weights, layers = self.weights, range(len(batch.x))

        def encode(i):
            x = batch.x[i] * self.scales["x"][i]
            pre = self._preactivations(i, x)
            on, highest = self._select(i, pre), self._highest(pre, batch)
            features = on.features
            self.last_fired[i, features] = batch.step
            values = (on.dots(x, weights.W_enc[i]) + weights.b_enc[i, features]).clamp_(min=0)
            return x, on, values, highest

        def decode(i):
            sources = weights.sources(i)
            on, here = joined([active[s] for s in sources]), torch.cat([values[s] for s in sources])
            rows = self._narrow(weights.W_dec[i].flatten(0, 1), i)
            return on, here, on.decode(here.to(rows.dtype), rows).float()

        def back(i, error, multiple):
            on, here = writers[i]
            slopes = on.dots(error, weights.W_dec[i].flatten(0, 1)).mul_(multiple)
            error = self._narrow(error)
            _set_gradient(weights.W_dec[i], on.gather(here.mul_(multiple).to(error.dtype), error))
            return slopes.split([len(active[source]) for source in weights.sources(i)])

        def back_to_encoder(i):
            slope = sum(slopes[target][i - weights.sources(target).start] for target in weights.targets(i))
            _set_gradient(weights.W_enc[i], active[i].gather(slope, x[i]))
            weights.b_enc.grad[i] = torch.zeros_like(weights.b_enc[i]).index_add_(0, active[i].features, slope)

        def backward(errors, multiple):
            nonlocal slopes
            weights.b_enc.grad = torch.empty_like(weights.b_enc)
            slopes = list(self.each(back, layers, errors, repeat(multiple)))
            list(self.each(back_to_encoder, layers))
            return 0.0

        slopes = None
        x, active, values, highest = zip(*self.each(encode, layers), strict=True)
        *writers, written = zip(*self.each(decode, layers), strict=True)
        writers = list(zip(*writers, strict=True))
        if self.config.activation == "jumprelu":
            weights.threshold += FOLLOW * (self._usual(highest) - weights.threshold)
        return written, sum(map(len, active)), backward

    def _dense(self, batch):
        """The same with JumpReLU, by autograd: near the start half of the features are on."""
        weights, layers = self.weights, range(len(batch.x))
        leaves = [leaf for leaf in self._trained() if leaf is not weights.b_dec]
        for leaf in leaves:
            leaf.requires_grad_(True).grad = None
        x = batch.x * self.scales["x"]
        pre = torch.stack([torch.addmm(weights.b_enc[i], x[i], weights.W_enc[i].T) for i in layers])
        values = jumprelu.JumpReLU.apply(pre, weights.threshold)
        written = [sum(values[s] @ rows for s, rows in zip(weights.sources(i), weights.W_dec[i])) for i in layers]
        weight = self.sparsity * (batch.step + 1) / self.steps / self.config.d_model
        share = x.shape[1] / self.stream.batch
        penalty = weight * share * jumprelu.penalty(values, map(weights.decoders, layers))

        def backward(errors, multiple):
            torch.autograd.backward([*written, penalty], [*(error * multiple for error in errors), None])
            for leaf in leaves:
                leaf.requires_grad_(False)
            return penalty.detach()

        fired = values.detach() > 0
        self.last_fired[fired.any(1)] = batch.step
        return [one.detach().clone() for one in written], fired.sum(), backward

    def _narrow(self, rows, name=None):
        """In bfloat16 where that is native; what has a name keeps its place in memory."""
        if not self.fast:
            return rows
        if name is None:
            return rows.bfloat16()
        if name not in self.buffers:
            self.buffers[name] = torch.empty_like(rows, dtype=torch.bfloat16)
        return self.buffers[name].copy_(rows)

    def _preactivations(self, i, x):
        """x [token, d_model] -> [token, feature], just exact enough to see which are on."""
        weights, bias, x = map(self._narrow, (self.weights.W_enc[i], self.weights.b_enc[i], x))
        return torch.addmm(bias, x, weights.T)

    def _select(self, i, pre) -> ActiveFeatures:
        """Of layer i's pre-activations [token, feature]."""
        if self.config.activation == "jumprelu":
            return features_where(pre > self.weights.threshold[i])
        if not self.processes.by_features:
            return top_features(pre, self.config.k)
        best = self.processes.all_values(_largest(pre, self.config.k))
        least = best.topk(self.config.k).values[:, -1:]  # where two tie for the last place, both are on
        return features_where((pre >= least) & (pre > 0))

    def _highest(self, pre, batch):
        """Of a sample of the batch, a layer's largest pre-activations, as many as it could claim."""
        if self.config.activation == "jumprelu":
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
        b_dec = self.weights.b_dec
        shared, own = b_dec.grad, [weights.grad for weights in self._trained() if weights is not b_dec]
        square = torch.stack(torch._foreach_norm(own)).pow(2).sum()
        self.processes.sum_over_features(square)
        norm = math.sqrt(square + shared.norm().pow(2))
        if norm > CLIP:
            torch._foreach_mul_([*own, shared], CLIP / norm)

    def _wake(self, step):
        """Dead features get no gradient, so nothing else would wake them (the paper has a loss for this)."""
        self.processes.latest(self.last_fired)
        self.weights.b_enc += NUDGE * (self.last_fired < step - FORGET)

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

    def finished(self) -> CrossLayerTranscoder:
        """The transcoder with the scales folded in: it reads and writes the model's own units."""
        return self.weights.folded(**self.scales)


def _set_gradient(weights, gradient):
    if weights.grad is None:
        weights.grad = torch.empty_like(weights)
    weights.grad.copy_(gradient.view_as(weights))


def _largest(values, n):
    """The n largest of the last dimension, filled up with -inf."""
    best = values.topk(min(n, values.shape[-1])).values
    return torch.nn.functional.pad(best, (0, n - best.shape[-1]), value=-torch.inf)
