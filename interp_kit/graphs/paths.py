"""The strongest paths of a graph from each token to a logit, by label where several features mean the same."""

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd

from ..formats.graph_tables import node_rows
from .influence import shares

if TYPE_CHECKING:  # the graph offers these paths as a method
    from .graph import AttributionGraph

COLUMNS = ["token", "position", "strength", "sign", "steps", "nodes"]


def strongest_paths(graph: "AttributionGraph", logit: str, k: int, by_label: bool) -> pd.DataFrame:
    """See `AttributionGraph.paths`; `logit` is an id."""
    steps = Steps.of(graph, by_label)
    step_of = {node: step for step, ids in enumerate(steps.members) for node in ids}
    tokens = [(token, step_of[token.id]) for token in node_rows(graph.embeddings)]
    ways = _shortest(_network(steps), [step for _, step in tokens], step_of[logit], k)
    rows = []
    for token, step in tokens:
        for path in ways[step]:
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


def _network(steps: Steps) -> nx.DiGraph:
    """A short way is a strong path. A token's direct edge to a logit is left out."""
    kinds = np.array(steps.kinds)
    edges = steps.share > 0
    edges &= (kinds != "logit")[:, None] | (kinds != "embedding")
    np.fill_diagonal(edges, False)
    target, source = edges.nonzero()
    cost = -np.log(np.minimum(steps.share[target, source], 1))
    network = nx.DiGraph()
    network.add_nodes_from(range(len(steps.names)))
    network.add_weighted_edges_from(zip(source.tolist(), target.tolist(), cost.tolist(), strict=True), weight="cost")
    return network


def _shortest(network: nx.DiGraph, starts: list[int], end: int, k: int) -> dict[int, list[list[int]]]:
    """By start, its k shortest ways to `end`; there may be fewer, or none."""
    if k == 1:  # one search from the end finds all
        found = nx.single_source_dijkstra_path(network.reverse(copy=False), end, weight="cost")
        return {start: [found[start][::-1]] if start in found else [] for start in starts}
    ways: dict[int, list[list[int]]] = {start: [] for start in starts}
    for start in starts:
        with suppress(nx.NetworkXNoPath):
            ways[start].extend(islice(nx.shortest_simple_paths(network, start, end, weight="cost"), k))
    return ways
