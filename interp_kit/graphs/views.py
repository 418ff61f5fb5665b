"""What is drawn of a graph: the plain data of a view, and a part small enough to look at."""

from typing import TYPE_CHECKING

import numpy as np

from ..formats.graph_tables import Card

if TYPE_CHECKING:  # the graph offers these as methods
    from ..widgets.graph_data import GraphData, GraphNode
    from .graph import AttributionGraph

MAX_DRAWN_NODES = 300  # features and errors
MAX_BOXES, LARGE = 25, 400  # boxes in the picture of a graph with more features than this
COUNTED = ("feature", "error")  # what a box may stand for


def picture_data(graph: "AttributionGraph", boxes: bool | None) -> "GraphData":
    """What `AttributionGraph.show` and `to_html` draw."""
    drawn = drawable(graph)
    return boxes_data(drawn) if (len(graph.features) > LARGE if boxes is None else boxes) else view_data(drawn)


def boxes_data(graph: "AttributionGraph") -> "GraphData":
    """The plain data of a smaller picture: a box for each supernode, feature and error, at most 25, the most
    influential ones; and tokens and logits. Without supernodes, features are grouped automatically. An edge is the sum
    of those between the members; a box stands where its most influential member does, and shows that member's card."""
    graph = graph if graph.supernodes else graph.group("auto")
    data, name_of = view_data(graph), {i: name for name, ids in graph.supernodes.items() for i in ids}
    groups: dict[str, list[int]] = {}
    for i, node in enumerate(data["nodes"]):
        groups.setdefault(name_of.get(node["id"], node["id"]), []).append(i)
    nodes = [_box(name, [data["nodes"][i] for i in members]) for name, members in groups.items()]
    boxes = sorted((n for n in nodes if n["kind"] in COUNTED), key=lambda n: -n["influence"])
    drawn = {n["id"] for n in boxes[:MAX_BOXES]}
    stays = [k for k, n in enumerate(nodes) if n["kind"] not in COUNTED or n["id"] in drawn]
    members = np.zeros((len(stays), len(data["nodes"])), graph.adjacency.dtype)
    for row, (_, some) in enumerate(list(groups.items())[k] for k in stays):
        members[row, some] = 1
    weights = members @ graph.adjacency @ members.T
    np.fill_diagonal(weights, 0)
    target, source = weights.nonzero()
    ends = [source.tolist(), target.tolist(), weights[target, source].tolist()]
    if (sure := surety(graph)) is not None:  # of its members' edges, each counting as much as it weighs
        size = np.abs(graph.adjacency)
        mean = (members @ (size * sure) @ members.T) / np.maximum(members @ size @ members.T, 1e-30)
        ends.append(np.minimum(mean[target, source], 1).astype(float).tolist())
    return {
        **data,
        "title": f"{data['title']}: the {len(drawn)} most influential of {len(boxes)} boxes",
        "nodes": [nodes[k] for k in stays], "supernodes": [],
        "edges": list(zip(*ends, strict=True)),
    }  # fmt: skip


def _box(name: str, members: "list[GraphNode]") -> "GraphNode":
    """One node for several."""
    if len(members) == 1:
        return members[0]
    strongest = max(members, key=lambda n: n["influence"])
    return {
        **strongest,
        "id": name, "label": f"{name} ×{len(members)}", "feature": None, "activation": None, "bias": None,
        "influence": sum(n["influence"] for n in members), "cumulative": min(n["cumulative"] for n in members),
    }  # fmt: skip


def surety(graph: "AttributionGraph") -> np.ndarray | None:
    """[target, source]: how sure each edge is, where that is known: the belief in it, else its stability."""
    return graph.stability if graph.belief is None else graph.belief


def view_data(graph: "AttributionGraph") -> "GraphData":
    """See `AttributionGraph.view_data`."""
    target, source = graph.adjacency.nonzero()
    weights = graph.adjacency[target, source].tolist()
    known = [] if (sure := surety(graph)) is None else [sure[target, source].tolist()]
    edges = list(zip(source.tolist(), target.tolist(), weights, *known, strict=True))
    cards, table = graph.cards, graph.nodes.astype(object).where(graph.nodes.notna(), None)
    return {
        "title": f"Attribution graph, {graph.about.get('model', '')}",
        "prompt": graph.prompt, "tokens": graph.tokens, "n_layers": graph.n_layers,
        "scores": {name: float(value) for name, value in graph.scores.items()},
        "nodes": [_node(row, cards) for row in table.to_dict("records")],
        "edges": edges,
        "supernodes": [{"name": name, "nodes": ids} for name, ids in graph.supernodes.items()],
    }  # fmt: skip


def _node(row: dict, cards: dict[tuple[int, int], Card]) -> "GraphNode":
    card: Card = cards.get((row["layer"], row["feature"]), {}) if row["kind"] == "feature" else {}
    return {
        "id": row["id"], "kind": row["kind"],
        "layer": int(row["layer"]), "position": int(row["position"]), "feature": int(row["feature"]),
        "label": row["label"], "activation": row.get("activation"), "bias": row.get("bias"),
        "influence": float(row["influence"]), "cumulative": float(row["cumulative"]),
        "probability": row.get("probability"),
        "concept": card.get("concept"), "examples": card.get("examples", []),
        "top_logits": card.get("top_logits", []), "bottom_logits": card.get("bottom_logits", []),
    }  # fmt: skip


def drawable(graph: "AttributionGraph") -> "AttributionGraph":
    """The most influential nodes of the graph, few enough to look at, and the edges that matter between them."""
    return graph.prune(1.0, 0.98, max_nodes=MAX_DRAWN_NODES)
