"""Training a transcoder: stream activations, keep few features on, rebuild what the MLPs wrote.

Recipe, after EleutherAI's clt-training and Ameisen et al. 2025: inputs and centred outputs scaled to norm sqrt(d_model)
per layer, zero decoders, encoder biases centred on the data, Adam with a warm-up and a linear end, mean squared error
per layer as a share of its variance. Scales are folded into the weights on return.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from ...hardware import bytes_of, multiplies_bfloat16
from ...text.rows import TextRows
from ..module import CrossLayerTranscoder, TranscoderConfig
from .parallel import Processes
from .progress import curves
from .stream import ActivationStream
from .trainer import Trainer

KINDS = ("cross-layer", "per-layer")
ACTIVATIONS = ("topk", "batchtopk", "jumprelu")


@dataclass
class TrainingRun:
    """What a run returns.

    `history`: one row every 25 steps: step, tokens, loss (what was minimised: NMSE, and with JumpReLU the penalty),
    NMSE (the share of the MLP outputs' variance left unexplained, mean over layers), L0 (features on per token and
    layer), dead (the share of features that fired in none of the last 100 steps), all of them on the training batch.
    """

    transcoder: CrossLayerTranscoder
    history: pd.DataFrame

    def show(self):
        """A plotly figure of the history."""
        return curves(self.history)

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
    sparsity: float = 2.0,
    span: int | None = None,
    layers: list[int] | None = None,
    steps: int = 1000,
    batch: int = 1024,
    learning_rate: float = 3e-3,
    memory: str | float = "256MB",
    dtype: torch.dtype | None = None,
    parallel: str = "data",
    seed: int = 0,
    progress: bool = True,
) -> TrainingRun:
    """Trains a transcoder of `model` on `texts` and returns it with its history.

    texts: a list of strings, a .txt or .jsonl file, or a stream such as a Hugging Face data set; read again from the
        start when it ends before the last step.
    activation: what turns a feature on.
        "topk": the k largest of each token and layer;
        "batchtopk": all above a running threshold, fixed at the end (BatchTopK). It is the same in all layers: k are on
            on average over them, more where MLPs are hard to rebuild;
        "jumprelu": all above a trained threshold, held down by a tanh penalty of weight `sparsity` that grows over the
        run (the recipe of Ameisen et al. 2025); each layer finds its own L0. Dense, so several times slower.
    kind: "cross-layer" (a feature writes to its own layer and all later ones), or "per-layer"; `span` between the two:
        how many layers a feature writes to.
    checkpoint: a folder; a run killed at any moment goes on where it was and ends with the weights it would have had.
    layers: the layers to transcode, by default all.
    batch: tokens a step.
    memory: the buffer in which tokens are shuffled, at most so large; nothing else of the activations is kept. Text
        that fits into it as a whole is read by the model once, not in every epoch.
    dtype: what the model runs in while it is read; by default bfloat16 where the processor multiplies it natively.
    progress: whether to show a bar and, in a notebook, a chart.
    parallel: how processes share the work that `accelerate launch` starts: "data" or "features" (see `parallel.py`).

    Interrupting (the stop button) returns the transcoder so far. Raises ValueError for an unknown kind, activation or
    split, sizes that do not fit, texts without tokens, a checkpoint of another run; TypeError for what is no text.
    """
    config = _config(model, n_features, activation, kind, k, span, layers)
    processes = Processes(parallel, model.device)
    dtype = dtype or (torch.bfloat16 if multiplies_bfloat16(processes.device) else model.dtype)
    reader = _as(model.hf, dtype, processes.device)
    rows = TextRows(model, texts, seed)
    stream = ActivationStream(
        reader, rows, config.layers, config.feature_input_hook, batch, bytes_of(memory), processes.rows
    )
    config.excludes_first_position = stream.skip_first
    trainer = Trainer(
        config, stream, processes, jump=activation == "jumprelu", sparsity=sparsity, steps=steps,
        learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    trainer.run(checkpoint, progress)
    return TrainingRun(trainer.finished(), pd.DataFrame(trainer.history))


def _config(model, n_features, activation, kind, k, span, layers):
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    layers = chosen_layers(layers, model.n_layers)
    if not 1 <= k <= n_features:
        raise ValueError(f"k {k} is not between 1 and the {n_features} features of a layer")
    return TranscoderConfig(
        d_model=model.d_model,
        n_features=n_features,
        layers=layers,
        span=span or (len(layers) if kind == "cross-layer" else 1),
        activation="topk" if activation == "topk" else "jumprelu",
        k=k,
        model={"name": model.name, "fingerprint": model.fingerprint},
    )


def chosen_layers(layers: list[int] | None, n_layers: int) -> list[int]:
    """The model's layers to transcode, ascending; None for all. Raises ValueError for what it does not have."""
    layers = list(range(n_layers)) if layers is None else sorted(layers)
    if not layers or layers[0] < 0 or layers[-1] >= n_layers:
        raise ValueError(f"layers {layers}: expected some of 0 to {n_layers - 1}")
    return layers


def _as(hf, dtype, device):
    """The model itself where it already is so, else a copy."""
    return hf if (hf.dtype, hf.device) == (dtype, device) else copy.deepcopy(hf).to(device=device, dtype=dtype)
