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
    network = _network(steps)
    rows = []
    for token in node_rows(graph.embeddings):
        ways = nx.shortest_simple_paths(network, step_of[token.id], step_of[logit], weight="cost")
        with suppress(nx.NetworkXNoPath):  # there may be fewer than k ways, or none
            for path in islice(ways, k):
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
        ids, labels, rows_of = graph.nodes["id"].to_numpy(), graph.nodes["label"].to_numpy(), list(groups.values())
        belongs = np.zeros((len(groups), len(ids)))  # [step, node]
        for step, rows in enumerate(rows_of):
            belongs[step, rows] = 1
        average = belongs * (graph.nodes["influence"].to_numpy(float) + graph.logit_probabilities)
        average /= np.maximum(average.sum(1, keepdims=True), 1e-30)
        return cls(
            names=[key[1] if key[0] == "supernode" else labels[rows[0]] for key, rows in groups.items()],
            kinds=[graph.kinds[rows[0]] for rows in rows_of],
            members=[ids[rows].tolist() for rows in rows_of],
            share=average @ shares(graph.adjacency) @ belongs.T,
            weight=average @ graph.adjacency @ belongs.T,
        )


def _network(steps: Steps) -> nx.DiGraph:
    """A short way is a strong path. A token's direct edge to a logit is left out."""
    network = nx.DiGraph()
    network.add_nodes_from(range(len(steps.names)))
    for target, source in zip(*steps.share.nonzero(), strict=True):
        direct = steps.kinds[source] == "embedding" and steps.kinds[target] == "logit"
        if target != source and not direct:
            network.add_edge(int(source), int(target), cost=-math.log(min(steps.share[target, source], 1)))
    return network
