"""The strongest paths of a graph from each token to a logit, by label where several features mean the same."""

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..formats.graph_tables import node_rows
from .influence import shares

if TYPE_CHECKING:  # the graph offers these paths as a method
    from .graph import AttributionGraph

# Edges from a token to the output. `benchmarks/chains.py`: what is predicted over one edge from a feature, or two,
# agrees with interventions (Spearman .5 or better on both models); over three or more, on a real model, it does not.
LONGEST = 3
COLUMNS = ["token", "position", "strength", "sign", "steps", "nodes"]


def strongest_paths(graph: "AttributionGraph", logit: str, k: int, by_label: bool, longest: int | None) -> pd.DataFrame:
    """See `AttributionGraph.paths`; `logit` is an id."""
    steps = Steps.of(graph, by_label)
    step_of = {node: step for step, ids in enumerate(steps.members) for node in ids}
    tokens = [(token, step_of[token.id]) for token in node_rows(graph.embeddings)]
    end, costs = step_of[logit], _costs(steps)
    longest = len(costs) if longest is None else longest
    left = _left_to_go(costs, end, longest)
    rows = []
    for token, step in tokens:
        for path in _cheapest(costs, left, step, end, k, longest):
            edges = [(target, source) for source, target in pairwise(path)]
            strength = math.prod(steps.share[edge] for edge in edges)
            sign = math.prod(int(np.sign(steps.weight[edge])) for edge in edges)
            names = " → ".join(steps.names[step].strip() for step in path)
            members = [steps.members[step] for step in path]
            rows.append((token.token, token.position, strength, sign, names, members))
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("strength", ascending=False, ignore_index=True)


@dataclass
class Steps:
    """Groups of nodes that count as one step of a path: a supernode, the features of one label at one position, or a
    node alone.

    A step's share of another's inputs, and its weight on it, [target step, source step], are averages over the target's
    members, each counting as much as it influences the logits.
    """

    names: list[str]
    kinds: list[str]
    members: list[list[str]]  # ids
    share: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, graph: "AttributionGraph", by_label: bool) -> "Steps":
        """All steps of the graph, in the order of their first members; features are grouped if `by_label`."""
        supernode_of = {node: name for name, ids in graph.supernodes.items() for node in ids}
        groups: dict[tuple[str, str, int | None], list[int]] = {}  # rows of the table of nodes
        for row, node in enumerate(node_rows(graph.nodes)):
            if node.id in supernode_of:
                key = "supernode", supernode_of[node.id], None
            elif by_label and node.kind == "feature":
                key = "label", node.label, node.position
            else:
                key = "node", node.id, None
            groups.setdefault(key, []).append(row)
        ids, labels, kinds = graph.nodes["id"].to_numpy(), graph.nodes["label"].to_numpy(), graph.kinds
        rows_of = list(groups.values())
        order, starts = np.concatenate(rows_of), np.cumsum([0, *map(len, rows_of)])[:-1]
        counts = graph.nodes["influence"].to_numpy(float) + graph.logit_probabilities
        sums = np.add.reduceat(counts[order], starts)
        counts[order] /= np.maximum(sums, 1e-30).repeat([len(rows) for rows in rows_of])

        def between(edges: np.ndarray) -> np.ndarray:
            """From [target, source] to averages over the targets and sums over the sources of each step."""
            of_targets = edges[order]
            of_targets *= counts[order, None].astype(edges.dtype)
            return np.add.reduceat(np.add.reduceat(of_targets, starts, axis=0)[:, order], starts, axis=1)

        return cls(
            names=[key[1] if key[0] == "supernode" else labels[rows[0]] for key, rows in groups.items()],
            kinds=[kinds[rows[0]] for rows in rows_of],
            members=[ids[rows].tolist() for rows in rows_of],
            share=between(shares(graph.adjacency)),
            weight=between(graph.adjacency),
        )


def _costs(steps: Steps) -> np.ndarray:
    """[target step, source step]: a cheap way is a strong path; infinite without an edge. A token's direct edge to a
    logit is left out."""
    kinds = np.array(steps.kinds)
    share = np.where((kinds == "logit")[:, None] & (kinds == "embedding"), 0, np.minimum(steps.share, 1))
    np.fill_diagonal(share, 0)
    with np.errstate(divide="ignore"):
        return -np.log(share)


def _left_to_go(costs: np.ndarray, end: int, longest: int) -> np.ndarray:
    """[edges, step]: what the cheapest way to `end` costs that has at most so many edges. More rows would be alike."""
    left = [np.where(np.arange(len(costs)) == end, 0.0, np.inf)]
    while len(left) <= longest:
        nearer = np.minimum(left[-1], (costs + left[-1][:, None]).min(0))
        if (nearer == left[-1]).all():
            break
        left.append(nearer)
    return np.stack(left)


def _cheapest(costs: np.ndarray, left: np.ndarray, start: int, end: int, k: int, longest: int) -> list[list[int]]:
    """The k cheapest ways from `start` to `end` of at most `longest` edges; there may be fewer, or none.

    Best first: the way begun goes on whose cost so far, with what is left at least, is least.
    """
    found: list[list[int]] = []
    begun = [(left[-1, start], 0.0, [start])]
    while begun and len(found) < k:
        at_least, so_far, way = heappop(begun)
        edges_left = longest - (len(way) - 1)
        if way[-1] == end:
            found.append(way)
        elif at_least < np.inf and edges_left:
            onwards = so_far + costs[:, way[-1]]
            at_least = onwards + left[min(edges_left, len(left)) - 1]
            for step in np.flatnonzero(at_least < np.inf).tolist():
                if step not in way:
                    heappush(begun, (at_least[step], onwards[step], [*way, step]))
    return found
