"""The plain data that the attribution-graph views draw, as types, and the check at the door.

`GraphView`, `graph_page` and `graph_svg` call `check_graph` on what they are given. Everything behind them trusts it.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal, TypedDict, cast, get_args, get_origin

NodeKind = Literal["embedding", "feature", "error", "left_out", "logit"]
# Source and target as indices of `nodes`, the signed weight, and where it is known how sure it is; a list is as good.
Edge = tuple[int, int, float] | tuple[int, int, float, float]


class FeatureExample(TypedDict):
    """A text on which a feature is active: a number for each token."""

    tokens: list[str]
    activations: list[float]


class GraphNode(TypedDict):
    """One node of a graph."""

    id: str  # not empty, and different from all others
    kind: NodeKind
    layer: int  # embeddings and what was left out -1, logits n_layers
    position: int  # index of `tokens`
    feature: int | None  # index in its layer
    label: str
    activation: float | None
    bias: float | None
    influence: float  # fraction of the total
    cumulative: float  # summed influence down to this node's rank; small = important
    probability: float | None  # logits only
    concept: str | None
    examples: list[FeatureExample]
    top_logits: list[str]  # tokens that it raises most
    bottom_logits: list[str]


class Supernode(TypedDict):
    """Nodes that a reader sees as one."""

    name: str
    nodes: list[str]  # ids


class GraphData(TypedDict):
    """An attribution graph as plain data: what `AttributionGraph.view_data()` returns. All numbers are Python's own."""

    title: str
    prompt: str
    tokens: list[str]  # one for each position, at least one
    n_layers: int
    scores: dict[str, float]  # may be empty
    nodes: list[GraphNode]
    edges: list[Edge]
    supernodes: list[Supernode]


NODE_KINDS = get_args(NodeKind)
SURE = 0.5  # from there on an edge is drawn solid; the same in graph_view.js
ALWAYS_SHOWN = ("embedding", "left_out", "logit")
NODE_KEYS = tuple(GraphNode.__annotations__)
GRAPH_KEYS = {key: get_origin(kind) or kind for key, kind in GraphData.__annotations__.items()}  # list[str] is a list


