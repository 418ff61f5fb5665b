"""Graph files: the JSON of the public attribution-graph viewer and Neuronpedia (schema version 1).

A loaded graph keeps its file in `graph.origin`, and `save_graph` writes that back but for what was changed since: keys
that our tables have no column for, and the order of nodes and links, survive. A graph of our own adds, which other
readers ignore, `metadata.interp_kit` (layers, model, scores) and on each node `bias`, `token` and `raw_influence`.
"""

import json
import math
import re
import reprlib
import warnings
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from ..files import atomic_file
from . import scores as public
from .graph import AttributionGraph, _plain_label

KINDS = {
    "cross layer transcoder": "feature",
    "mlp reconstruction error": "error",
    "embedding": "embedding",
    "logit": "logit",
}
TYPES = {kind: name for name, kind in KINDS.items()}
LARGEST = 1e30  # of a number in a file: sums of such numbers stay finite in float32
DEEPEST = 50  # levels of lists and objects in a file; the schema has five
PARSED = 10  # bytes of memory that a byte of JSON may take while it is read; half of that in a usual file
COPIES = 2  # of the adjacency that a graph needs before anything is done with it
LIST_OF_GRAPHS = "graph-metadata.json"
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def cantor(layer: int, feature: int) -> int:
    """The public number of a feature: Cantor's pairing."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def uncantor(number: int) -> tuple[int, int]:
    """The (layer, feature) that `cantor` made a number of."""
    total = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - total * (total + 1) // 2
    return total - feature, feature


# ---------------------------------------------------------------------- writing


def save_graph(graph: AttributionGraph, path: str | Path, features=None, listed: bool = False) -> None:
    """See `AttributionGraph.save`."""
    path = Path(path)
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "graph"
    content = _content(graph, slug)
    if features is not None:
        mine = graph.nodes.loc[graph.nodes["kind"] == "feature", ["layer", "feature"]]
        features.save_public(path.parent / "features" / slug, only=set(mine.itertuples(index=False, name=None)))
        # The viewer serves the graphs' folder as ./data and fetches {scan}/{index}.json where scan starts with "./".
        content["metadata"]["scan"] = f"./data/features/{slug}"
    write_json(content, path)
    if listed:
        _enter_in_list(content["metadata"], path.parent / LIST_OF_GRAPHS)


def write_json(content, path: Path) -> None:
    text = json.dumps(content, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _enter_in_list(metadata, path):
    """The public viewer shows the graphs that this file lists."""
    content = read_json(path) if path.exists() else {"graphs": []}
    try:
        check_keys(content, "", {"graphs": ("a list", lambda v: isinstance(v, list))})
        for i, graph in enumerate(content["graphs"]):
            check_keys(graph, f"graphs[{i}]", {"slug": TEXT})
    except ValueError as error:
        raise ValueError(f"{path} is not the viewer's list of graphs: {error}") from None
    others = [graph for graph in content["graphs"] if graph["slug"] != metadata["slug"]]
    write_json({**content, "graphs": [*others, metadata]}, path)


def _content(graph, slug):
    origin = graph.origin.get("content", {})
    metadata = {**(origin.get("metadata") or _metadata(graph)), "slug": slug}
    if "interp_kit" in metadata:
        metadata["interp_kit"] = {"n_layers": graph.n_layers, "about": graph.about, "scores": graph.scores}
    return {
        **origin,
        "metadata": metadata,
        "qParams": _q_params(graph, origin),
        "nodes": _nodes(graph, origin),
        "links": _links(graph, origin),
    }


def _metadata(graph):
    from .. import __version__

    return {
        "scan": graph.about.get("model", "") or "unknown",
        "transcoder_list": [],
        "prompt_tokens": graph.tokens,
        "prompt": graph.prompt,
        "node_threshold": 1.0,
        "schema_version": 1,
        "info": {"generator": {"name": "interp_kit", "version": __version__}},
        "interp_kit": {},
    }


def _q_params(graph, origin):
    """The state of the public view, without the nodes that are gone since."""
    empty = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    before = origin.get("qParams")
    before = empty if before is None else before
    after = dict(before)
    if graph.supernodes != _groups(before):
        after["supernodes"] = [[name, *members] for name, members in graph.supernodes.items()]
    gone = {node["node_id"] for node in origin.get("nodes", [])} - set(graph.nodes["id"])
    if gone & set(_pinned(before)):
        after["pinnedIds"] = [node for node in _pinned(before) if node not in gone]
    if before.get("clickedId") in gone:
        after["clickedId"] = ""
    return after


def _nodes(graph, origin):
    """Each node as in its file, but for the keys whose value would now be another."""
    now = _written(graph.nodes, graph)
    if not origin:
        return list(now.values())
    then = _written(graph.origin["nodes"], graph)
    file = dict(zip(then, origin["nodes"], strict=True))
    changed = {i: {k: v for k, v in now[i].items() if i not in then or v != then[i][k]} for i in now}
    return [file.get(i, {}) | changed[i] for i in now]


def _written(nodes, graph):
    best = nodes.loc[nodes["kind"] == "logit", "id"].iloc[0]
    return {n["id"]: _node(n, graph) | {"is_target_logit": n["id"] == best} for n in nodes.to_dict("records")}


def _node(n, graph):
    kind, layer, position, feature = n["kind"], n["layer"], n["position"], n["feature"]
    probability = number(n["probability"]) or 0.0
    public_feature, js = {
        "feature": (cantor(layer, feature), f"{layer}_{feature}-0"),
        "error": (-1, f"{layer}_{position}-0"),
        "embedding": (position, f"E_{feature}-{position}"),
        "logit": (feature, f"L_{feature}-{position}"),
    }[kind]
    return {
        "node_id": n["id"],
        "feature": public_feature,
        "layer": {"embedding": "E", "logit": str(graph.n_layers + 1)}.get(kind, str(layer)),
        "ctx_idx": position,
        "feature_type": TYPES[kind],
        "token_prob": probability,
        "run_idx": 0,
        "reverse_ctx_idx": len(graph.tokens) - 1 - position,
        "jsNodeId": js,
        "clerp": f'Output "{n["token"]}" (p={probability:.3f})' if kind == "logit" else n["label"],
        "influence": min(n["cumulative"], 1.0),  # a last digit above 1 would hide the node in the public viewer
        "activation": number(n["activation"]),
        "bias": number(n["bias"]),
        "token": n["token"],
        "raw_influence": n["influence"],
    }


def number(value) -> float | None:
    """None for what a table holds where there is no number."""
    return None if value is None or math.isnan(value) else float(value)


def _links(graph, origin):
    """The file's links that still have their weight, in its order; then the others."""
    ids = graph.nodes["id"].tolist()
    target, source = graph.adjacency.nonzero()
    weights = graph.adjacency[target, source].tolist()
    now = {(ids[s], ids[t]): w for s, t, w in zip(source.tolist(), target.tolist(), weights, strict=True)}
    listed, present = _weights(origin.get("links", [])), set(ids)
    same = {ends for ends, w in listed.items() if present.issuperset(ends) and w == now.get(ends, 0.0)}
    rest = [{"source": s, "target": t, "weight": w} for (s, t), w in now.items() if (s, t) not in same]
    return [link for link in origin.get("links", []) if (link["source"], link["target"]) in same] + rest


