"""The graph object: nodes and edges as tables, scored, pruned, labelled and grouped.

What it offers beyond its tables is in files of its own: `paths.py`, `views.py`, `graph_file.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..formats.graph_tables import Card, GraphTables, node_rows
from ..formats.label_table import one_label_each
from ..formats.node_id import NodeId
from ..formats.provenance import check_belongs
from ..hardware import check_memory
from ..storage.atomic import atomic_file
from ..widgets.plain_text import literal, printable
from . import influence as scoring
from .belief import belief
from .consensus import classes, stability
from .deprecation import renamed_keyword
from .grouping import automatic_groups, grouped_scores
from .paths import LONGEST, strongest_paths
from .views import picture_data, view_data

if TYPE_CHECKING:  # from rooms above, and a view, which is imported where one is shown
    from ..features import FeatureStore
    from ..transcoders import CrossLayerTranscoder
    from ..widgets import GraphData, GraphView

CANCELS = 10  # times what they add up to: from there on a graph's inputs are said to cancel
ABOUT_SCORES = "What MLPs write at a first token that begins every prompt counts as a constant, not as an error."
PRUNING_COPIES = 3  # of the adjacency that stays
FIRST_COLUMNS = [
    "id", "kind", "layer", "position", "token", "feature", "label", "influence", "contribution", "cumulative"
]  # fmt: skip


@dataclass
class AttributionGraph(GraphTables):
    """Nodes and the direct effects between them, for one prompt.

    adjacency [target, source]: the effect of a source on a target's pre-activation, or on a logit less the mean
    logit; one row and one column a node, in the order of `nodes`. For a feature, its row and its `bias` add up to
    its activation (before the threshold).

    `nodes` has one row a node: kind (embedding, feature, error, logit, and left_out: one node for all features that a
    capped graph does not have), layer (-1 for embeddings and for what was left out, n_layers for logits), position,
    feature (its index; the token id for embeddings and logits; -1 for errors), token (at that position; the predicted
    one for logits), activation (a logit's value less the mean), probability (logits), bias, label, influence (how much
    it feeds the logits over all paths), contribution (its signed effect on what is explained over all paths; of several
    logits on the likeliest), cumulative (the share of all influence that it and the more influential nodes make up:
    small means important). The contributions of embeddings, errors and what was left out add up, with the biases, to
    the value of what is explained; where they are far larger than that, they cancel, and no single one of them is
    evidence: see `conditioning`, their absolute sum, the value, and the ratio.

    prompt: the text; tokens: one for each position; n_layers: of the model.
    about: the model's name and fingerprint, and the transcoder's. supernodes: ids by name. scores: replacement,
    completeness, completeness_of_inputs and, of a capped graph, left_out (see `influence.scores`). asked: what it
    explains, by name and in ids; empty for the likeliest next tokens. stability, belief [target, source]: of each edge,
    after `believe`.
    feature_store: what `annotate` was given. origin: the file that the graph was loaded from, of which `save` writes
    back what these fields do not hold.
    """

    feature_store: "FeatureStore | None" = None

    def __post_init__(self) -> None:
        """A new graph gets its influence and scores; a smaller part of one keeps the full graph's numbers."""
        if "influence" in self.nodes and self.scores:
            return
        weights = self.logit_probabilities
        total = scoring.influence(self.adjacency, self.layers, weights)
        self.scores = self.scores or scoring.scores(self.adjacency, self.kinds, weights, total)
        if "influence" not in self.nodes:
            nodes = self.nodes.copy()
            layers = nodes["layer"].where(self.kinds != "logit", self.n_layers + 1)
            nodes["id"] = [str(NodeId(*place)) for place in zip(layers, nodes["feature"], nodes["position"])]
            nodes["label"] = [plain_label(n.kind, n.layer, n.feature, n.token) for n in node_rows(nodes)]
            if scoring.LEFT_OUT in self.scores:
                nodes.loc[self.kinds == scoring.LEFT_OUT, "label"] += f": {self.scores[scoring.LEFT_OUT]:.0%}"
            nodes["influence"], nodes["cumulative"] = total, scoring.cumulative_share(total)
            nodes["contribution"], self.conditioning = signed(nodes, self.adjacency)
            self.nodes = nodes[FIRST_COLUMNS + [c for c in nodes if c not in FIRST_COLUMNS]]

    # ------------------------------------------------------------------ nodes and edges

    @property
    def kinds(self) -> np.ndarray:
        """[node]: "feature", "error", "embedding", "left_out" or "logit"."""
        return self.nodes["kind"].to_numpy(str)

    @property
    def layers(self) -> np.ndarray:
        """[node]: -1 for embeddings and for what was left out, n_layers for logits."""
        return self.nodes["layer"].to_numpy(int)

    @property
    def logit_probabilities(self) -> np.ndarray:
        """[node]: the probability of a logit, 0 for other nodes."""
        return self.nodes["probability"].fillna(0).to_numpy(float)

    @property
    def features(self) -> pd.DataFrame:
        """The rows of `nodes` that are features; their index says where they are in `adjacency`."""
        return self.nodes[self.kinds == "feature"]

    @property
    def errors(self) -> pd.DataFrame:
        """The rows of `nodes` that are errors, with their index in it."""
        return self.nodes[self.kinds == "error"]

    @property
    def embeddings(self) -> pd.DataFrame:
        """The rows of `nodes` that are embeddings, with their index in it."""
        return self.nodes[self.kinds == "embedding"]

    @property
    def logits(self) -> pd.DataFrame:
        """The rows of `nodes` that are logits, with their index in it."""
        return self.nodes[self.kinds == "logit"]

    @property
    def ids(self) -> np.ndarray | None:
        """The prompt's token ids [position]; None where a file of another tool does not have them."""
        embeddings = self.embeddings.sort_values("position")
        ids = embeddings["feature"].to_numpy(int).copy()
        return ids if len(ids) == len(self.tokens) and (ids >= 0).all() else None

    @cached_property
    def edges(self) -> pd.DataFrame:
        """One row an edge, largest first: source and target (ids), weight, share of the target's absolute inputs; after
        `believe` also belief, stability and consensus."""
        target, source = self.adjacency.nonzero()
        ids = self.nodes["id"].to_numpy()
        weight, share = self.adjacency[target, source], scoring.shares(self.adjacency)[target, source]
        table = pd.DataFrame({"source": ids[source], "target": ids[target], "weight": weight, "share": share})
        if self.belief is not None:
            table["belief"] = self.belief[target, source]
        if self.stability is not None:
            table["stability"] = self.stability[target, source]
            table["consensus"] = classes(table["stability"].to_numpy())
        return table.sort_values("weight", key=np.abs, ascending=False, ignore_index=True)

    @cached_property
    def by_hops(self) -> pd.DataFrame:
        """What paths of each length carry of the (likeliest) logit: hops (edges), inputs (the sum of the absolute
        effects of tokens, errors and what was left out over paths of just this length), net (with their signs),
        features (the sum of the absolute effects of features at this distance). Where `features` grows from hop to hop,
        chains amplify and cancel: `Validation.by_hops` tells from which length on the model contradicts them.

        Empty where a file lacks activations, and for a family of prompts.
        """
        activations, columns = self.nodes["activation"].to_numpy(float), ["hops", "inputs", "net", "features"]
        if "prompts" in self.nodes:
            return pd.DataFrame(columns=columns)
        is_input, is_feature = np.isin(self.kinds, scoring.INPUTS), self.kinds == "feature"
        if not np.isfinite(activations[is_feature]).all():
            return pd.DataFrame(columns=columns)
        target = int(self.logits.index[0])
        effects = scoring.effects_by_hops(self.adjacency, np.nan_to_num(activations), target)
        rows = [
            (hops, np.abs(e[is_input]).sum(), e[is_input].sum(), np.abs(e[is_feature]).sum())
            for hops, e in enumerate(effects, 1)
        ]
        return pd.DataFrame(rows, columns=columns)

    # ------------------------------------------------------------------ smaller graphs

    def prune(
        self, node_threshold: float = 0.8, edge_threshold: float = 0.98, max_nodes: int | None = None
    ) -> "AttributionGraph":
        """The nodes that make up `node_threshold` of all influence, and the edges that make up `edge_threshold`
        of the edge scores between them; tokens and logits stay. Influence and scores remain those of the full graph.

        max_nodes: of features and errors, keep at most so many, the most influential ones.

        Raises ValueError for a threshold outside 0 to 1, or a number of nodes that is none; MemoryError when what stays
        is too large for the memory that is free.

        >>> graph.prune(max_nodes=25).show()
        """
        for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {value}")
        if max_nodes is not None and not (isinstance(max_nodes, Integral) and max_nodes >= 0):
            raise ValueError(f"max_nodes should be a whole number of at least 0, got {max_nodes!r}")
        kinds, layers, weights = self.kinds, self.layers, self.logit_probabilities
        total = scoring.influence(self.adjacency, layers, weights)
        stay = scoring.keep_nodes(total, kinds, node_threshold, max_nodes)
        check_memory(
            PRUNING_COPIES * len(stay) ** 2 * self.adjacency.itemsize,
            f"pruning a graph of {len(self.nodes):,} nodes, of which {len(stay):,} stay,",
            "Keep fewer: prune(..., max_nodes=...), or attribute(..., max_features=...)",
        )
        adjacency = self.adjacency[np.ix_(stay, stay)]
        kept, edges = scoring.prune(adjacency, kinds[stay], layers[stay], weights[stay], edge_threshold)
        adjacency = adjacency[np.ix_(kept, kept)] if len(kept) < len(stay) else adjacency
        adjacency[~edges] = 0
        of_edges = {
            name: None if x is None else x[np.ix_(stay[kept], stay[kept])] * edges for name, x in self._of_edges()
        }
        nodes = self.nodes.iloc[stay[kept]].reset_index(drop=True)
        left = set(nodes["id"])
        supernodes = {name: kept for name, ids in self.supernodes.items() if (kept := [i for i in ids if i in left])}
        return replace(self, nodes=nodes, adjacency=adjacency, supernodes=supernodes, **of_edges)

    def _of_edges(self) -> list[tuple[str, np.ndarray | None]]:
        """What is known of each edge beside its weight, [target, source] each."""
        return [("stability", self.stability), ("belief", self.belief)]

    def believe(self, *others: "AttributionGraph") -> "AttributionGraph":
        """The same graph, and which of its edges to believe. Columns of `edges`:

        belief: of edges like this one, the part that interventions confirmed (the target moved the right way, half to
            twice as much as predicted); see `graphs/belief.py`. The picture draws those of .5 and more solid, others
            faint.
        stability: the share of settings that keep the edge. These are twelve pairs of pruning thresholds, for this
            graph and each of `others`: the same question in other words, or by another transcoder. Tokens are aligned
            by their text, and of what is not in another prompt it says nothing; another transcoder's features are
            compared by their labels.
        consensus: "core" for what all settings keep, "contingent" for what some do, "noise" for what none does.

        Edges from tokens, errors and what was left out are judged by their share alone: they were not switched off.

        Raises ValueError for another model or question, prompts that have nothing in common, another transcoder's graph
        without labels, a family of prompts; MemoryError where it would not fit.

        >>> graph.believe(ik.attribute(model, transcoder, "Dallas is in a state whose capital is")).prune().show()
        """
        check_single(self)
        return replace(self, stability=stability(self, others), belief=belief(self))

    # ------------------------------------------------------------------ meaning

    def annotate(self, features: "FeatureStore", labels: pd.DataFrame | None = None) -> "AttributionGraph":
        """The same graph with feature cards from a FeatureStore and, where given, labels (of `ik.label_features`).

        Raises TypeError for what is no store or no table, ValueError for a table that is not one of labels or names a
        feature twice, and for a store or labels of another model or transcoder.
        """
        check_store(features)
        check_belongs(features, "features", self, "graph")
        nodes = self.nodes.copy()
        if labels is not None:
            labels = one_label_each(labels)
            check_belongs(labels, "labels", self, "graph")
            named = dict(zip(zip(labels["layer"], labels["feature"]), labels["label"]))
            rows = self.features[["layer", "feature", "label"]].itertuples(index=False)
            nodes.loc[self.kinds == "feature", "label"] = [named.get((l, i)) or label for l, i, label in rows]
        return replace(self, nodes=nodes, feature_store=features)

    @property
    def cards(self) -> dict[tuple[int, int], Card]:
        """What the store of `annotate` shows of each feature, by (layer, feature)."""
        store, places = self.feature_store, zip(self.features["layer"], self.features["feature"], strict=True)
        # In the store's order, which reads each part of its files once.
        return {} if store is None else {place: store.card(*place) for place in sorted(set(places))}

    def group(
        self, supernodes: Mapping[str, Sequence[str | NodeId]] | str, transcoder: "CrossLayerTranscoder | None" = None
    ) -> "AttributionGraph":
        """The same graph with named groups of nodes: {"Texas": [node ids]}; or "auto", features at one position that
        are alike by what they feed, what they draw on, their labels and, with a transcoder, what they write. (Average
        linkage; each group is named after its most influential member.)

        Raises ValueError for another word than "auto", an id that is not in the graph or is in two groups, a transcoder
        that is not the graph's.

        >>> graph.annotate(features, labels).prune().group("auto", transcoder).supernodes
        """
        if isinstance(supernodes, str):
            if supernodes != "auto":
                raise ValueError(f'supernodes should be a dict of ids by name, or "auto", got {supernodes!r}')
            return replace(self, supernodes=automatic_groups(self, transcoder))
        named = {str(name): [str(node) for node in ids] for name, ids in supernodes.items()}
        known, seen = set(self.nodes["id"]), set()
        for name, ids in named.items():
            for node in ids:
                if node not in known:
                    raise ValueError(f"supernode {name!r}: {node!r} is not the id of a node of this graph")
                if node in seen:
                    raise ValueError(f"supernode {name!r}: node {node!r} is in another group already")
                seen.add(node)
        return replace(self, supernodes=named)

    @property
    def grouped_scores(self) -> dict[str, float]:
        """As `scores`, if only the features in supernodes were explained: the others count as left out. Of a pruned
        graph, what was pruned away does not count: `graph.group(pruned.supernodes).grouped_scores` is of the whole."""
        return grouped_scores(self)

    def find(self, text: str) -> pd.DataFrame:
        """The nodes whose label holds `text`, most influential first."""
        hit = self.nodes["label"].str.contains(text, regex=False)
        return self.nodes[hit].sort_values("influence", ascending=False)

    @renamed_keyword("to", "target")
    def paths(
        self,
        k: int = 1,
        target: str | int | NodeId | None = None,
        by_label: bool = True,
        longest: int | None = LONGEST,
    ) -> pd.DataFrame:
        """For each token of the prompt its k strongest paths, through at least one feature, to the logit `target`.

        `target` is a token (" Austin", or its id in the vocabulary) or a node's id, by default the likeliest logit. A
        path's strength is the product of its edges' shares of their targets' inputs. With `by_label`, features of one
        label at one position are one step (their shares add up), as are the members of a supernode. Columns: token,
        position, strength, sign (of the effect), steps (labels joined by arrows), nodes (a list of node ids a step);
        strongest first.

        longest: the most edges of a path, its token's first one included; None for any number. What longer chains of
            features predict is not what interventions find: see `by_hops`, and `Validation.by_hops`.

        Raises ValueError when `target` is not a logit of the graph, or `longest` is less than 2.

        >>> graph.prune().paths(target=" Austin")
        """
        if longest is not None and not (isinstance(longest, Integral) and longest >= 2):
            raise ValueError(f"longest should be a number of edges of at least 2, or None for any, got {longest!r}")
        return strongest_paths(self, self._logit(target), k, by_label, longest)

    def _logit(self, target: str | int | NodeId | None) -> str:
        """The id of a logit."""
        logits = self.logits
        if target is None:
            return logits["id"].iloc[0]
        if isinstance(target, Integral):
            hit = logits["feature"] == target
        else:
            hit = (logits["token"] == str(target)) | (logits["id"] == str(target))
        if not hit.any():
            known = ", ".join(f"{n.token!r} ({n.id})" for n in node_rows(logits))
            raise ValueError(f"target {target!r} is not a logit of this graph; its logits: {known}")
        return logits["id"][hit].iloc[0]

    # ------------------------------------------------------------------ files and views

    def save(self, path: str | Path, features: "FeatureStore | None" = None, listed: bool = False) -> None:
        """Writes the public attribution-graph JSON (schema version 1), which Neuronpedia and the public viewer read.

        The file's name is the graph's name (slug) there: letters, digits and "-". With `features`, a FeatureStore, the
        cards of the graph's features are written too, beside it in features/SLUG, where the viewer finds them. `listed`
        enters the graph in graph-metadata.json beside it: the viewer shows the graphs of that list.

        Raises ValueError for a store of another model or transcoder and for a feature that it does not have;
        FileExistsError where a file in the way is something else.
        """
        from .graph_file import save_graph

        save_graph(self, path, features, listed)

    def view_data(self) -> "GraphData":
        """The plain data that the view draws; see `interp_kit.widgets.GraphView`."""
        return view_data(self)

    def show(self, threshold: float = 0.8, boxes: bool | None = None) -> "GraphView":
        """The interactive view; `view.pinned` reads the selection back. Of a large graph the 300 most influential
        features and errors are drawn.

        boxes: draw each supernode as one box, at most 25 boxes, the most influential ones; without supernodes those of
            `group("auto")`. By default for graphs of more than 400 features; False shows single features.

        Raises MemoryError as `prune` does.
        """
        from ..widgets import GraphView

        return GraphView(picture_data(self, boxes), threshold=threshold)

    def to_html(self, path: str | Path, threshold: float = 0.8, boxes: bool | None = None) -> None:
        """Writes the interactive view as one self-contained HTML file: no server, no network. `boxes` as in `show`.

        Raises FileExistsError where a file is in the way that is no page of interp_kit; MemoryError as `prune` does.
        """
        from ..widgets import graph_page, is_page

        page = graph_page(picture_data(self, boxes), threshold=threshold)
        with atomic_file(path, replaces=is_page) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def __repr__(self) -> str:
        count = self.nodes["kind"].value_counts()
        kinds = ", ".join(f"{count.get(k, 0)} {k}s" for k in ("feature", "error", "embedding", "logit"))
        kinds += ", what was left out" * int(scoring.LEFT_OUT in count)
        return printable(f"AttributionGraph({self.prompt!r}: {kinds}, {np.count_nonzero(self.adjacency):,} edges)")

    def _warning(self) -> str:
        """A sentence where the effects of many long chains cancel."""
        ratio = self.conditioning.get("ratio", 0)
        if ratio < CANCELS:
            return ""
        return (
            f"<p>The effects of tokens and errors are together {ratio:,.0f} times as large as what they add up to: "
            "long chains of features amplify and cancel here. Single long paths are no evidence; try ik.validate.</p>"
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{v:.3f}</td></tr>" for k, v in self.scores.items())
        top = self.nodes.sort_values("influence", ascending=False).head(8)[FIRST_COLUMNS]
        scores = f"<table>{rows}</table><p>{ABOUT_SCORES}</p>{self._warning()}"
        return literal(f"<p>{escape(repr(self))}</p>{scores}{top.to_html(index=False)}")


def check_single(graph: AttributionGraph) -> None:
    """Raises ValueError for a family of prompts, whose means are no model's sums."""
    if "prompts" in graph.nodes:
        raise ValueError("this is the graph of a family of prompts, whose edges are means: ask the graph of one prompt")


def check_store(features: object) -> None:
    """Raises TypeError for what gives no cards of features."""
    if not callable(getattr(features, "card", None)):
        raise TypeError(
            f"expected a FeatureStore (ik.load_features, ik.collect_features), then a table of labels; got "
            f"{type(features).__name__}"
        )


def signed(nodes: pd.DataFrame, adjacency: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Each node's contribution, and their conditioning; NaN and nothing where a file lacks activations."""
    kinds, activations = nodes["kind"].to_numpy(str), nodes["activation"].to_numpy(float)
    logits = np.flatnonzero(kinds == "logit")
    known = np.isfinite(activations[kinds == "feature"]).all() and np.isfinite(activations[logits[0]])
    if not known:
        return np.full(len(nodes), np.nan), {}
    biases = nodes["bias"].fillna(0).to_numpy(float) if "bias" in nodes else np.zeros(len(nodes))
    layers, activations = nodes["layer"].to_numpy(int), np.nan_to_num(activations)
    effects, _ = scoring.contributions(adjacency, layers, activations, biases, logits[0])
    return effects, scoring.conditioning(effects, kinds, logits[0])


def plain_label(kind: str, layer: int, feature: int, token: str) -> str:
    """What a node is called before it has a label of its own."""
    names = {"feature": f"feature {layer}/{feature}", "error": f"error, layer {layer}", scoring.LEFT_OUT: "left out"}
    return names.get(kind, token)
