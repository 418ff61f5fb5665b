"""Of the edges of each kind, how many does the model confirm? Many graphs, validated beside matched edges at random."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..models import LanguageModel
from ..models.arguments import checked
from ..statistics import bootstrap_share
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from .consensus import BELIEFS
from .graph import AttributionGraph
from .validation import confirmed, validate

if TYPE_CHECKING:  # heavy, and imported where something is drawn
    from ..widgets.chart import Chart

N_SOURCES = 40  # features of a graph that are switched off, the most influential ones
GRADED = {"confirmed": ("edges", "#0072B2"), "at_random": ("edges at random between the same layers", "#999999"),
          "of_equal_size": ("edges of equal size between the same layers", "#D55E00")}  # fmt: skip


@dataclass(repr=False)
class EdgeGrades:
    """What `grade_edges` found.

    edges: one row an edge: graph (its number), source, target, stability, belief, share (of the target's absolute
    inputs), direct, predicted and measured (see `Validation`), confirmed (the target moved the right way, half to twice
    as much as predicted), and the same of two matched edges, at_random and of_equal_size: others of the graph between
    the same layers, of another belief, drawn at random, or the one whose direct effect is nearest in size. (NaN where
    there is none.)
    """

    edges: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """By belief, the most believed first: edges, and the share confirmed of them and of the matched ones, each with
        its 95 % interval (low, high: graphs are drawn anew)."""
        rows = []
        for belief in reversed(BELIEFS):
            mine = self.edges[self.edges["belief"] == belief]
            row: dict[str, object] = {"belief": belief, "edges": len(mine)}
            for name in GRADED:
                known = mine.dropna(subset=[name])
                of = known[name].astype(float).groupby(known["graph"])
                share, low, high = bootstrap_share(of.sum(), of.size()) if len(known) else (np.nan,) * 3
                row |= {name: share, f"{name} low": low, f"{name} high": high}
            rows.append(row)
        return pd.DataFrame(rows)

    def show(self) -> "Chart":
        """A plotly bar chart of the table."""
        from ..widgets.chart import Chart

        table, figure = self.table, Chart()
        for name, (label, colour) in GRADED.items():
            up, down = table[f"{name} high"] - table[name], table[name] - table[f"{name} low"]
            figure.add_bar(
                x=table["belief"], y=table[name], name=label, marker={"color": colour},
                error_y={"array": up, "arrayminus": down},
            )  # fmt: skip
        return figure.update_layout(
            title="Which edges does the model confirm?", template="plotly_white", height=420, barmode="group",
            yaxis={"title": "share confirmed", "tickformat": ".0%"}, legend={"orientation": "h", "y": -0.2},
        )  # fmt: skip

    def __repr__(self) -> str:
        return printable(f"EdgeGrades({self.edges['graph'].nunique()} graphs)\n{self.table.to_string(index=False)}")

    def _repr_html_(self) -> str:
        return literal(self.table.to_html(index=False, float_format="{:.2f}".format))


@checked
def grade_edges(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    graphs: Iterable[AttributionGraph],
    n_sources: int = N_SOURCES,
    seed: int = 0,
) -> EdgeGrades:
    """Switches the most influential features of each graph off in the real model (`ik.validate`), and counts which of
    their edges the model confirms: the target moves the right way, half to twice as much as the graph predicts.

    graphs: after `graph.consensus`; whole ones rather than pruned, so that there is noise to compare with. n_sources: in
    each, so many features. seed: of the edges at random.

    Raises ValueError for no graph, for one that does not say how stable its edges are, or of another model or
    transcoder.

    >>> ik.graphs.grade_edges(model, transcoder, [graph.consensus() for graph in graphs]).show()
    """
    rng, found = np.random.default_rng(seed), []
    for number, graph in enumerate(ProgressBar(list(graphs), desc="grading edges", unit=" graphs", delay=1, leave=False)):
        if graph.stability is None:
            raise ValueError(f"graph {number} does not say how stable its edges are: give graph.consensus()")
        strongest = graph.features.nlargest(n_sources, "influence")["id"].tolist()
        effects = validate(graph, model, transcoder, nodes=strongest).effects
        edges = effects[effects["direct"] != 0].merge(graph.edges[["source", "target", "stability", "belief"]])
        layer = graph.nodes.set_index("id")["layer"]
        ends = edges["source"].map(layer), edges["target"].map(layer)
        edges = edges.assign(graph=number, confirmed=confirmed(edges), source_layer=ends[0], target_layer=ends[1])
        found.append(_matched(edges, rng))
    if not found:
        raise ValueError("there is no graph to grade")
    columns = ["graph", "source", "target", "stability", "belief", "share", "direct", "predicted", "measured", *GRADED]
    return EdgeGrades(pd.concat(found, ignore_index=True)[columns])


def _matched(edges: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The edges with what became of those they are matched with."""
    hit, size = edges["confirmed"].to_numpy(float), edges["direct"].abs().to_numpy()
    belief = edges["belief"].to_numpy()
    at_random, of_equal_size = np.full(len(edges), np.nan), np.full(len(edges), np.nan)
    for rows in edges.groupby(["source_layer", "target_layer"]).indices.values():
        for name in BELIEFS:
            mine, others = rows[belief[rows] == name], rows[belief[rows] != name]
            if not len(mine) or not len(others):
                continue
            at_random[mine] = hit[rng.choice(others, len(mine))]
            others = others[np.argsort(size[others], kind="stable")]
            above = np.searchsorted(size[others], size[mine]).clip(1, max(len(others) - 1, 1))
            sides = np.stack([others[above - 1], others[np.minimum(above, len(others) - 1)]])
            nearest = np.abs(size[sides] - size[mine]).argmin(0)
            of_equal_size[mine] = hit[sides[nearest, np.arange(len(mine))]]
    return edges.assign(at_random=at_random, of_equal_size=of_equal_size)
