"""Training a transcoder: stream activations, keep few features on, rebuild what the MLPs wrote.

Recipe, after EleutherAI's clt-training and Ameisen et al. 2025: inputs and centred outputs scaled to norm sqrt(d_model)
per layer, zero decoders, encoder biases centred on the data, Adam with a warm-up and a linear end, mean squared error
per layer as a share of its variance. Scales are folded into the weights on return.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from ...hardware import bytes_of, check_memory, multiplies_bfloat16
from ...models import LanguageModel
from ...models.arguments import checked
from ...text.rows import TextRows, Texts
from ...widgets.plain_text import literal
from ..module import CrossLayerTranscoder, TranscoderConfig
from .config import Kind, TrainingActivation, TrainingConfig, renamed_activation
from .parallel import Processes, Split
from .planning import Step
from .progress import curves
from .stream import ActivationStream, buffer_size, first_position_is_massive
from .trainer import Trainer

if TYPE_CHECKING:
    from ...widgets.chart import Chart


@dataclass
class TrainingRun:
    """What a run returns.

    `history`: one row every 25 steps: step, tokens, loss (what was minimised: NMSE, and with JumpReLU the penalty),
    NMSE (the share of the MLP outputs' variance left unexplained, mean over layers), L0 (features on per token and
    layer), dead (the share of features that fired in none of the last 100 steps), all of them on the training batch.
    """

    transcoder: CrossLayerTranscoder
    history: pd.DataFrame

    def show(self) -> "Chart":
        """A plotly figure of the history."""
        return curves(self.history)

    def _repr_html_(self) -> str:
        return literal(self.transcoder._repr_html_() + self.history.tail(5).to_html(index=False))


@checked
def train_transcoder(
    model: LanguageModel,
    texts: Texts,
    n_features: int = 1024,
    activation: TrainingActivation = "topk",
    kind: Kind = "cross-layer",
    checkpoint: str | Path | None = None,
    *,
    k: int = 8,
    sparsity: float = 2.0,
    span: int | None = None,
    layers: Sequence[int] | None = None,
    steps: int = 1000,
    batch: int = 1024,
    learning_rate: float = 3e-3,
    memory: str | float = "256MB",
    dtype: torch.dtype | None = None,
    parallel: Split = "data",
    seed: int = 0,
    progress: bool = True,
) -> TrainingRun:
    """Trains a transcoder of `model` on `texts` and returns it with its history.

        run = ik.train_transcoder(model, texts, n_features=2048, k=16, steps=500)

    texts: a list of strings, a .txt or .jsonl file, or a stream such as a Hugging Face data set; read again from the
        start when it ends before the last step.
    checkpoint: a folder; a run killed at any moment goes on where it was and ends with the weights it would have had.
    progress: whether to show a bar and, in a notebook, a chart.

    The other keywords are the fields of `TrainingConfig`, each of which has its manual there. In short:

    activation: what turns a feature on: "topk", the `k` largest of each token and layer; "batchtopk", all above a
        running threshold, so that k are on on average; "jumprelu", all above a trained threshold, held down by a
        penalty of weight `sparsity`.
    kind: "cross-layer" (a feature writes to its own layer and all later ones), or "per-layer"; `span` between the two:
        how many layers a feature writes to.
    layers: the layers to transcode, by default all.
    steps, batch, learning_rate: of Adam; `batch` tokens a step.
    memory: the buffer in which tokens are shuffled, at most so large.
    dtype: what the model runs in while it is read; by default bfloat16 where the processor multiplies it natively.
    parallel: how processes share the work that `accelerate launch` starts: "data" or "features".

    Interrupting (the stop button) returns the transcoder so far. Raises ValueError for an unknown kind, activation or
    split, sizes that do not fit, texts without tokens, a checkpoint of another run; TypeError for what is no text;
    MemoryError, before the model is read, where weights, gradients, Adam's moments and the buffer would not fit.
    """
    config = TrainingConfig(
        n_features=n_features, activation=renamed_activation(activation), kind=kind, k=k, sparsity=sparsity, span=span,
        layers=layers, steps=steps, batch=batch, learning_rate=learning_rate, memory=memory, dtype=dtype,
        parallel=parallel, seed=seed,
    )  # fmt: skip
    transcoder = config.transcoder(model)
    processes = Processes(config.parallel, model.device)
    dtype = dtype or (torch.bfloat16 if multiplies_bfloat16(processes.device) else model.dtype)
    reader = model.hf  # what is read: the model itself where it has this type and device, else a copy
    copied = (reader.dtype, reader.device) != (dtype, processes.device)
    if processes.device.type == "cpu":
        check_room(model, config, transcoder, dtype, copied, processes)
    if copied:
        # `to` has no signature, says the type checker.
        reader = copy.deepcopy(reader).to(device=processes.device, dtype=dtype)  # pyright: ignore[reportCallIssue]
    rows = TextRows(model, texts, config.seed)
    if first_position_is_massive(reader, rows, transcoder):
        transcoder = replace(transcoder, excludes_first_position=True)
    stream = ActivationStream(reader, rows, transcoder, config.batch, bytes_of(config.memory), processes.rows)
    trainer = Trainer(config, transcoder, stream, processes)
    trainer.run(checkpoint, progress)
    return TrainingRun(trainer.finished(), pd.DataFrame(trainer.history))


def check_room(
    model: LanguageModel, config: TrainingConfig, transcoder: TranscoderConfig, dtype: torch.dtype, copied: bool,
    processes: Processes,
) -> None:  # fmt: skip
    """Raises MemoryError where this process's share of the training does not fit into what is free.

    copied: whether the model is read as a copy in `dtype`.
    """
    _, buffer = buffer_size(transcoder, dtype, config.batch, bytes_of(config.memory))
    step = Step.of(model.hf, transcoder, config.activation, config.batch, buffer).share(config.parallel, processes.size)
    check_memory(
        step.own + copied * dtype.itemsize * step.model,
        f"training {transcoder.n_features:,} features in each of {len(transcoder.layers)} layers",
        f"Use fewer features, a shorter span, fewer layers, a batch below {config.batch:,}, or less than "
        f"memory={config.memory!r} for the buffer; ik.plan_training tells what each of them takes",
    )
