"""One training run: steps, scales, what has died, the history; resumable to the last bit."""

import math
import time
from dataclasses import asdict
from functools import reduce
from pathlib import Path

import torch
from typing_extensions import TypedDict

from ...formats.validation import Number, WholeNumber, check_type, need
from ...hardware import multiplies_bfloat16
from ...storage.checkpoint import load_checkpoint, save_checkpoint
from ..folder import in_todays_words
from ..foreign import Json
from ..module import CrossLayerTranscoder, TranscoderConfig
from .config import TrainingConfig
from .fingerprint import text_fingerprint
from .jumprelu import INITIAL_THRESHOLD, DensePass
from .parallel import LayerWorkers, Processes
from .progress import Progress
from .selection import Selection
from .sparse_pass import SparsePass
from .stream import ActivationStream, Batch
from .weights import Scales, Weights, gradient

ADAM_BETAS = (0.9, 0.99)
WARMUP_STEPS = 20
DECAY_FRACTION = 0.2  # of the run, over which the learning rate falls to zero
MAX_GRAD_NORM = 1.0
DEAD_AFTER_STEPS = 100  # without firing; while it trains ...
REVIVE_BIAS_STEP = 0.02  # ... a dead feature's bias rises by this much a step until it fires
LOG_EVERY = 25  # steps
SAVE_SECONDS = 60  # between two checkpoints
SAME_TEXT = 1e-3  # of a scale: what another number of threads may change of it; another text changes more


class HistoryLine(TypedDict):
    """Of the training batch after `step` steps; `TrainingRun` says what the numbers are."""

    step: WholeNumber
    tokens: WholeNumber
    loss: Number
    NMSE: Number
    L0: Number
    dead: Number


class Notes(TypedDict):
    """What a checkpoint says beside its tensors."""

    history: list[HistoryLine]
    settings: dict[str, object]


