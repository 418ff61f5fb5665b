"""Of the edges that the graph is so sure of, how many does the model confirm? Many graphs, beside matched edges."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..models import LanguageModel
from ..models.arguments import checked
from ..statistics import bootstrap_share
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from .consensus import CLASSES
from .graph import AttributionGraph
from .validation import confirmed, validate

if TYPE_CHECKING:  # heavy, and imported where something is drawn
    from ..widgets.chart import Chart

N_SOURCES = 40  # features of a graph that are switched off, the most influential ones
BELIEFS = {"75 to 100 %": 0.75, "50 to 75 %": 0.5, "25 to 50 %": 0.25, "0 to 25 %": 0.0}  # where each begins
GRADED = {"confirmed": ("edges", "#0072B2"), "at_random": ("edges at random between the same layers", "#999999"),
          "of_equal_size": ("edges of equal size between the same layers", "#D55E00")}  # fmt: skip


@dataclass(repr=False)
class EdgeGrades:
    """What `grade_edges` found.

    edges: one row an edge: graph (its number), source, target, belief (see BELIEFS), consensus, share (of the target's
    absolute inputs), direct, predicted and measured (see `Validation`), confirmed (the target moved the right way, half
    to twice as much as predicted), and the same of two matched edges of the graph, between the same layers: at_random,
    and of_equal_size, the one of another belief whose direct effect is nearest in size (NaN where there is none).
    """

    edges: pd.DataFrame

    @property
    def by_belief(self) -> pd.DataFrame:
        """By belief, the most believed first: edges, and the share confirmed of them and of the matched ones, each with
        its 95 % interval (low, high: graphs are drawn anew)."""
        return self._table("belief", list(BELIEFS))

    @property
    def by_consensus(self) -> pd.DataFrame:
        """The same by consensus (core, contingent, noise), beside edges at random alone."""
        return self._table("consensus", list(reversed(CLASSES)), ["confirmed", "at_random"])

    def _table(self, column: str, values: list[str], graded: Sequence[str] = tuple(GRADED)) -> pd.DataFrame:
        rows = []
        for value in values:
            mine = self.edges[self.edges[column] == value]
            row: dict[str, object] = {column: value, "edges": len(mine)}
            for name in graded:
                known = mine.dropna(subset=[name])
                of = known[name].astype(float).groupby(known["graph"])
                share, low, high = bootstrap_share(of.sum(), of.size())
                row |= {name: share, f"{name} low": low, f"{name} high": high}
            rows.append(row)
        return pd.DataFrame(rows)

    def show(self) -> "Chart":
        """A plotly bar chart by belief."""
        from ..widgets.chart import Chart

        table, figure = self.by_belief, Chart()
        for name, (label, colour) in GRADED.items():
            up, down = table[f"{name} high"] - table[name], table[name] - table[f"{name} low"]
            figure.add_bar(
                x=table["belief"], y=table[name], name=label, marker={"color": colour},
                error_y={"array": up, "arrayminus": down},
            )  # fmt: skip
        return figure.update_layout(
            title="Which edges does the model confirm?", template="plotly_white", height=420, barmode="group",
            xaxis={"title": "belief"}, yaxis={"title": "share confirmed", "tickformat": ".0%"},
            legend={"orientation": "h", "y": -0.25},
        )  # fmt: skip

    def __repr__(self) -> str:
        n = self.edges["graph"].nunique()
        return printable(f"EdgeGrades({n} graphs)\n{self.by_belief.round(3).to_string(index=False)}")

    def _repr_html_(self) -> str:
        return literal(self.by_belief.to_html(index=False, float_format="{:.2f}".format))


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

    graphs: after `graph.believe`; whole ones rather than pruned, so that there are edges to compare with. n_sources: in
    each, so many features. seed: of the edges at random.

    Raises ValueError for no graph, for one that does not say which edges to believe, or of another model or transcoder.

    >>> ik.graphs.grade_edges(model, transcoder, [graph.believe() for graph in graphs]).show()
    """
    rng, found = np.random.default_rng(seed), []
    for number, graph in enumerate(ProgressBar(graphs, desc="grading edges", unit=" graphs", delay=1, leave=False)):
        if graph.belief is None or graph.stability is None:
            raise ValueError(f"graph {number} does not say which of its edges to believe: give graph.believe()")
        strongest = graph.features.nlargest(n_sources, "influence")["id"].tolist()
        effects = validate(replace(graph, supernodes={}), model, transcoder, nodes=strongest).effects
        edges = effects[effects["direct"] != 0].merge(graph.edges[["source", "target", "belief", "consensus"]])
        layer = graph.nodes.set_index("id")["layer"]
        edges = edges.assign(
            graph=number, confirmed=confirmed(edges), belief=belief_class(edges["belief"].to_numpy()),
            source_layer=edges["source"].map(layer), target_layer=edges["target"].map(layer),
        )  # fmt: skip
        found.append(_matched(edges, rng))
    if not found:
        raise ValueError("there is no graph to grade")
    columns = ["graph", "source", "target", "belief", "consensus", "share", "direct", "predicted", "measured", *GRADED]
    return EdgeGrades(pd.concat(found, ignore_index=True)[columns])


def belief_class(belief: np.ndarray) -> np.ndarray:
    """To which of BELIEFS each number belongs."""
    names, least = list(BELIEFS)[::-1], list(BELIEFS.values())[::-1]
    return np.array(names)[np.searchsorted(least, belief, side="right") - 1]


def _matched(edges: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The edges with what became of those they are matched with."""
    hit, size, belief = edges["confirmed"].to_numpy(float), edges["direct"].abs().to_numpy(), edges["belief"].to_numpy()
    at_random, of_equal_size = np.full(len(edges), np.nan), np.full(len(edges), np.nan)
    for rows in edges.groupby(["source_layer", "target_layer"]).indices.values():
        if len(rows) > 1:  # another one of them: so many places further on
            further = rng.integers(1, len(rows), len(rows))
            at_random[rows] = hit[rows[(np.arange(len(rows)) + further) % len(rows)]]
        for name in np.unique(belief[rows]):
            mine, others = rows[belief[rows] == name], rows[belief[rows] != name]
            if len(others):
                of_equal_size[mine] = hit[others[_nearest(size[others], size[mine])]]
    return edges.assign(at_random=at_random, of_equal_size=of_equal_size)


def _nearest(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted number where the nearest value is."""
    order = np.argsort(values, kind="stable")
    above = np.searchsorted(values[order], wanted).clip(0, len(values) - 1)
    sides = order[np.stack([np.maximum(above - 1, 0), above])]
    return sides[np.abs(values[sides] - wanted).argmin(0), np.arange(len(wanted))]
