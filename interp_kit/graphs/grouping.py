"""Automatic supernodes: features that draw on the same, feed the same, write the same and are called the same."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..formats.graph_tables import NodeRow, node_rows
from ..formats.provenance import check_belongs
from ..transcoders import CrossLayerTranscoder
from . import influence as scoring

if TYPE_CHECKING:  # the graph offers this as a method
    from .graph import AttributionGraph

ALIKE = 0.5  # the mean likeness from which two groups are one; chosen on pocket's training questions


def automatic_groups(graph: "AttributionGraph", transcoder: CrossLayerTranscoder | None) -> dict[str, list[str]]:
    """Groups of at least two features at one position, by name; see `AttributionGraph.group`."""
    if transcoder is not None:
        check_belongs(graph, "graph", transcoder, "transcoder", keys=["transcoder"])
    features, found = list(node_rows(graph.features)), []
    rows, positions = graph.features.index.to_numpy(), graph.features["position"].to_numpy()
    for position in np.unique(positions):
        here = np.flatnonzero(positions == position)
        nodes = [features[i] for i in here]
        for members in merge(likeness(graph.adjacency, rows[here], nodes, transcoder), ALIKE):
            found.append([nodes[i] for i in members])
    influence = dict(zip(graph.nodes["id"], graph.nodes["influence"]))
    groups = [sorted(group, key=lambda n: -influence[n.id]) for group in found if len(group) > 1]
    groups.sort(key=lambda group: -sum(influence[n.id] for n in group))
    return dict(zip(_names(groups), ([n.id for n in group] for group in groups)))


def likeness(
    adjacency: np.ndarray, rows: np.ndarray, nodes: Sequence[NodeRow], transcoder: CrossLayerTranscoder | None
) -> np.ndarray:
    """How alike features are, from -1 to 1 [feature, feature]: the mean of the cosines of what they feed and of what
    they draw on, of the cosine of what they write (with a transcoder), and of the share of words that their labels have
    in common (where they have labels). rows: where they are in the adjacency [target, source]."""
    parts = [cosines(adjacency[:, rows].T), cosines(adjacency[rows])]
    if transcoder is not None:
        parts.append(cosines(np.stack([_written(transcoder, n) for n in nodes])))
    words = [_words(n.label) for n in nodes]
    if any(words):
        parts.append(np.array([[len(a & b) / max(len(a | b), 1) for b in words] for a in words]))
    return np.mean(parts, axis=0)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Of each pair of rows; 0 with a row of zeros."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return units @ units.T


def merge(likeness: np.ndarray, least: float) -> list[list[int]]:
    """Agglomerative clustering, average linkage: the two groups that are most alike in the mean of their pairs become
    one, while that mean is at least `least`. Groups in the order of their first members."""
    groups = {i: [i] for i in range(len(likeness))}
    alike, sizes = likeness.astype(float).copy(), np.ones(len(likeness))
    np.fill_diagonal(alike, -np.inf)
    while len(groups) > 1:
        a, b = sorted(np.unravel_index(alike.argmax(), alike.shape))
        if alike[a, b] < least:
            break
        mean = (alike[a] * sizes[a] + alike[b] * sizes[b]) / (sizes[a] + sizes[b])
        alike[a], alike[:, a], alike[a, a] = mean, mean, -np.inf
        alike[b], alike[:, b] = -np.inf, -np.inf
        sizes[a] += sizes[b]
        groups[int(a)] += groups.pop(int(b))
    return [sorted(members) for members in groups.values()]


def grouped_scores(graph: "AttributionGraph") -> dict[str, float]:
    """See `AttributionGraph.grouped_scores`."""
    members = {node for ids in graph.supernodes.values() for node in ids}
    outside = (graph.kinds == "feature") & ~graph.nodes["id"].isin(members).to_numpy()
    adjacency = np.where(outside[:, None], 0, graph.adjacency)
    kinds, weights = np.where(outside, scoring.LEFT_OUT, graph.kinds), graph.logit_probabilities
    return scoring.scores(adjacency, kinds, weights, scoring.influence(adjacency, graph.layers, weights))


def _written(transcoder: CrossLayerTranscoder, node: NodeRow) -> np.ndarray:
    """What a feature writes to all layers, side by side [layer d_model]."""
    found = np.zeros((len(transcoder.layers), transcoder.config.d_model), np.float32)
    source = transcoder.layers.index(node.layer)
    for target in range(source, source + transcoder.n_targets(source)):
        found[target] = transcoder.decoder_rows(source, torch.tensor([node.feature]), target)[0].float().numpy()
    return found.ravel()


def _words(label: str) -> set[str]:
    """Of a label such as "Dallas / Texas" or "say Austin"; none of "feature 3/12", which is no label."""
    if re.fullmatch(r"feature \d+/\d+", label):
        return set()
    return {word for part in re.split(r"[/…:,]", label) if (word := part.strip())}


def _names(groups: list[list[NodeRow]]) -> list[str]:
    """After the most influential member; where two groups would have one name, with its layer, its token, a number."""
    names: list[str] = []
    for n in (group[0] for group in groups):
        label = n.label.strip()
        tries = [label, f"{label}, L{n.layer}", f"{label}, L{n.layer}, {n.token.strip()}"]
        tries += [f"{tries[-1]} {number}" for number in range(2, len(groups) + 2)]
        names.append(next(name for name in tries if name not in names))
    return names