class Trainer:
    """The transcoder in normalised space, its optimizer, the scales, and when each feature last fired."""

    def __init__(
        self, config: TrainingConfig, transcoder: TranscoderConfig, stream: ActivationStream, processes: Processes
    ):
        self.config, self.transcoder, self.stream, self.processes = config, transcoder, stream, processes
        n, d, device = len(transcoder.layers), transcoder.d_model, processes.device
        self.share = 1 / (config.batch * d)  # of a squared error in the loss: scaled outputs have norm sqrt(d_model)
        self.weights = Weights(transcoder, processes, config.seed).to(device)
        self.scales = Scales(n, d, device)
        self.last_fired = torch.zeros(n, self.weights.n_features, device=device)  # the step
        self.state = {"last_fired": self.last_fired, **vars(self.scales)}  # beside weights and optimizer; kept in place
        self.history: list[dict[str, float]] = []
        self.texts = ""  # their fingerprint, where there is a checkpoint

        in_bfloat16 = multiplies_bfloat16(device)
        self.selection = Selection(config, self.weights, processes, torch.bfloat16 if in_bfloat16 else torch.float32)
        # Products in bfloat16 gain from a core a layer; those in float32 are a library's, with threads of its own.
        own_cores = in_bfloat16 and device.type == "cpu" and not processes.by_features
        self.each_layer = LayerWorkers(n, min(torch.get_num_threads(), n) if own_cores else 1)

        self.dense = config.activation == "jumprelu"
        self.trained = [*self.weights.parameters(), *([self.weights.threshold] if self.dense else [])]
        for weights in self.trained:  # gradients keep their place in memory, but for those that autograd makes
            weights.grad = torch.zeros_like(weights)
            weights.requires_grad_(self.dense and weights is not self.weights.b_dec)
        self.optimizer = torch.optim.Adam(self.trained, lr=config.learning_rate, betas=ADAM_BETAS, fused=True)

    # ---------------------------------------------------------------- a run

    def run(self, checkpoint: str | Path | None = None, shown: bool = True) -> None:
        """Trains to the last step, the end of the text, or the stop button, from where the checkpoint is, if any."""
        if checkpoint and self.processes.by_features:  # each process keeps its own share; else all hold the same
            checkpoint = f"{checkpoint}/{self.processes.rank}-of-{self.processes.size}"
        start = self._resume(checkpoint) if checkpoint else None
        if start is None:
            start = 0
            self.normalise(*self.stream.first_block())
        batches = self.stream.batches(start) if start < self.config.steps else ()
        progress = Progress(self.config.steps, start, shown and self.processes.rank == 0)
        done, saved, message = start, time.monotonic(), "the text ended before the last step: give more, or fewer steps"
        try:
            for batch in batches:
                self.step(batch)
                done = batch.step + 1
                if self._is_logged(done):
                    progress.update(self.history)
                if checkpoint and (done == self.config.steps or time.monotonic() - saved > SAVE_SECONDS):
                    self._save(checkpoint, done)
                    saved = time.monotonic()
                if done == self.config.steps:
                    break
        except KeyboardInterrupt:
            message = "interrupted: here is the transcoder so far"
        progress.close(self.history, message if done < self.config.steps else None)

    def finished(self) -> CrossLayerTranscoder:
        """The transcoder with the scales folded in: it reads and writes the model's own units."""
        return self.weights.folded(self.scales)

    @torch.no_grad()
    def normalise(self, read: torch.Tensor, written: torch.Tensor, first: Batch) -> None:
        """Sets the scales by what MLPs read and write in the first block, both [layer, token, d_model], and encoder
        biases and thresholds by its first batch.

        Decoders are zero, so b_dec alone stands for the mean output at the start.
        """
        weights = self.weights
        scales = self._scales_of(read, written)
        for name, value in vars(self.scales).items():
            value.copy_(vars(scales)[name])
        x = first.x * self.scales.x
        center = x.sum(1) / self.config.batch
        self.processes.sum_over_tokens(center)
        for i, encoder in enumerate(weights.W_enc):
            weights.b_enc[i] = -(encoder @ center[i])
        if self.config.activation == "jumprelu":
            weights.threshold[:] = INITIAL_THRESHOLD
        elif self.config.activation == "batchtopk":
            pre = [self.selection.preactivations(i, x[i]) for i in range(len(x))]
            weights.threshold[:] = self.selection.threshold([self.selection.candidates(p, first.places) for p in pre])

    def _scales_of(self, read: torch.Tensor, written: torch.Tensor) -> Scales:
        """Raises ValueError where the model reads or writes numbers that are not finite."""
        # A layer at a time: in float32 all of it would take twice its memory.
        x_norm = torch.stack([layer.float().norm(dim=-1).sum() for layer in read])
        y_square = torch.stack([layer.float().pow(2).sum() for layer in written])
        y_sum = torch.stack([layer.float().sum(0) for layer in written])
        n_tokens = torch.tensor(float(read.shape[1]), device=self.processes.device)
        self.processes.sum_over_tokens(n_tokens, x_norm, y_square, y_sum)
        root, mean = self.transcoder.d_model**0.5, y_sum / n_tokens
        variance = y_square / n_tokens - mean.pow(2).sum(1)
        scales = Scales(len(read), self.transcoder.d_model, self.processes.device)
        scales.x[:] = (root / (x_norm / n_tokens))[:, None, None]
        scales.y[:] = (root / variance.sqrt())[:, None, None]
        scales.mean[:] = mean[:, None]
        for name, value in vars(scales).items():
            if not value.isfinite().all():
                layer = self.transcoder.layers[int((~value.isfinite()).flatten(1).any(1).nonzero()[0])]
                raise ValueError(
                    f"what the MLP of layer {layer} reads or writes on these texts is constant or not finite (scale "
                    f"{name!r}): leave the layer out, or run the model in another dtype"
                )
        return scales

    # ---------------------------------------------------------------- a step

    @torch.no_grad()
    def step(self, batch: Batch) -> None:
        """Rebuild the batch, take the errors back to the weights, move the weights."""
        self._set_learning_rate(batch.step)
        layers = self._pass(batch)
        written = layers.forward()
        self.processes.sum_over_features(*written)
        errors = self.each_layer(lambda i: self._error(i, written[i], batch.y[i]))
        multiple = 2 * self.share  # the loss is `share` times the sum of squared errors
        layers.backward(errors, multiple)
        self.weights.b_dec.grad = torch.stack([error.sum(0) for error in errors]).mul(multiple)
        self.processes.sum_over_tokens(*map(gradient, self.trained))
        self._clip_gradients()
        self.optimizer.step()
        self.weights.threshold.clamp_(min=0)
        layers.mark_fired(self.last_fired)
        self._revive_dead(batch.step)
        if self._is_logged(batch.step + 1):
            self._log(batch.step, errors, layers)

    def _set_learning_rate(self, step: int) -> None:
        rate = min(1, (step + 1) / WARMUP_STEPS, (1 - step / self.config.steps) / DECAY_FRACTION)
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * rate

    def _pass(self, batch: Batch) -> SparsePass | DensePass:
        if not self.dense:
            return SparsePass(self.weights, self.scales, self.selection, self.each_layer, batch)
        grown = (batch.step + 1) / self.config.steps  # the penalty's weight grows over the run
        here = batch.x.shape[1] / self.config.batch  # this process's share of the batch
        weight = self.config.sparsity * grown / self.transcoder.d_model
        return DensePass(self.weights, self.scales, batch, weight * here)

    def _error(self, i: int, written: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What is rebuilt of layer i [token, d_model], less the scaled output. In place of what features wrote."""
        wanted = (y - self.scales.mean[i]).mul_(self.scales.y[i])
        return written.add_(self.weights.b_dec[i]).sub_(wanted)

    def _clip_gradients(self) -> None:
        """Scales the gradient down to the norm `MAX_GRAD_NORM`, where it is longer."""
        shared = gradient(self.weights.b_dec)
        own = [gradient(weights) for weights in self.trained if weights is not self.weights.b_dec]
        square = torch.stack([part.norm() for part in own]).pow(2).sum()
        self.processes.sum_over_features(square)
        norm = math.sqrt(square + shared.norm().pow(2))
        if not math.isfinite(norm):
            raise ValueError(
                f"the gradient of a step is not finite (its norm is {norm}): lower the learning rate, or run the model "
                "in another dtype; from a checkpoint, begin anew"
            )
        if norm > MAX_GRAD_NORM:
            for part in (*own, shared):
                part.mul_(MAX_GRAD_NORM / norm)

    def _revive_dead(self, step: int) -> None:
        """Raises the biases of dead features. They get no gradient, so nothing else would make them fire (the paper has
        a loss for this). At the end of the run they are left alone."""
        if step < self.config.steps * (1 - DECAY_FRACTION):
            self.processes.latest(self.last_fired)
            self.weights.b_enc.add_(REVIVE_BIAS_STEP * (self.last_fired < step - DEAD_AFTER_STEPS))

    # ---------------------------------------------------------------- the history

    def _is_logged(self, done: int) -> bool:
        """Whether the history gets a line after so many steps."""
        return done % LOG_EVERY == 0 or done == self.config.steps

    def _log(self, step: int, errors: list[torch.Tensor], layers: SparsePass | DensePass) -> None:
        """A line of history; every number is that of the whole batch and the whole transcoder."""
        processes, n = self.processes, len(errors)
        processes.latest(self.last_fired)
        nmse = reduce(torch.add, [error.pow(2).sum() for error in errors]) * self.share / n
        dead = (self.last_fired < step - DEAD_AFTER_STEPS).float().mean()
        dead /= processes.size if processes.by_features else 1
        penalty = torch.as_tensor(layers.penalty, dtype=torch.float32, device=dead.device)
        l0 = torch.as_tensor(layers.n_active / (n * self.config.batch), dtype=torch.float32, device=dead.device)
        processes.sum_over_features(penalty, l0, dead)
        processes.sum_over_tokens(penalty, l0, nmse)
        line = {"loss": nmse + penalty / n, "NMSE": nmse, "L0": l0, "dead": dead}
        line = {name: value.item() for name, value in line.items()}
        self.history.append({"step": step + 1, "tokens": (step + 1) * self.config.batch} | line)

    # ---------------------------------------------------------------- checkpoints

    def _settings(self) -> Json:
        """What a checkpoint must agree with to be resumed."""
        names = ("activation", "sparsity", "steps", "batch", "learning_rate", "seed")
        ours = {name: getattr(self.config, name) for name in names}
        return asdict(self.transcoder) | ours | {"buffer": self.stream.size, "texts": self.texts}

    def _save(self, folder: str | Path, step: int) -> None:
        if self.processes.rank == 0 or self.processes.by_features:
            notes = {"history": self.history, "settings": self._settings()}
            save_checkpoint(folder, self.weights, self.optimizer, step, self.state, notes)

    def _resume(self, folder: str | Path) -> int | None:
        """Loads the checkpoint; returns the step to go on with, None where there is no checkpoint.

        Raises ValueError for one that is damaged, or of a run with other settings or texts.
        """
        self.texts = text_fingerprint(self.stream.rows)
        step, notes = load_checkpoint(
            folder, self.weights, self.optimizer, self.state, self.config.steps, self._check_notes
        )
        if notes is None:
            return None
        if "texts" not in notes["settings"]:  # written before 0.3
            self._check_first_block(folder)
        self.history = notes["history"]
        return step

    def _check_notes(self, step: int, notes: object) -> None:
        """An error for notes that are not this run's; `load_checkpoint` adds the file's name."""
        found = check_type(Notes, notes)
        ours, theirs = self._settings(), settings_in_todays_words(found["settings"])
        theirs.setdefault("texts", ours["texts"])  # not known before 0.3: see `_check_first_block`
        if differing := [name for name in ours if name not in theirs or ours[name] != theirs[name]]:
            was = ", ".join(f"{name} {theirs.get(name, 'absent')!r}, now {ours[name]!r}" for name in differing)
            raise ValueError(f"the checkpoint is of another run ({was}): name another folder, or delete it")
        logged = [done for done in range(1, step + 1) if self._is_logged(done)]
        need([line["step"] for line in found["history"]] == logged, "history", f"lines of steps {logged}", "others")
        for i, line in enumerate(found["history"]):
            need(line.keys() == HistoryLine.__annotations__.keys(), f"history[{i}]", "a line of history", line)
            need(line["tokens"] == line["step"] * self.config.batch, f"history[{i}].tokens", "steps * batch", line)

    def _check_first_block(self, folder: str | Path) -> None:
        """Raises ValueError unless the scales that were loaded follow from the first block of the texts."""
        read, written, _ = self.stream.first_block()
        for name, now in vars(self._scales_of(read, written)).items():
            before = self.state[name]
            if (now - before).norm() > SAME_TEXT * before.norm():
                raise ValueError(f"the checkpoint in {folder} is of a run on other texts: name another folder")


def settings_in_todays_words(settings: Json) -> Json:
    """Those of a checkpoint written before 0.2: "jumprelu" told the two activations with thresholds apart."""
    settings = in_todays_words(settings)
    if settings.pop("jumprelu", None) is False and settings.get("activation") == "jumprelu":
        settings["activation"] = "batchtopk"
    return settings
