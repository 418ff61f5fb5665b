"""Which edges to believe: how often do interventions confirm an edge that looks like this one?

Two things tell, and both are in the graph. The share that the edge has of its target's inputs. And whether the direct
effect is what the graph predicts for the pair over all its paths, or whether long ways double, undo or turn it: where
they do, the prediction hangs on chains. How stable an edge is (`consensus.py`) tells how much the picture hangs on a
threshold, and little about this.

CONFIRMED is measured (`benchmarks/belief.py tune`): of the edges of such a share and such ways around them, the part
whose target moves the right way, half to twice as much as predicted, when the source is switched off. Mean of pocket
(60 training questions) and SmolLM2 (20 prompts), which are not those that the benchmark grades it on.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..hardware import check_memory
from . import influence as scoring

if TYPE_CHECKING:  # the graph offers this as a method
    from .graph import AttributionGraph

SHARES = (0.01, 0.03, 0.1, 0.2)  # of the target's absolute inputs: where the columns of the table end
OCTAVES = (
    0.1,
    1.0,
    3.0,
)  # |log2 (direct / over all paths)|: where its rows end; the last row: the two disagree in sign
CONFIRMED = (
    (0.41, 0.52, 0.67, 0.77, 0.92),
    (0.31, 0.34, 0.43, 0.68, 0.92),
    (0.18, 0.21, 0.35, 0.52, 0.94),
    (0.16, 0.15, 0.17, 0.32, 0.32),  # the last one: no such edge came up; as that before it
)
BYTES_AN_EDGE = 36  # of a feature or logit on another: two matrices in float64, what is sorted out of them


def belief(graph: "AttributionGraph") -> np.ndarray:
    """[target, source]: the part of such edges that interventions confirm; 0 without an edge. Edges from tokens, errors
    and what was left out, which are not switched off, are judged by their share and as if nothing led around them."""
    n = len(graph.nodes)
    check_memory(n * n * BYTES_AN_EDGE, f"the belief in the edges of a graph of {n:,} nodes", "Use graph.prune()")
    column = np.digitize(scoring.shares(graph.adjacency), SHARES).astype(np.int8)
    row = np.zeros(graph.adjacency.shape, np.int8)
    among = np.flatnonzero(np.isin(graph.kinds, ("feature", "logit")))
    row[np.ix_(among, among)] = disagreement(graph, among)
    found = np.array(CONFIRMED, np.float32)[row, column]
    found[graph.adjacency == 0] = 0
    return found


def disagreement(graph: "AttributionGraph", rows: np.ndarray) -> np.ndarray:
    """[target, source], of the table CONFIRMED its row. rows: the features and logits."""
    edges = graph.adjacency[np.ix_(rows, rows)]
    everywhere = over_all_paths(
        edges, graph.layers[rows], np.nan_to_num(graph.nodes["activation"].to_numpy(float)[rows])
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = edges / everywhere
        octaves = np.abs(np.log2(ratio))
    found = np.searchsorted(OCTAVES, np.nan_to_num(octaves, nan=np.inf)).astype(np.int8)
    return np.where(ratio > 0, np.minimum(found, len(OCTAVES) - 1), len(OCTAVES))


def over_all_paths(edges: np.ndarray, layers: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """[target, source]: what a source's whole activation does to a target over all paths, as `edges` say what it does
    directly. In the order of layers this is the inverse of a triangular matrix."""
    order = np.concatenate(list(scoring.from_the_top(edges, layers))[::-1])
    step = edges[np.ix_(order, order)] / np.where(activations[order] == 0, 1, activations[order])
    matrix = torch.from_numpy(np.eye(len(step)) - step)
    spread = torch.linalg.solve_triangular(matrix, torch.eye(len(step), dtype=matrix.dtype), upper=False).numpy()
    found = np.empty_like(spread)
    found[np.ix_(order, order)] = (spread - np.eye(len(step))) * activations[order]
    return found