def check_graph(data: object) -> GraphData:
    """Returns `data`. Raises ValueError, saying what is wrong and what was expected, unless it is a `GraphData`.

    >>> check_graph({"title": "no more"})
    ValueError: graph data lacks the key 'prompt'; expected title, prompt, tokens, ...
    """
    if not isinstance(data, dict):
        raise ValueError(f"graph data must be a dict, got {type(data).__name__}")
    for key, kind in GRAPH_KEYS.items():
        if key not in data:
            raise ValueError(f"graph data lacks the key {key!r}; expected {', '.join(GRAPH_KEYS)}")
        good = isinstance(data[key], kind) and not isinstance(data[key], bool)
        _expect(good, f"data[{key!r}]", f"a {kind.__name__}", data[key])
    _expect(data["n_layers"] > 0, "data['n_layers']", "a positive int", data["n_layers"])
    _expect(len(data["tokens"]) > 0, "data['tokens']", "at least one token", data["tokens"])
    _expect_strings(data["tokens"], "data['tokens']")
    for name, value in data["scores"].items():
        _expect_number(value, f"data['scores'][{name!r}]")
    for i, node in enumerate(data["nodes"]):
        _check_node(node, f"data['nodes'][{i}]", data["n_layers"], len(data["tokens"]))
    ids = [node["id"] for node in data["nodes"]]
    repeated = {name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else ()
    _expect(not repeated, "node ids", "all different", sorted(repeated))
    for i, edge in enumerate(data["edges"]):
        _check_edge(edge, f"data['edges'][{i}]", len(ids))
    check_supernodes(data["supernodes"], set(ids))
    return cast(GraphData, data)


def check_ids(names: object, ids: Collection[str], what: str) -> list[str]:
    """`names` as a list. Raises ValueError, calling them `what`, unless they are a list or tuple of some of `ids`.

    >>> check_ids(["7_1"], {"0_1"}, "pinned")
    ValueError: pinned names nodes that the graph does not have: ['7_1']
    """
    names = _expect_strings(names, what)
    if unknown := [name for name in names if name not in ids]:
        raise ValueError(f"{what} names nodes that the graph does not have: {unknown[:5]}")
    return list(names)


def check_ends(names: object, ids: Collection[str]) -> list[str]:
    """`names` as a list. Raises ValueError unless they are the two ends of an edge, some of `ids`, or none.

    >>> check_ends(["7_1"], {"7_1"})
    ValueError: edge must be [], or the ids of its source and target, got ['7_1']
    """
    ends = check_ids(names, ids, "edge")
    _expect(len(ends) in (0, 2), "edge", "[], or the ids of its source and target", ends)
    return ends


def check_supernodes(supernodes: object, ids: Collection[str]) -> list[Supernode]:
    """`supernodes` as a list. Raises ValueError unless they are a list or tuple of `Supernode`s over `ids`.

    >>> check_supernodes([{"name": "Texas", "nodes": ["7_1"]}], {"0_1"})
    ValueError: supernodes[0]['nodes'] names nodes that the graph does not have: ['7_1']
    """
    groups = cast(list, supernodes if isinstance(supernodes, (list, tuple)) else [supernodes])
    for i, group in enumerate(groups):
        what, good = f"supernodes[{i}]", isinstance(group, dict) and set(group) == {"name", "nodes"}
        _expect(good, what, 'a dict {"name": str, "nodes": [id, ...]}', group)
        _expect(isinstance(group["name"], str), f"{what}['name']", "a str", group["name"])
        check_ids(group["nodes"], ids, f"{what}['nodes']")
    return list(groups)


def check_threshold(threshold: object) -> float:
    """`threshold` as a float. Raises ValueError unless it is a number from 0 to 1.

    >>> check_threshold(80)
    ValueError: threshold must be between 0 and 1, got 80
    """
    number = _expect_number(threshold, "threshold")
    _expect(0 <= number <= 1, "threshold", "between 0 and 1", threshold)
    return float(number)


def is_solid(edge: Edge) -> bool:
    """Whether the edge is drawn solid: it is sure by half at least, or nothing is known of that."""
    return len(edge) == 3 or edge[3] >= SURE


def shown_nodes(data: GraphData, threshold: float, kept: Collection[str] = ()) -> list[int]:
    """Indices of the nodes left at `threshold`, with those whose ids are `kept`: the same rule as in graph_view.js.

    >>> [data["nodes"][i]["label"] for i in shown_nodes(data, threshold=0.2)]
    ['The', ' capital', 'Texas', 'say Austin', ' Austin']
    """
    return [
        i
        for i, node in enumerate(data["nodes"])
        if node["kind"] in ("embedding", "left_out", "logit")
        or node["id"] in kept
        or node["cumulative"] <= threshold + 1e-9
    ]


def _check_node(node: dict, what: str, n_layers: int, n_tokens: int) -> None:
    _expect(isinstance(node, dict), what, "a dict", node)
    if missing := [key for key in NODE_KEYS if key not in node]:
        raise ValueError(f"{what} lacks {', '.join(map(repr, missing))}; a node has {', '.join(NODE_KEYS)}")
    _expect(node["kind"] in NODE_KINDS, f"{what}['kind']", f"one of {', '.join(NODE_KINDS)}", node["kind"])
    _expect(isinstance(node["id"], str) and node["id"], f"{what}['id']", "a non-empty str", node["id"])
    _expect(isinstance(node["label"], str), f"{what}['label']", "a str", node["label"])
    _expect(isinstance(node["concept"], str | None), f"{what}['concept']", "a str or None", node["concept"])
    _check_place(node, what, n_layers, n_tokens)
    for key in ("influence", "cumulative"):
        _expect_number(node[key], f"{what}[{key!r}]")
    for key in ("activation", "bias", "probability"):
        if node[key] is not None:
            _expect_number(node[key], f"{what}[{key!r}]")
    for key in ("top_logits", "bottom_logits"):
        _expect_strings(node[key], f"{what}[{key!r}]")
    _expect(isinstance(node["examples"], list), f"{what}['examples']", "a list", node["examples"])
    for k, example in enumerate(node["examples"]):
        _check_example(example, f"{what}['examples'][{k}]")


def _check_place(node: dict, what: str, n_layers: int, n_tokens: int) -> None:
    places = {"embedding": (-1, -1), "left_out": (-1, -1), "logit": (n_layers, n_layers)}
    low, high = places.get(node["kind"], (0, n_layers - 1))
    expected = f"{low}" if low == high else f"an int from {low} to {high} for a {node['kind']}"
    _expect(_is_index(node["layer"], low, high), f"{what}['layer']", expected, node["layer"])
    expected = f"an int from 0 to {n_tokens - 1} (one per token)"
    _expect(_is_index(node["position"], 0, n_tokens - 1), f"{what}['position']", expected, node["position"])
    feature = node["feature"]
    _expect(feature is None or _is_index(feature, -math.inf, math.inf), f"{what}['feature']", "an int or None", feature)


def _check_example(example: dict, what: str) -> None:
    good = isinstance(example, dict) and {"tokens", "activations"} <= set(example)
    _expect(good, what, 'a dict {"tokens": [str], "activations": [float]}', example)
    tokens, activations = _expect_strings(example["tokens"], f"{what}['tokens']"), example["activations"]
    good = isinstance(activations, list) and len(activations) == len(tokens) > 0
    expected = f"a list of {len(tokens)} floats, one per token, at least one"
    _expect(good, f"{what}['activations']", expected, activations)
    for value in activations:
        _expect_number(value, f"{what}['activations']")


def _check_edge(edge: Sequence, what: str, n_nodes: int) -> None:
    good = isinstance(edge, (list, tuple)) and len(edge) in (3, 4)
    _expect(good, what, "[source, target, weight] or [source, target, weight, how sure]", edge)
    for end in edge[:2]:
        _expect(_is_index(end, 0, n_nodes - 1), what, f"node indices from 0 to {n_nodes - 1}", edge)
    _expect_number(edge[2], what)
    if len(edge) == 4:
        sure = 0 <= _expect_number(edge[3], what) <= 1
        _expect(sure, what, "a fourth number from 0 to 1, how sure the edge is", edge)


def _is_index(value: object, low: float, high: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _expect(good: object, what: str, expected: str, got: object) -> None:
    if not good:
        raise ValueError(f"{what} must be {expected}, got {_short(got)}")


def _expect_number(value: object, what: str) -> float:
    # plain numbers only: numpy scalars and NaN would fail later, inside the browser's JSON
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"{what} must be a finite Python number, got {_short(value)}")


def _expect_strings(values: object, what: str) -> list[str]:
    good = isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)
    _expect(good, what, "a list of str", values)
    return cast(list[str], values)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