def _weights(links):
    """(source, target): weight. A pair of nodes that is listed twice has the sum, as in the viewer's shares."""
    total = defaultdict(float)
    for link in links:
        total[link["source"], link["target"]] += link["weight"]
    return total


# ---------------------------------------------------------------------- reading


def load_graph(path: str | Path) -> AttributionGraph:
    """A graph from a public JSON file, ours or another tool's; saved again, it is the same file.

    Where a file has no influence, it is computed from the file's own links. circuit-tracer up to 0.5 may give a
    feature of layer 0 and an error one id: the error is renamed, with a warning (see `_tell_apart`).

    Raises FileNotFoundError; MemoryError, before allocating, for more nodes than fit; else ValueError naming the place
    in the file and what was expected there, also for nodes of attention replacements (feature_type "lorsa").
    """
    path = Path(path)
    content = read_json(path)
    try:
        _check(content)
        _tell_apart(content, path)
        return _graph(content)
    except ValueError as error:
        raise ValueError(f"{path} is not an attribution graph that interp_kit can read: {error}") from None


def read_json(path: Path):
    """What a JSON file holds, once it is known to be finite, valid text and not nested without end.

    Raises FileNotFoundError, MemoryError (before reading) and ValueError.
    """
    check_memory(path.stat().st_size * PARSED, f"reading {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"{path}: lists or objects are nested more than {DEEPEST} levels deep") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a readable JSON file (is it cut short?): {error}") from None
    odd = _oddity(content)
    if odd:
        raise ValueError(f"{path}: {odd[0].removeprefix('.') or 'the file'} {odd[1]}")
    return content


