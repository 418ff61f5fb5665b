"""Influence, pruning and scores, by the public definitions (circuit-tracer's graph.py; Ameisen et al. 2025).

All take numpy arrays: `adjacency` [target, source]; `layers` [node], where each node lies; `weights` [node], the
logits' probabilities at the logit nodes and 0 elsewhere.
"""

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np

LEFT_OUT = "left_out"  # the kind of the one node that stands for all features that a capped graph does not have
UNEXPLAINED = ("error", LEFT_OUT)
INPUTS = ("embedding", *UNEXPLAINED)
ALWAYS_KEPT = ("embedding", "logit", LEFT_OUT)
ROWS_AT_ONCE = 512  # copied from the adjacency: a copy of all would double the graph


def shares(adjacency: np.ndarray) -> np.ndarray:
    """Each target's absolute inputs as shares that add up to one; rows without inputs stay zero."""
    size = np.abs(adjacency)
    size /= np.maximum(size.sum(1, keepdims=True), 1e-10)
    return size


def influence(adjacency: np.ndarray, layers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How much each node feeds the logits over all paths: w S + w S^2 + ..., S the shares. [node]

    What a node passes on is known once all nodes above it are done. So the sum over all paths takes one pass from the
    last layer down, with the shares of one layer's rows in memory at a time.

    Raises ValueError for a graph with a loop: the sum has no end.
    """
    total = np.zeros_like(weights)
    for rows in from_the_top(adjacency, layers):
        passed_on = (total + weights)[rows].astype(adjacency.dtype)
        total += passed_on @ shares(adjacency[rows])
    return total


def contributions(
    adjacency: np.ndarray, layers: np.ndarray, activations: np.ndarray, biases: np.ndarray, target: int
) -> tuple[np.ndarray, float]:
    """The signed effect of each node on the node `target` over all paths [node], and what all biases make up of it.

    activations, biases [node]. A feature passes on what arrives at it in proportion: half of its activation is half of
    its effect. So the effects of tokens, errors and what was left out, and the biases', add up to the target's value.

    Raises ValueError for a graph with a loop.
    """
    total = np.zeros(len(adjacency))
    total[target] = activations[target]
    passed_on = np.divide(1.0, activations, where=activations != 0, out=np.zeros(len(adjacency)))
    from_biases = 0.0
    for rows in from_the_top(adjacency, layers):
        rows = rows[total[rows] != 0]
        share = total[rows] * passed_on[rows]
        total += share @ adjacency[rows].astype(float)
        from_biases += float(share @ biases[rows])
    return total, from_biases


def effects_by_hops(adjacency: np.ndarray, activations: np.ndarray, target: int) -> Iterator[np.ndarray]:
    """The signed effect of each node on the node `target` over paths of one edge, of two, and so on: [node] each.
    Together they are `contributions`. Ends after as many as there are nodes where a file has a loop."""
    passed_on = np.divide(1.0, activations, where=activations != 0, out=np.zeros(len(adjacency)))
    effects = adjacency[target].astype(float)
    for _ in range(len(adjacency)):
        if not effects.any():
            return
        yield effects
        share, effects = effects * passed_on, np.zeros(len(adjacency))
        pushing = np.flatnonzero(share)
        for rows in np.array_split(pushing, 1 + len(pushing) // ROWS_AT_ONCE):
            effects += share[rows].astype(adjacency.dtype) @ adjacency[rows]


def conditioning(effects: np.ndarray, kinds: np.ndarray, target: int) -> dict[str, float]:
    """How far the inputs' effects (see `contributions`) cancel: `absolute`, the sum of the absolute effects of tokens,
    errors and what was left out; `target`, the absolute value that all effects make up; `ratio`, one over the other."""
    inputs = np.isin(kinds, INPUTS)
    absolute, value = float(np.abs(effects[inputs]).sum()), float(abs(effects[target]))
    return {"absolute": absolute, "target": value, "ratio": absolute / max(value, 1e-30)}


def from_the_top(adjacency: np.ndarray, layers: np.ndarray) -> Iterator[np.ndarray]:
    """The nodes in groups, each after all nodes that it feeds: layers, but where a file has edges within a layer or
    downwards.

    Raises ValueError for a graph with a loop.
    """
    levels = layers if _lead_upwards(adjacency, layers) else _levels(adjacency)
    for level in np.unique(levels)[::-1]:
        yield np.flatnonzero(levels == level)


def _lead_upwards(adjacency: np.ndarray, layers: np.ndarray) -> bool:
    """Whether every edge leads from a lower to a higher layer."""
    return not any(adjacency[layers == layer][:, layers >= layer].any() for layer in np.unique(layers))


def _levels(adjacency: np.ndarray) -> np.ndarray:
    """[node]: a number larger than those of its sources."""
    sources = [np.flatnonzero(row) for row in adjacency]
    levels = np.zeros(len(sources), dtype=int)
    try:
        for node in TopologicalSorter(dict(enumerate(sources))).static_order():
            levels[node] = 1 + max(levels[sources[node]], default=0)
    except CycleError:
        raise ValueError("the adjacency has a loop: the influence of its nodes does not add up") from None
    return levels


def influence_so_far(start: np.ndarray, blocks: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """The influence of all sources [source] while only some rows are known. An unknown row passes nothing on.

    start [source]: what of it goes straight to the logits. blocks: the rows of features in several parts, each of edges
    [row, source], which may end where only zeros follow; features [row], which source each is; and layers [row], where
    it lies. The sum over all paths takes one pass from the last layer down.
    """
    total = start.copy()
    for layer in np.unique(np.concatenate([np.zeros(0), *(layers for *_, layers in blocks)]))[::-1]:
        for edges, features, layers in blocks:
            here = np.flatnonzero(layers == layer)
            total[: edges.shape[1]] += total[features[here]] @ shares(edges[here])
    return total


def cumulative_share(values: np.ndarray) -> np.ndarray:
    """For each value the share of the total that it and all larger ones make up: small means important."""
    order = np.argsort(-values, kind="stable")
    out = np.empty_like(values, dtype=float)
    out[order] = np.cumsum(values[order]) / max(values.sum(), 1e-30)
    return out


def threshold_for(values: np.ndarray, share: float) -> float:
    """The smallest value still needed so that those at least as large make up `share` of the total; 0 without any.

    Values of 0, which most edges have, are left out first: sorted copies of all would take twice the graph's memory.
    """
    ordered = values[values > 0]
    if not len(ordered):
        return 0.0
    ordered.sort()
    total = np.cumsum(ordered[::-1])
    return ordered[::-1][min(np.searchsorted(total, share * total[-1]), len(ordered) - 1)]


def scores(adjacency: np.ndarray, kinds: np.ndarray, weights: np.ndarray, total: np.ndarray) -> dict[str, float]:
    """How much of the graph is explained; `total` is the influence of each node.

    replacement: the share of influence at the inputs that comes from tokens, rather than from errors or from features
    that were left out. completeness: the influence-weighted share of nodes' inputs that are explained, which is neither
    errors nor left out; the public figure counts errors and embeddings, which have no inputs, as fully explained.
    completeness_of_inputs leaves them out. left_out: the share of influence at the inputs that comes from features that
    were left out; only where there are any.
    """
    ends = {kind: total[kinds == kind].sum() for kind in ("embedding", "error", LEFT_OUT)}
    output, unexplained = total + weights, np.isin(kinds, UNEXPLAINED)
    has_inputs = (kinds == "feature") | (kinds == "logit")
    explained = np.ones(len(kinds))
    targets = np.flatnonzero(has_inputs)
    for some in np.array_split(targets, 1 + len(targets) // ROWS_AT_ONCE):
        explained[some] -= shares(adjacency[some])[:, unexplained].sum(1)
    found = {
        "replacement": ends["embedding"] / max(sum(ends.values()), 1e-30),
        "completeness": (explained * output).sum() / output.sum(),
        "completeness_of_inputs": (explained * output)[has_inputs].sum() / output[has_inputs].sum(),
    }
    if LEFT_OUT in kinds:
        found["left_out"] = ends[LEFT_OUT] / max(sum(ends.values()), 1e-30)
    return {name: float(value) for name, value in found.items()}


def keep_nodes(total: np.ndarray, kinds: np.ndarray, node_threshold: float, max_nodes: int | None = None) -> np.ndarray:
    """The nodes that stay [kept], ascending: the most influential ones that make up `node_threshold` of all influence
    `total` [node], of features and errors at most `max_nodes`; embeddings and logits always, and what was left out."""
    fixed = np.isin(kinds, ALWAYS_KEPT)
    chosen = ~fixed & (total >= threshold_for(total, node_threshold))
    if max_nodes is not None:
        strongest = np.flatnonzero(chosen)
        strongest = strongest[np.argsort(-total[strongest], kind="stable")]
        chosen[strongest[max_nodes:]] = False
    return np.flatnonzero(fixed | chosen)


def prune(
    adjacency: np.ndarray, kinds: np.ndarray, layers: np.ndarray, weights: np.ndarray, edge_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of a graph of nodes that stay (`keep_nodes`), the ones that still do when only the edges that matter are left
    [kept], ascending; and which of the edges between them do [kept target, kept source].

    Edges: the ones that make up `edge_threshold` of all edge scores. Then nodes that lost all their outputs, and
    features that lost all their inputs, go, until none is left to go.
    """
    return keep_edges(edge_scores(adjacency, layers, weights), kinds, edge_threshold)


def edge_scores(adjacency: np.ndarray, layers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[target, source]: the share of the target's inputs times the target's influence."""
    reach = influence(adjacency, layers, weights) + weights
    found = shares(adjacency)
    found *= reach[:, None].astype(adjacency.dtype)
    return found


def keep_edges(edge_score: np.ndarray, kinds: np.ndarray, edge_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """See `prune`."""
    fixed, starts = np.isin(kinds, ALWAYS_KEPT), np.isin(kinds, UNEXPLAINED)
    edges = edge_score >= threshold_for(edge_score, edge_threshold)
    edges &= edge_score > 0
    kept = np.arange(len(kinds))
    while True:
        stays = fixed[kept] | (edges.any(0) & (starts[kept] | edges.any(1)))
        if stays.all():
            return kept, edges
        kept, edges = kept[stays], edges[np.ix_(stays, stays)]
