"""What the public graph JSON (schema version 1) may hold: checks that name what is wrong, and the fields' meaning.

Tools write some fields in different ways; the functions at the end read them all.
"""

import json
import math
import re
import reprlib
import warnings
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

from ..hardware import check_memory
from .json import LIST, NUMBER, OBJECT, TEXT, TEXTS, check_keys, is_number, is_text, is_texts, is_whole, need
from .node_id import NodeId

KINDS = {
    "cross layer transcoder": "feature",
    "mlp reconstruction error": "error",
    "embedding": "embedding",
    "logit": "logit",
}
TYPES = {kind: name for name, kind in KINDS.items()}
COPIES = 2  # of the adjacency that a graph needs before anything is done with it

# What each key should be: words for the message, and the test.
NAME = "a text of 1 to 1000 characters", lambda v: is_text(v) and 0 < len(v) <= 1000
PROBABILITY = "a probability", lambda v: is_number(v) and 0 <= v <= 1.001
METADATA = {"slug": TEXT, "scan": TEXT, "prompt": TEXT, "prompt_tokens": TEXTS}
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
    "left_out": NUMBER,
    "raw_influence": NUMBER,
    "token": TEXT,
}
OWN = {  # likewise
    "n_layers": ("a number of layers", lambda v: is_whole(v) and 0 < v <= 1000),
    "about": OBJECT,
    "scores": ("an object of numbers", lambda v: isinstance(v, dict) and all(map(is_number, v.values()))),
}


def check(content) -> None:
    """Raises ValueError naming the place in the file; MemoryError for more nodes than fit."""
    check_keys(content, "", {"metadata": OBJECT, "nodes": LIST, "links": LIST}, {"qParams": OBJECT})
    n = len(content["nodes"])
    check_memory(n * n * 8 * COPIES, f"a graph of {n:,} nodes")
    check_keys(content["metadata"], "metadata", METADATA, {"interp_kit": OBJECT})
    check_keys(content["metadata"].get("interp_kit") or {}, "metadata.interp_kit", {}, OWN)
    for i, node in enumerate(content["nodes"]):
        _check_node(node, f"nodes[{i}]", len(content["metadata"]["prompt_tokens"]))
    chance = any(kind_of(node) == "logit" and probability_of(node) > 0 for node in content["nodes"])
    need(chance, "nodes", 'at least one logit whose token_prob, or "(p=...)" in its clerp, is above 0', "none")
    ids = {node["node_id"] for node in content["nodes"]}
    for i, link in enumerate(content["links"]):
        _check_link(link, f"links[{i}]", ids)
    _check_q_params(content.get("qParams") or {}, ids)


def _check_node(node, place, n_tokens):
    check_keys(node, place, NODE, OF_A_NODE)
    need(0 <= node["ctx_idx"] < n_tokens, f"{place}.ctx_idx", f"from 0 to {n_tokens - 1}, a token", node["ctx_idx"])
    if kind_of(node) in ("feature", "error"):
        good = layer_of(node) is not None and layer_of(node) >= 0
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
    supernodes = saved_list(q, "supernodes")
    good = isinstance(supernodes, list) and all(is_texts(group) and group for group in supernodes)
    need(good, "qParams.supernodes", "a list of [name, node id, ...]", supernodes)
    for i, (_, *members) in enumerate(supernodes):
        for member in members:
            need(member in ids, f"qParams.supernodes[{i}]", "a name and node_ids of nodes", member)
    clerps = saved_list(q, "clerps")
    good = isinstance(clerps, list) and all(isinstance(c, list) and len(c) == 2 and is_texts(c) for c in clerps)
    need(good, "qParams.clerps", "a list of [feature number, label]", clerps)


def tell_apart(content, path) -> None:
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
        errors = [n for n in (first, node) if kind_of(n) == "error"]
        need(len(errors) == 1, f"nodes[{i}].node_id", "different from all others", node["node_id"])
        renamed[node["node_id"]] = str(NodeId(layer_of(errors[0]), -1, errors[0]["ctx_idx"]))
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


def check_no_loop(ends) -> None:
    """`ends`: the (source, target) of each link."""
    sources = defaultdict(list)
    for source, target in ends:
        sources[target].append(source)
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        raise ValueError(f"links should not form a loop, got {reprlib.repr(error.args[1])}") from None


# ---------------------------------------------------------------------- fields


def kind_of(node) -> str:
    """feature, error, embedding or logit."""
    return KINDS[node["feature_type"]]


def saved_list(q, key) -> list:
    """A list of qParams; the viewer's Save button writes it as JSON in a text."""
    value = q.get(key) or []
    try:
        return json.loads(value) if is_text(value) else value
    except (ValueError, RecursionError):
        return value


def pinned_ids(q) -> list[str]:
    value = q.get("pinnedIds") or []
    return value.split(",") if is_text(value) else value


def supernodes_of(q) -> dict[str, list[str]]:
    """The supernodes by name; the second of a name gets a number."""
    groups = {}
    for name, *members in saved_list(q, "supernodes"):
        n, unique = 1, name
        while unique in groups:
            n, unique = n + 1, f"{name} ({n + 1})"
        groups[unique] = members
    return groups


def layer_of(node) -> int | None:
    """The layer as a number, None for an embedding or a word."""
    match = re.fullmatch(r"-?[0-9]{1,3}", str(node["layer"]))
    return int(match[0]) if match else None


def probability_of(node) -> float:
    return node.get("token_prob") or output_of(node["clerp"])[1]


def output_of(clerp) -> tuple[str, float]:
    """The token and probability that a logit's label shows, 'Output " Austin" (p=0.364)'; the label and NaN if none."""
    words, mark, shown = clerp.rpartition("(p=")
    token = words.partition('"')[2].rpartition('"')[0]
    found = re.match(r"([0-9]{0,3}\.?[0-9]{1,20})\)", shown)
    return token or clerp, min(float(found[1]), 1.0) if found and mark else math.nan