def check_memory(needed: float, what: str) -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"{what} needs about {needed / 1e9:.2g} GB of memory and {free / 1e9:.2g} GB are free")


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"one object has the key {reprlib.repr(twice)} twice")
    return found


def _oddity(value, depth=0):
    """What JSON's readers do not agree on, as (where, what); None when there is nothing."""
    if isinstance(value, str):
        good = value.isascii() or not HALF_CHARACTER.search(value)
        return None if good else ("", "is not text: it holds half of a surrogate pair")
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", f"should be a finite number, got {value}")
    if not isinstance(value, dict | list):
        return None
    if depth == DEEPEST:
        return "", f"is nested more than {DEEPEST} levels deep"
    is_object = isinstance(value, dict)
    for key, inner in value.items() if is_object else enumerate(value):
        odd = _oddity(inner, depth + 1) or (_oddity(key) if is_object else None)
        if odd:
            return (f".{key[:40]!a}".replace("'", "") if is_object else f"[{key}]") + odd[0], odd[1]
    return None


# What a value should be: words for the message, and the test.


def is_text(value) -> bool:
    return isinstance(value, str)


def is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


TEXT = "a text", is_text
NUMBER = f"a number of at most {LARGEST:g}", is_number
NAME = "a text of 1 to 1000 characters", lambda v: is_text(v) and 0 < len(v) <= 1000
PROBABILITY = "a probability", lambda v: is_number(v) and 0 <= v <= 1.001
METADATA = {"slug": TEXT, "scan": TEXT, "prompt": TEXT, "prompt_tokens": ("a list of texts", is_texts)}
NODE = {
    "node_id": NAME,
    "feature_type": (f"one of {', '.join(KINDS)}", lambda v: is_text(v) and v in KINDS),
    "layer": ('a layer number, or "E"', lambda v: is_text(v) or is_whole(v)),
    "ctx_idx": ("a position", is_whole),
    "feature": ("a whole number or null", lambda v: v is None or is_whole(v)),
    "jsNodeId": TEXT,
    "clerp": TEXT,
}
OF_A_NODE = {  # may be missing or null
    "token_prob": PROBABILITY,
    "influence": NUMBER,
    "activation": NUMBER,
    "bias": NUMBER,
    "raw_influence": NUMBER,
    "token": TEXT,
}
OWN = {  # likewise
    "n_layers": ("a number of layers", lambda v: is_whole(v) and 0 < v <= 1000),
    "about": ("an object", lambda v: isinstance(v, dict)),
    "scores": ("an object of numbers", lambda v: isinstance(v, dict) and all(map(is_number, v.values()))),
}


