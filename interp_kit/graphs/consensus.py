"""Which edges are there however the question is put? One graph pruned in many ways, and those of paraphrases beside it
(after CIRCUS, arXiv 2603.00523: the core is what all settings keep)."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..formats.provenance import check_belongs
from ..hardware import check_memory
from . import influence as scoring
from .alignment import Key, align, node_keys

if TYPE_CHECKING:  # the graph offers this as a method
    from .graph import AttributionGraph

# What is kept in each way: shares of influence and of the edge scores, loose to strict.
NODE_THRESHOLDS, EDGE_THRESHOLDS = (0.9, 0.8, 0.7, 0.6), (0.98, 0.95, 0.9)
BYTES_AN_EDGE = 12  # two counts, what is gathered, and the result
CLASSES = ("noise", "contingent", "core")


def stability(graph: "AttributionGraph", others: Iterable["AttributionGraph"]) -> np.ndarray:
    """[target, source]: the share of settings that keep each edge; see `AttributionGraph.believe`."""
    n = len(graph.nodes)
    check_memory(n * n * BYTES_AN_EDGE, f"the stability of a graph of {n:,} nodes", "Use a part: graph.prune(1.0, 1.0)")
    n_settings = len(NODE_THRESHOLDS) * len(EDGE_THRESHOLDS)
    found, tried = np.zeros((n, n), np.float32), np.zeros((n, n), np.uint16)
    for other in [graph, *others]:
        place = align(graph.tokens, other.tokens, fillers=False)
        by_label = _comparable(graph, other)
        counts, mine = _times_kept(graph, other, place, by_label)
        found += counts[np.ix_(mine, mine)]
        here = np.isin(graph.nodes["position"], [position for position in place if position is not None])
        tried[np.ix_(here, here)] += np.uint16(n_settings)
    np.divide(found, tried, out=found, where=tried > 0)
    found[graph.adjacency == 0] = 0
    return found


def _times_kept(
    graph: "AttributionGraph", other: "AttributionGraph", place: list[int | None], by_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """In how many settings the other graph has each edge [target, source], and where `graph`'s nodes are in that."""
    number: dict[Key | None, int] = {}
    mine = np.array([number.setdefault(key, len(number)) for key in node_keys(graph, by_label)])
    theirs = np.array([number.get(key, -1) for key in node_keys(other, by_label, place)])
    counts = np.zeros((len(number), len(number)), np.uint16)
    for rows, edges in _prunings(other):
        target, source = (theirs[rows[ends]] for ends in edges.nonzero())
        both = (target >= 0) & (source >= 0)
        counts[target[both], source[both]] += 1  # once, also where several features have one label
    return counts, mine


def _prunings(graph: "AttributionGraph") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each setting the nodes that `graph.prune` would keep [kept], and which of their edges [kept, kept]."""
    kinds, layers, weights = graph.kinds, graph.layers, graph.logit_probabilities
    total = scoring.influence(graph.adjacency, layers, weights)
    for node_threshold in NODE_THRESHOLDS:
        stay = scoring.keep_nodes(total, kinds, node_threshold)
        scores = scoring.edge_scores(graph.adjacency[np.ix_(stay, stay)], layers[stay], weights[stay])
        for edge_threshold in EDGE_THRESHOLDS:
            kept, edges = scoring.keep_edges(scores, kinds[stay], edge_threshold)
            yield stay[kept], edges


def classes(stability: np.ndarray) -> np.ndarray:
    """ "core", "contingent" or "noise": kept in all settings, in some, in none."""
    return np.array(CLASSES)[(stability > 0).astype(int) + (stability >= 1)]


def _asked(graph: "AttributionGraph") -> dict[str, object]:
    """What a graph explains, but for its name; of a feature not the position, which differs between prompts."""
    asked = {name: value for name, value in graph.asked.items() if name != "name"}
    if feature := graph.asked.get("feature"):
        asked["feature"] = feature.rpartition("_")[0]
    return asked


def _comparable(graph: "AttributionGraph", other: "AttributionGraph") -> bool:
    """Whether features have to be compared by their labels: those of another transcoder are other features.

    Raises ValueError for what cannot be compared: another model, another question, prompts without a token in common,
    another transcoder without labels.
    """
    check_belongs(other, "graph", graph, "graph", keys=["fingerprint"])
    spoken = {token for token in graph.tokens if token.strip() in graph.prompt}  # not a beginning of the model's own
    if not spoken.intersection(other.tokens):
        raise ValueError(
            f"the prompts have no token in common, and cannot be aligned: {graph.prompt!r}, {other.prompt!r}"
        )
    asks, theirs = (set(g.logits["feature"]) for g in (graph, other))
    if _asked(graph) != _asked(other) or not asks & theirs:
        raise ValueError(
            f"the graph of {other.prompt!r} explains {other.logits['label'].iloc[0]!r}, and this one "
            f"{graph.logits['label'].iloc[0]!r}: give both the same target, ik.attribute(..., target=...)"
        )
    if other.about.get("transcoder") == graph.about.get("transcoder"):
        return False
    for one in (graph, other):
        features = one.features
        if (
            features["label"] == "feature " + features["layer"].astype(str) + "/" + features["feature"].astype(str)
        ).all():
            raise ValueError(
                "another transcoder has other features, which are compared by their labels, and a graph has none: "
                "graph.annotate(features, labels), each with its own"
            )
    return True
