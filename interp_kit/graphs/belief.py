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
# |log2 (direct / over all paths)|: where the first two rows end; the third is all beyond, the last of the other sign.
OCTAVES = (0.1, 1.0)
CONFIRMED = (
    (0.41, 0.52, 0.67, 0.77, 0.92),
    (0.31, 0.34, 0.43, 0.68, 0.92),
    (0.18, 0.21, 0.35, 0.52, 0.94),
    (0.16, 0.15, 0.17, 0.32, 0.32),  # the last one: no such edge came up; as that before it
)
BYTES_AN_EDGE = 16  # the result, and of features and logits three matrices


def belief(graph: "AttributionGraph") -> np.ndarray:
    """[target, source]: the part of such edges that interventions confirm; 0 without an edge. Edges from tokens, errors
    and what was left out, which are not switched off, are judged by their share and as if nothing led around them; so
    is every edge where a file lacks activations."""
    adjacency, n = graph.adjacency, len(graph.nodes)
    check_memory(n * n * BYTES_AN_EDGE, f"the belief in the edges of a graph of {n:,} nodes", "Use graph.prune()")
    among = np.flatnonzero(np.isin(graph.kinds, ("feature", "logit")))
    known = np.isfinite(graph.features["activation"].to_numpy(float)).all()  # a file may lack them
    everywhere = over_all_paths(graph, among) if known else adjacency[np.ix_(among, among)]
    table, found = np.array(CONFIRMED, np.float32), np.zeros(adjacency.shape, np.float32)
    for rows in np.array_split(np.arange(len(among)), 1 + len(among) // scoring.ROWS_AT_ONCE):  # others have no inputs
        edges = adjacency[among[rows]]
        around = np.zeros(edges.shape, int)
        around[:, among] = disagreement(edges[:, among], everywhere[rows])
        found[among[rows]] = np.where(edges != 0, table[around, np.digitize(scoring.shares(edges), SHARES)], 0)
    return found


def disagreement(edges: np.ndarray, everywhere: np.ndarray) -> np.ndarray:
    """[target, source], of the table CONFIRMED its row, by an edge and the effect over all paths."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = edges / everywhere
        octaves = np.abs(np.log2(ratio))
    found = np.searchsorted(OCTAVES, np.nan_to_num(octaves, nan=np.inf))
    return np.where(ratio > 0, found, len(OCTAVES) + 1)


def over_all_paths(graph: "AttributionGraph", rows: np.ndarray) -> np.ndarray:
    """[target, source] of features and logits, `rows` of the graph's nodes: what a source's whole activation does to a
    target over all paths, as edges say what it does directly. In the order of layers this is the inverse of a
    triangular matrix."""
    edges, layers = graph.adjacency[np.ix_(rows, rows)], graph.layers[rows]
    order = np.concatenate(list(scoring.from_the_top(edges, layers))[::-1])
    activations = np.nan_to_num(graph.nodes["activation"].to_numpy(float))[rows][order].astype(edges.dtype)
    matrix = edges[np.ix_(order, order)]
    matrix /= np.where(activations == 0, 1, activations)
    np.negative(matrix, out=matrix)
    matrix[np.diag_indices(len(matrix))] = 1
    unit = torch.eye(len(matrix), dtype=torch.from_numpy(matrix).dtype)
    spread = torch.linalg.solve_triangular(torch.from_numpy(matrix), unit, upper=False, unitriangular=True).numpy()
    spread[np.diag_indices(len(spread))] = 0
    spread *= activations
    edges[np.ix_(order, order)] = spread
    return edges