def need(good: bool, place: str, expected: str, got) -> None:
    if not good:
        raise ValueError(f"{place} should be {expected}, got {reprlib.repr(got)}")


def check_keys(value, place: str, required: dict, optional: dict | None = None) -> None:
    """Raises ValueError unless `value` is an object whose keys hold what they should; the whole file's place is ""."""
    need(isinstance(value, dict), place or "the file", "an object", value)
    dot = f"{place}." if place else ""
    for key, (expected, test) in required.items():
        if key not in value:
            raise ValueError(f"{place or 'the file'} lacks {key!r}, {expected}")
        need(test(value[key]), dot + key, expected, value[key])
    for key, (expected, test) in (optional or {}).items():
        if value.get(key) is not None:
            need(test(value[key]), dot + key, expected, value[key])


def _check(content):
    a_list = "a list", lambda v: isinstance(v, list)
    an_object = "an object", lambda v: isinstance(v, dict)
    check_keys(content, "", {"metadata": an_object, "nodes": a_list, "links": a_list}, {"qParams": an_object})
    n = len(content["nodes"])
    check_memory(n * n * 8 * COPIES, f"a graph of {n:,} nodes")
    check_keys(content["metadata"], "metadata", METADATA, {"interp_kit": an_object})
    check_keys(content["metadata"].get("interp_kit") or {}, "metadata.interp_kit", {}, OWN)
    for i, node in enumerate(content["nodes"]):
        _check_node(node, f"nodes[{i}]", len(content["metadata"]["prompt_tokens"]))
    need(
        _logits(content), "nodes", 'at least one logit whose token_prob, or "(p=...)" in its clerp, is above 0', "none"
    )
    ids = {node["node_id"] for node in content["nodes"]}
    for i, link in enumerate(content["links"]):
        _check_link(link, f"links[{i}]", ids)
    _check_q_params(content.get("qParams") or {}, ids)


def _check_node(node, place, n_tokens):
    check_keys(node, place, NODE, OF_A_NODE)
    need(0 <= node["ctx_idx"] < n_tokens, f"{place}.ctx_idx", f"from 0 to {n_tokens - 1}, a token", node["ctx_idx"])
    if KINDS[node["feature_type"]] in ("feature", "error"):
        good = _layer(node) is not None and _layer(node) >= 0
        need(good, f"{place}.layer", "a layer from 0 to 999", node["layer"])
        need((node["feature"] or 0) >= -1, f"{place}.feature", "a feature's number, or -1", node["feature"])


def _check_link(link, place, ids):
    need(isinstance(link, dict), place, "an object", link)
    for end in ("source", "target"):
        known = is_text(link.get(end)) and link[end] in ids
        need(known, f"{place}.{end}", "the node_id of a node", link.get(end))
    need(is_number(link.get("weight")), f"{place}.weight", NUMBER[0], link.get("weight"))


def _check_q_params(q, ids):
    pinned, clicked = q.get("pinnedIds"), q.get("clickedId")
    need(pinned is None or is_text(pinned) or is_texts(pinned), "qParams.pinnedIds", "a list of node ids", pinned)
    need(clicked is None or is_text(clicked), "qParams.clickedId", "a node id", clicked)
    supernodes = _saved(q, "supernodes")
    good = isinstance(supernodes, list) and all(is_texts(group) and group for group in supernodes)
    need(good, "qParams.supernodes", "a list of [name, node id, ...]", supernodes)
    for i, (_, *members) in enumerate(supernodes):
        for member in members:
            need(member in ids, f"qParams.supernodes[{i}]", "a name and node_ids of nodes", member)
    clerps = _saved(q, "clerps")
    good = isinstance(clerps, list) and all(isinstance(c, list) and len(c) == 2 and is_texts(c) for c in clerps)
    need(good, "qParams.clerps", "a list of [feature number, label]", clerps)


def _saved(q, key):
    """A list of qParams; the viewer's Save button writes it as JSON in a text."""
    value = q.get(key) or []
    try:
        return json.loads(value) if is_text(value) else value
    except (ValueError, RecursionError):
        return value


