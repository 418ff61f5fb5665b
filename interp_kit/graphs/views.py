"""What is drawn of a graph: the plain data of a view, and a part small enough to look at."""

from typing import TYPE_CHECKING

from ..formats.graph_tables import Card

if TYPE_CHECKING:  # the graph offers these as methods
    from ..widgets.graph_data import GraphData, GraphNode
    from .graph import AttributionGraph

MAX_DRAWN_NODES = 300  # features and errors


def view_data(graph: "AttributionGraph") -> "GraphData":
    """See `AttributionGraph.view_data`."""
    target, source = graph.adjacency.nonzero()
    weights = graph.adjacency[target, source].tolist()
    known = [] if graph.stability is None else [graph.stability[target, source].tolist()]
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
