"""How much may be left unexplained for how few features? Transcoders of growing sparsity, cross-layer beside per-layer:
the plot by which papers compare them (Ameisen et al. 2025; Circuits Research Landscape, August 2025)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ..transcoders.evaluation import AFFINE, MEAN, evaluate_transcoder
from ..transcoders.training import KINDS, TrainingRun, train_transcoder
from .attribution import attribute

MEASURES = ["NMSE", "top-1", "KL", "dead"]
STYLE = {"cross-layer": ("#0072B2", "circle"), "per-layer": ("#D55E00", "diamond")}
OTHERS = ("#555555", "square")


@dataclass(repr=False)
class Frontier:
    """Transcoders of growing sparsity, measured alike.

    table: one row a run: kind, k (with JumpReLU: sparsity), L0 (features on per token, over all layers), NMSE, top-1,
    KL and dead as `ik.evaluate_transcoder` defines them, replacement and completeness (means over the prompts' graphs).
    baselines: NMSE, top-1, KL and loss of an affine map and of the mean output in the place of every MLP.
    runs: the TrainingRun of each row, by (kind, k).
    """

    table: pd.DataFrame
    baselines: pd.DataFrame
    runs: dict[tuple[str, float], TrainingRun]

    def show(self):
        """A plotly figure: L0 against NMSE, where lower is better, and against replacement score, where higher is."""
        from plotly.subplots import make_subplots

        titles = ("left unexplained (NMSE)", "graphs that start at tokens (replacement score)")
        figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
        setting = self.table.columns[1]
        for kind, rows in self.table.sort_values("L0").groupby("kind", sort=False):
            colour, symbol = STYLE.get(kind, OTHERS)
            for column, y in enumerate(("NMSE", "replacement"), 1):
                figure.add_scatter(
                    x=rows["L0"], y=rows[y], text=[f"{setting} {value:g}" for value in rows[setting]], name=kind,
                    mode="lines+markers", line={"color": colour}, marker={"color": colour, "symbol": symbol, "size": 9},
                    legendgroup=kind, showlegend=column == 1, row=1, col=column,
                )  # fmt: skip
        span = [self.table["L0"].min(), self.table["L0"].max()]
        for name, nmse in self.baselines["NMSE"].items():
            figure.add_scatter(
                x=span, y=[nmse, nmse], text=[name, ""], textposition="bottom right", mode="lines+text", name=name,
                line={"color": "#777777", "dash": "dash"}, showlegend=False, row=1, col=1,
            )  # fmt: skip
        figure.update_xaxes(type="log", title="features on per token (L0, all layers)")
        figure.update_yaxes(type="log", row=1, col=1)
        return figure.update_layout(template="plotly_white", height=420, legend={"orientation": "h", "y": -0.25})

    def __repr__(self):
        return f"{self.table.to_string(index=False)}\n\n{self.baselines.to_string()}"

    def _repr_html_(self):
        three = "{:.3g}".format
        return self.table.to_html(index=False, float_format=three) + self.baselines.to_html(float_format=three)


def frontier(
    model,
    texts,
    held_out,
    prompts,
    ks=(2, 4, 8, 16),
    kinds=KINDS,
    *,
    activation: str = "topk",
    sparsities=(0.5, 1, 2, 4),
    steps: int = 1000,
    checkpoint: str | Path | None = None,
    **training,
) -> Frontier:
    """Trains a transcoder of each kind at each k on `texts`, and measures all of them on the same ground: on `held_out`
    texts, and on the attribution graphs (not pruned) of `prompts`.

    sparsities: with activation "jumprelu", the weights of the penalty, in place of `ks`.
    checkpoint: a folder; each run keeps its own in it, so that a killed sweep goes on where it was.
    training: the other options of `ik.train_transcoder`, the same for all runs.

    Interrupting (the stop button) ends the sweep and returns what was finished. Raises TypeError for texts that can be
    read only once, ValueError where there is no prompt, and what training, evaluation and attribution raise.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ValueError("a frontier needs at least one prompt to draw graphs of")
    if isinstance(texts, Iterator) or isinstance(held_out, Iterator):
        raise TypeError("each run reads the texts again: give a list, a file or a data set, not a generator")
    setting, values = ("sparsity", sparsities) if activation == "jumprelu" else ("k", ks)
    rows, runs, baselines = [], {}, pd.DataFrame()
    bar = tqdm([(kind, value) for kind in kinds for value in values], desc="frontier")
    for kind, value in bar:
        bar.set_postfix_str(f"{kind}, {setting} {value:g}")
        folder = checkpoint and Path(checkpoint) / f"{kind}-{setting}-{value:g}"
        run = train_transcoder(
            model, texts, kind=kind, activation=activation, steps=steps, checkpoint=folder, **{setting: value}, **training
        )
        if run.history.empty or run.history["step"].iloc[-1] < steps:
            bar.write("interrupted: here is what was finished")
            break
        evaluation = evaluate_transcoder(model, run.transcoder, held_out)
        graphs = pd.DataFrame([attribute(model, run.transcoder, prompt).scores for prompt in prompts]).mean()
        row = {"kind": kind, setting: value, "L0": float(evaluation.density.sum()), **evaluation.summary[MEASURES]}
        rows.append(row | graphs[["replacement", "completeness"]].to_dict())
        runs[kind, value], baselines = run, evaluation.baselines.loc[[AFFINE, MEAN]]
    return Frontier(pd.DataFrame(rows), baselines, runs)