def _pinned(q):
    value = q.get("pinnedIds") or []
    return value.split(",") if is_text(value) else value


def _groups(q):
    """The supernodes by name; the second of a name gets a number."""
    groups = {}
    for name, *members in _saved(q, "supernodes"):
        n, unique = 1, name
        while unique in groups:
            n, unique = n + 1, f"{name} ({n + 1})"
        groups[unique] = members
    return groups


def _layer(node):
    """The layer as a number, None for an embedding or a word."""
    match = re.fullmatch(r"-?[0-9]{1,3}", str(node["layer"]))
    return int(match[0]) if match else None


def _logits(content):
    return [n for n in content["nodes"] if KINDS[n["feature_type"]] == "logit" and _probability(n) > 0]


def _probability(node):
    return node.get("token_prob") or _output(node["clerp"])[1]


def _output(clerp):
    """The token and probability that a logit's label shows, 'Output " Austin" (p=0.364)'; the label and NaN if none."""
    words, mark, shown = clerp.rpartition("(p=")
    token = words.partition('"')[2].rpartition('"')[0]
    found = re.match(r"([0-9]{0,3}\.?[0-9]{1,20})\)", shown)
    return token or clerp, min(float(found[1]), 1.0) if found and mark else math.nan


def _tell_apart(content, path):
    """Gives every node an id of its own, in place.

    circuit-tracer up to 0.5 calls the error of layer l at position p "0_{l}_{p}", which feature l of layer 0 is called
    too. Where both are in a file the error becomes "{l}_-1_{p}", its id since. Their links cannot be told apart for
    sure: they are taken as the feature's, but for the second one between the same two nodes (features come first).
    """
    seen, renamed = {}, {}
    for i, node in enumerate(content["nodes"]):
        first = seen.setdefault(node["node_id"], node)
        if first is node:
            continue
        errors = [n for n in (first, node) if KINDS[n["feature_type"]] == "error"]
        need(len(errors) == 1, f"nodes[{i}].node_id", "different from all others", node["node_id"])
        renamed[node["node_id"]] = f"{_layer(errors[0])}_-1_{errors[0]['ctx_idx']}"
        seen[node["node_id"]] = node if errors[0] is first else first
        errors[0]["node_id"] = renamed[node["node_id"]]
        need(errors[0]["node_id"] not in seen, f"nodes[{i}].node_id", "different from all others", node["node_id"])
        seen[errors[0]["node_id"]] = errors[0]
    if not renamed:
        return
    known = set()
    for link in content["links"]:
        ends = link["source"], link["target"]
        if ends in known and link["source"] in renamed:
            link["source"] = renamed[link["source"]]
        known.add(ends)
    warnings.warn(
        f"{path}: {len(renamed)} errors had the id of a feature and were renamed, such as {min(renamed)!r} to "
        f"{renamed[min(renamed)]!r} (circuit-tracer up to 0.5 writes such files). Their links may be mistaken",
        stacklevel=3,
    )


def _graph(content):
    metadata, q = content["metadata"], content.get("qParams") or {}
    own = metadata.get("interp_kit") or {}
    nodes = _table(content, dict(_saved(q, "clerps")))
    nodes.loc[nodes["kind"] == "logit", "layer"] = n_layers = _n_layers(content, own)
    adjacency = _adjacency(content["links"], {node: i for i, node in enumerate(nodes["id"])})
    _fill_influence(nodes, adjacency, content["nodes"])
    return AttributionGraph(
        prompt=metadata["prompt"],
        tokens=list(metadata["prompt_tokens"]),
        n_layers=n_layers,
        nodes=nodes,
        adjacency=adjacency,
        about=own.get("about") or {"model": metadata["scan"]},
        supernodes=_groups(q),
        scores=own.get("scores"),
        origin={"content": content, "nodes": nodes.copy()},
    )


