"""How much is left unexplained for how few features? Transcoders of growing sparsity, cross-layer beside per-layer: the
plot by which papers compare them (Ameisen et al. 2025; Circuits Research Landscape, August 2025)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..graphs.attribution import attribute
from ..models import LanguageModel
from ..models.arguments import checked
from ..text.rows import Texts
from ..transcoders.evaluation import AFFINE_MAP, MEAN_OUTPUT, evaluate_transcoder
from ..transcoders.training.config import TRANSCODER_KINDS, Kind, TrainingActivation
from ..transcoders.training.train import TrainingRun, train_transcoder
from ..widgets.chart import Chart, panels
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar

STYLE = {"cross-layer": ("#0072B2", "circle"), "per-layer": ("#D55E00", "diamond")}
TICKS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
PANELS = {"NMSE": "left unexplained (NMSE), lower is better", "replacement": "replacement score, higher is better"}


@dataclass(repr=False)
class Frontier:
    """Transcoders of growing sparsity, measured alike.

    table: one row a run: kind, k (with JumpReLU: sparsity), L0 (features on per token, over all layers), NMSE, top-1,
        KL and dead as in `ik.evaluate_transcoder`, replacement and completeness (means over the prompts' graphs).
    baselines: NMSE, top-1, KL and loss of an affine map and of the mean output in place of every MLP.
    runs: the TrainingRun of each row, by (kind, k).
    """

    table: pd.DataFrame
    baselines: pd.DataFrame
    runs: dict[tuple[str, float], TrainingRun]

    def show(self) -> Chart:
        """L0 against NMSE, with the baselines as dashed lines, and against the replacement score."""
        figure = panels(1, 2, list(PANELS.values()), horizontal_spacing=0.12)
        ends, setting = [self.table["L0"].min(), self.table["L0"].max()], self.table.columns[1]
        for (name, nmse), dash in zip(self.baselines["NMSE"].items(), ("dash", "dot")):
            line = {"color": "#777777", "dash": dash}
            figure.add_scatter(x=ends, y=[nmse, nmse], name=name, mode="lines", line=line, row=1, col=1)
        for kind, rows in self.table.sort_values("L0").groupby("kind", sort=False):
            colour, symbol = STYLE[str(kind)]
            for column, measure in enumerate(PANELS, 1):
                figure.add_scatter(
                    x=rows["L0"], y=rows[measure], text=[f"{setting} {value:g}" for value in rows[setting]], name=kind,
                    mode="lines+markers", line={"color": colour}, marker={"color": colour, "symbol": symbol, "size": 9},
                    legendgroup=kind, showlegend=column == 1, row=1, col=column,
                )  # fmt: skip
        figure.update_xaxes(type="log", title="features on per token (L0, all layers)")
        figure.update_yaxes(type="log", tickvals=TICKS, row=1, col=1)
        return figure.update_layout(template="plotly_white", height=420, legend={"orientation": "h", "y": -0.25})

    def __repr__(self) -> str:
        return printable(f"{self.table.to_string(index=False)}\n\n{self.baselines.to_string()}")

    def _repr_html_(self) -> str:
        short = "{:.3g}".format
        return literal(self.table.to_html(index=False, float_format=short) + self.baselines.to_html(float_format=short))


@checked
def frontier(
    model: LanguageModel,
    texts: Texts,
    held_out: Texts,
    prompts: Sequence[str],
    ks: Sequence[int] = (2, 4, 8, 16),
    kinds: Sequence[Kind] = TRANSCODER_KINDS,
    *,
    activation: TrainingActivation = "topk",
    sparsities: Sequence[float] = (0.5, 1, 2, 4),
    steps: int = 1000,
    checkpoint: str | Path | None = None,
    **training: Any,
) -> Frontier:
    """Trains one transcoder of each kind at each k on `texts`, and measures all of them alike: on `held_out` texts
    (`ik.evaluate_transcoder`) and on the attribution graphs of `prompts`, not pruned.

    sparsities: weights of the penalty, in place of `ks`, with activation "jumprelu".
    checkpoint: a folder; each run has its own in it, so that a killed sweep goes on where it was.
    training: the other options of `ik.train_transcoder`, the same for all runs.

    Interrupting (the stop button) returns the runs that were finished. Raises TypeError for texts that can be read only
    once, ValueError where there is no prompt, and what training, evaluation and attribution raise.

    >>> found = ik.studies.frontier(model, texts, held_out, ["The capital of Texas is"], ks=(4, 16), n_features=512)
    >>> found.show()
    """
    if isinstance(texts, Iterator) or isinstance(held_out, Iterator):
        raise TypeError("each run reads the texts again: give a list, a file or a data set, not a generator")
    if not prompts or isinstance(prompts, str):
        raise ValueError("prompts should be a list of at least one prompt, whose graphs are scored")
    setting, values = ("sparsity", sparsities) if activation == "jumprelu" else ("k", ks)
    rows, runs = [], {}
    wanted: list[tuple[Kind, float]] = [(kind, value) for kind in kinds for value in values]
    bar = ProgressBar(wanted, desc="frontier")
    try:
        for kind, value in bar:
            bar.set_postfix_str(f"{kind}, {setting} {value:g}")
            run = train_transcoder(
                model, texts, activation=activation, kind=kind, steps=steps, progress=False,
                checkpoint=checkpoint and Path(checkpoint) / f"{kind}-{setting}-{value:g}",
                **{setting: value}, **training,
            )  # fmt: skip
            if run.history.empty or run.history["step"].iloc[-1] < steps:
                raise KeyboardInterrupt  # which `train_transcoder` had answered with the transcoder so far
            evaluation = evaluate_transcoder(model, run.transcoder, held_out, baselines=not runs)
            scores = pd.DataFrame([attribute(model, run.transcoder, prompt).scores for prompt in prompts]).mean()
            row = {"kind": kind, setting: value, "L0": float(evaluation.density.sum())}
            row |= evaluation.summary[["NMSE", "top-1", "KL", "dead"]].to_dict()
            rows.append(row | scores[["replacement", "completeness"]].to_dict())
            if not runs:  # the same for all
                baselines = evaluation.baselines.loc[[AFFINE_MAP, MEAN_OUTPUT]]
            runs[kind, value] = run
    except KeyboardInterrupt:
        if not rows:
            raise
        bar.write("interrupted: here is what was finished")
    return Frontier(pd.DataFrame(rows), baselines, runs)
