"""The plain dict that the attribution-graph views draw, and the check that it is one.

{"title": str, "prompt": str,
 "tokens": [str],                    one per position
 "n_layers": int,
 "scores": {name: float},            may be empty
 "nodes": [{"id": str,
            "kind": "embedding" | "feature" | "error" | "logit",
            "layer": int,            embeddings -1, logits n_layers
            "position": int,
            "feature": int | None,   index in its layer
            "label": str,
            "activation": float | None, "bias": float | None,
            "influence": float,      fraction of the total
            "cumulative": float,     summed influence down to this node's rank; small = important
            "probability": float | None,      logits only
            "concept": str | None,
            "examples": [{"tokens": [str], "activations": [float]}],
            "top_logits": [str], "bottom_logits": [str]}],
 "edges": [[source, target, weight]],         indices into nodes, signed weight
 "supernodes": [{"name": str, "nodes": [id]}]}
"""

import math

KINDS = ("embedding", "feature", "error", "logit")
GRAPH_KEYS = {
    "title": str,
    "prompt": str,
    "tokens": list,
    "n_layers": int,
    "scores": dict,
    "nodes": list,
    "edges": list,
    "supernodes": list,
}
NODE_KEYS = (
    "id",
    "kind",
    "layer",
    "position",
    "feature",
    "label",
    "activation",
    "bias",
    "influence",
    "cumulative",
    "probability",
    "concept",
    "examples",
    "top_logits",
    "bottom_logits",
)


def check_graph(data):
    """Raise ValueError, saying what is wrong and what was expected, unless `data` is a graph as above."""
    if not isinstance(data, dict):
        raise ValueError(f"graph data must be a dict, got {type(data).__name__}")
    for key, kind in GRAPH_KEYS.items():
        if key not in data:
            raise ValueError(f"graph data lacks the key {key!r}; expected {', '.join(GRAPH_KEYS)}")
        _expect(
            isinstance(data[key], kind) and not isinstance(data[key], bool),
            f"data[{key!r}]",
            f"a {kind.__name__}",
            data[key],
        )
    _expect(data["n_layers"] > 0, "data['n_layers']", "a positive int", data["n_layers"])
    _expect(len(data["tokens"]) > 0, "data['tokens']", "at least one token", data["tokens"])
    _expect_strings(data["tokens"], "data['tokens']")
    for name, value in data["scores"].items():
        _expect_number(value, f"data['scores'][{name!r}]")
    for i, node in enumerate(data["nodes"]):
        _check_node(node, f"data['nodes'][{i}]", data)
    ids = [node["id"] for node in data["nodes"]]
    repeated = {name for name in ids if ids.count(name) > 1} if len(set(ids)) < len(ids) else ()
    _expect(not repeated, "node ids", "all different", sorted(repeated))
    for i, edge in enumerate(data["edges"]):
        _check_edge(edge, f"data['edges'][{i}]", len(ids))
    check_supernodes(data["supernodes"], ids)


def check_ids(names, ids, what):
    """Raise ValueError unless `names` is a list of ids that occur among `ids`."""
    _expect_strings(names, what)
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise ValueError(f"{what} names nodes that the graph does not have: {unknown[:5]}")


def check_supernodes(supernodes, ids):
    """Raise ValueError unless `supernodes` is a list of {"name": str, "nodes": [id, ...]} over `ids`."""
    for i, group in enumerate(supernodes):
        what = f"supernodes[{i}]"
        _expect(
            isinstance(group, dict) and set(group) == {"name", "nodes"},
            what,
            'a dict {"name": str, "nodes": [id, ...]}',
            group,
        )
        _expect(isinstance(group["name"], str), f"{what}['name']", "a str", group["name"])
        check_ids(group["nodes"], ids, f"{what}['nodes']")


def check_threshold(threshold):
    """Raise ValueError unless `threshold` is a number from 0 to 1."""
    _expect_number(threshold, "threshold")
    _expect(0 <= threshold <= 1, "threshold", "between 0 and 1", threshold)


def shown_nodes(data, threshold, kept=()):
    """Indices of the nodes left at `threshold`: the same rule as in graph_view.js."""
    return [
        i
        for i, node in enumerate(data["nodes"])
        if node["kind"] in ("embedding", "logit") or node["id"] in kept or node["cumulative"] <= threshold + 1e-9
    ]


def _check_node(node, what, data):
    _expect(isinstance(node, dict), what, "a dict", node)
    missing = [key for key in NODE_KEYS if key not in node]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(map(repr, missing))}; a node has {', '.join(NODE_KEYS)}")
    _expect(node["kind"] in KINDS, f"{what}['kind']", f"one of {', '.join(KINDS)}", node["kind"])
    _expect(isinstance(node["id"], str) and node["id"], f"{what}['id']", "a non-empty str", node["id"])
    _expect(isinstance(node["label"], str), f"{what}['label']", "a str", node["label"])
    _expect(
        node["concept"] is None or isinstance(node["concept"], str),
        f"{what}['concept']",
        "a str or None",
        node["concept"],
    )
    _check_place(node, what, data)
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


def _check_place(node, what, data):
    n_layers, n_tokens = data["n_layers"], len(data["tokens"])
    low, high = {"embedding": (-1, -1), "logit": (n_layers, n_layers)}.get(node["kind"], (0, n_layers - 1))
    _expect(
        _is_int(node["layer"]) and low <= node["layer"] <= high,
        f"{what}['layer']",
        f"{low}" if low == high else f"an int from {low} to {high} for a {node['kind']}",
        node["layer"],
    )
    _expect(
        _is_int(node["position"]) and 0 <= node["position"] < n_tokens,
        f"{what}['position']",
        f"an int from 0 to {n_tokens - 1} (one per token)",
        node["position"],
    )
    _expect(
        node["feature"] is None or _is_int(node["feature"]), f"{what}['feature']", "an int or None", node["feature"]
    )


def _check_example(example, what):
    _expect(
        isinstance(example, dict) and {"tokens", "activations"} <= set(example),
        what,
        'a dict {"tokens": [str], "activations": [float]}',
        example,
    )
    tokens, activations = example["tokens"], example["activations"]
    _expect_strings(tokens, f"{what}['tokens']")
    _expect(
        isinstance(activations, list) and len(activations) == len(tokens) > 0,
        f"{what}['activations']",
        f"a list of {len(tokens)} floats, one per token, at least one",
        activations,
    )
    for value in activations:
        _expect_number(value, f"{what}['activations']")


def _check_edge(edge, what, n_nodes):
    _expect(isinstance(edge, (list, tuple)) and len(edge) == 3, what, "[source, target, weight]", edge)
    for end in edge[:2]:
        _expect(_is_int(end) and 0 <= end < n_nodes, what, f"node indices from 0 to {n_nodes - 1}", edge)
    _expect_number(edge[2], what)


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _expect(good, what, expected, got):
    if not good:
        text = repr(got)
        raise ValueError(f"{what} must be {expected}, got {text if len(text) <= 80 else text[:77] + '...'}")


def _expect_number(value, what):
    # plain numbers only: numpy scalars and NaN would fail later, inside the browser's JSON
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _expect(good, what, "a finite Python number", value)


def _expect_strings(values, what):
    good = isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values)
    _expect(good, what, "a list of str", values)