def _n_layers(content, own):
    """Ours says; else the logits' layer is the number of layers plus one (circuit-tracer), or says nothing."""
    below = [_layer(n) + 1 for n in content["nodes"] if KINDS[n["feature_type"]] in ("feature", "error")]
    above = [(_layer(n) or 0) - 1 for n in content["nodes"] if KINDS[n["feature_type"]] == "logit"]
    return max([own.get("n_layers") or max(above), *below, 1])


def _table(content, labels):
    tokens = content["metadata"]["prompt_tokens"]
    nodes = pd.DataFrame([_row(node, tokens) for node in content["nodes"]])
    chosen = [labels.get(str(node["feature"])) or node["clerp"] for node in content["nodes"]]
    # A label that is missing would make all such features of a position one step of a path.
    nodes["label"] = [
        c if c and n.kind != "logit" else _plain_label(n) for c, n in zip(chosen, nodes.itertuples(), strict=True)
    ]
    return nodes


def _row(n, tokens):
    kind = KINDS[n["feature_type"]]
    token = _output(n["clerp"])[0] if kind == "logit" else tokens[n["ctx_idx"]]
    return {
        "id": n["node_id"],
        "kind": kind,
        "layer": -1 if kind in ("embedding", "logit") else _layer(n),
        "position": n["ctx_idx"],
        "token": n.get("token") or token,
        "feature": _feature(n, kind),
        "label": "",
        "influence": 0.0,
        "cumulative": 0.0,
        "activation": _float(n.get("activation")),
        "probability": _float(_probability(n)) if kind == "logit" else math.nan,
        "bias": _float(n.get("bias")),
    }


def _feature(n, kind):
    """A feature's index in its layer or a token's in the vocabulary; -1 where there is none.

    From ids like "3_127_8" and "E_127_8", or EleutherAI's "intermediate_8_3_127"; else from Cantor's number."""
    layer, position, given = _layer(n), n["ctx_idx"], -1 if n["feature"] is None else n["feature"]
    if kind == "feature":
        found = re.fullmatch(rf"{layer}_([0-9]{{1,9}})_{position}|.*_{position}_{layer}_([0-9]{{1,9}})", n["node_id"])
        if found:
            return int(found[1] or found[2])
        paired = uncantor(max(given, 0))
        return paired[1] if paired[0] == layer else given
    if kind == "embedding":
        found = re.fullmatch(rf"E_([0-9]{{1,9}})_{position}", n["node_id"])
        return int(found[1]) if found else -1
    return given if kind == "logit" else -1


def _float(value):
    return math.nan if value is None else float(value)


def _adjacency(links, index):
    """[target, source]; in float32 where that loses no digit of the file."""
    weights = _weights(links)
    values = np.array(list(weights.values()), dtype=np.float64)
    dtype = np.float32 if (values.astype(np.float32) == values).all() else np.float64
    adjacency = np.zeros((len(index), len(index)), dtype=dtype)
    for (source, target), weight in weights.items():
        adjacency[index[target], index[source]] = weight
    _check_no_loop(weights)
    return adjacency


def _check_no_loop(weights):
    sources = defaultdict(list)
    for source, target in weights:
        sources[target].append(source)
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        raise ValueError(f"links should not form a loop, got {reprlib.repr(error.args[1])}") from None


def _fill_influence(nodes, adjacency, written):
    """As the file has it, computed where it has none."""
    raw = [node.get("raw_influence") for node in written]
    if None in raw:
        raw = public.influence(public.shares(adjacency), nodes["probability"].fillna(0).to_numpy(float))
    nodes["influence"] = np.array(raw, dtype=float)
    shares = public.cumulative_share(nodes["influence"].to_numpy())
    given = (node.get("influence") for node in written)
    nodes["cumulative"] = [float(share if g is None else g) for share, g in zip(shares, given, strict=True)]
