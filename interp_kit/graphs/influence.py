"""Influence, pruning and scores, by the public definitions (circuit-tracer's graph.py; Ameisen et al. 2025).

All take numpy arrays: `adjacency` [target, source], `weights` [node], the logits' probabilities at the logit
nodes and 0 elsewhere.
"""

import numpy as np

MAX_PATH_LENGTH = 1000  # a path has at most one node a layer and side, so the sum ends long before


def shares(adjacency: np.ndarray) -> np.ndarray:
    """Each target's absolute inputs as shares that add up to one; rows without inputs stay zero."""
    size = np.abs(adjacency)
    size /= np.maximum(size.sum(1, keepdims=True), 1e-10)
    return size


def influence(share: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How much each node feeds the logits over all paths: w S + w S^2 + ..., S the shares. [node]

    Raises ValueError for a graph with a loop: the sum has no end.
    """
    total, step = np.zeros_like(weights), weights
    for _ in range(MAX_PATH_LENGTH):
        step = (step.astype(share.dtype) @ share).astype(weights.dtype)
        if not step.any():
            return total
        total = total + step
    raise ValueError("the adjacency has a loop: the influence of its nodes does not add up")


def influence_so_far(edges: np.ndarray, features: np.ndarray, layers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The influence of all sources [source] while only some rows are known. An unknown row passes nothing on.

    edges [row, source]: the logits' rows, then those of features. features [feature] says which source each of them is,
    and layers [feature] where it lies. weights [logit]: their probabilities. The sum over all paths takes one pass from
    the last layer down, with one layer's rows in memory at a time.
    """
    total, k = np.zeros(edges.shape[1], edges.dtype), len(weights)
    total += weights.astype(edges.dtype) @ shares(edges[:k])
    for layer in np.unique(layers)[::-1]:
        here = np.flatnonzero(layers == layer)
        total += total[features[here]] @ shares(edges[k + here])
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


def scores(share: np.ndarray, kinds: np.ndarray, weights: np.ndarray, total: np.ndarray) -> dict[str, float]:
    """How much of the graph is explained; `total` is the influence of each node.

    replacement: the share of influence at the inputs that comes from tokens rather than from errors. completeness: the
    influence-weighted share of nodes' inputs that are not errors; the public figure counts errors and embeddings, which
    have no inputs, as fully explained. completeness_of_inputs leaves them out.
    """
    from_tokens, from_errors = total[kinds == "embedding"].sum(), total[kinds == "error"].sum()
    explained = 1 - share[:, kinds == "error"].sum(1)
    output = total + weights
    has_inputs = (kinds == "feature") | (kinds == "logit")
    return {
        "replacement": float(from_tokens / max(from_tokens + from_errors, 1e-30)),
        "completeness": float((explained * output).sum() / output.sum()),
        "completeness_of_inputs": float((explained * output)[has_inputs].sum() / output[has_inputs].sum()),
    }


def prune(
    adjacency: np.ndarray, kinds: np.ndarray, weights: np.ndarray, node_threshold: float, edge_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes that stay [kept], ascending, and which of the edges between them do [kept target, kept source];
    embeddings and logits always stay.

    Nodes: the most influential ones that make up `node_threshold` of all influence. Edges: among those, the ones
    that make up `edge_threshold` of all edge scores (share of the target's inputs times the target's influence).
    Then nodes that lost all their outputs, and features that lost all their inputs, go, until none is left to go.
    """
    fixed = (kinds == "embedding") | (kinds == "logit")
    total = influence(shares(adjacency), weights)
    kept = np.flatnonzero(fixed | (total >= threshold_for(total, node_threshold)))
    edge_score, weights = shares(adjacency[np.ix_(kept, kept)]), weights[kept]
    edge_score *= (influence(edge_score, weights) + weights)[:, None]
    edges = edge_score >= threshold_for(edge_score, edge_threshold)
    edges &= edge_score > 0
    while True:
        stays = fixed[kept] | (edges.any(0) & ((kinds[kept] == "error") | edges.any(1)))
        if stays.all():
            return kept, edges
        kept, edges = kept[stays], edges[np.ix_(stays, stays)]
