"""What the public graph JSON (schema version 1) may hold: its types, the check of a file, and the fields' meaning.

Tools write some fields in different ways; the functions at the end read them all. A file may hold more than this.
"""

import json
import math
import re
import reprlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, FailFast, Field
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from ..hardware import check_memory
from .node_id import NodeId
from .provenance import About
from .validation import Number, WholeNumber, adapter_of, check_type, need

Kind = Literal["feature", "error", "embedding", "left_out", "logit"]
KINDS: dict[str, Kind] = {
    "cross layer transcoder": "feature", "mlp reconstruction error": "error",
    "embedding": "embedding", "logit": "logit",
}  # fmt: skip
# What a capped graph leaves out has no type of its own in the public format: readers show it as the error that it is.
TYPES: dict[Kind, str] = {**{kind: name for name, kind in KINDS.items()}, "left_out": "mlp reconstruction error"}
ADJACENCY_COPIES = 2  # that a graph needs before anything is done with it

# ---------------------------------------------------------------------- types


def _as_text(layer: object) -> object:
    return str(layer) if isinstance(layer, int) and not isinstance(layer, bool) else layer


def _from_commas(ids: object) -> object:
    return [i for i in ids.split(",") if i] if isinstance(ids, str) else ids


def _from_json(value: object) -> object:
    """The viewer's Save button writes a list as JSON in a text."""
    try:
        return json.loads(value or "[]") if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


class Question(TypedDict, total=False):
    """What a graph explains; empty for the likeliest next tokens."""

    name: Annotated[str, Field(max_length=100_000)]  # of what is not the logit of one token
    target: list[WholeNumber]  # tokens: the mean of their logits
    contrast: list[WholeNumber]  # less the mean of these
    feature: Annotated[str, Field(max_length=100)]  # a node's id
    direction: list[Number]  # [d_model], of the stream after the last layer


class Own(TypedDict, total=False):
    """What we add to a file."""

    asked: Question | None
    n_layers: Annotated[int, Field(gt=0, le=1000)] | None
    about: About | None
    scores: dict[str, Number] | None
    conditioning: dict[str, Number] | None


class Metadata(TypedDict):
    slug: str  # the graph's name
    scan: str  # the model's, or where the viewer finds the features
    prompt: str
    prompt_tokens: list[str]
    interp_kit: NotRequired[Own | None]


class Node(TypedDict):
    node_id: Annotated[str, Field(min_length=1, max_length=1000)]
    feature_type: Literal["cross layer transcoder", "mlp reconstruction error", "embedding", "logit"]
    layer: Annotated[str, BeforeValidator(_as_text)]  # a number, or "E"
    ctx_idx: WholeNumber  # the position
    feature: WholeNumber | None
    jsNodeId: str
    clerp: str  # the label
    token_prob: NotRequired[Annotated[float, Field(ge=0, le=1.001)] | None]
    influence: NotRequired[Number | None]  # what we call cumulative
    activation: NotRequired[Number | None]
    bias: NotRequired[Number | None]  # this and what follows only we write
    is_left_out: NotRequired[bool | None]  # true for the node that stands for features that were left out
    raw_influence: NotRequired[Number | None]
    contribution: NotRequired[Number | None]
    token: NotRequired[str | None]


Share = Annotated[float, Field(ge=0, le=1)]


class Link(TypedDict):
    source: str
    target: str
    weight: Number
    stability: NotRequired[Share | None]  # this and what follows only we write
    belief: NotRequired[Share | None]


class ViewState(TypedDict, total=False):
    """What a reader did in the public viewer."""

    pinnedIds: Annotated[list[str], BeforeValidator(_from_commas)] | None
    supernodes: Annotated[list[Annotated[list[str], Field(min_length=1)]], BeforeValidator(_from_json)] | None
    clerps: Annotated[list[Annotated[list[str], Field(min_length=2, max_length=2)]], BeforeValidator(_from_json)] | None
    clickedId: str | None


class GraphFile(TypedDict):
    metadata: Metadata
    nodes: Annotated[list[Node], FailFast()]
    links: Annotated[list[Link], FailFast()]
    qParams: NotRequired[ViewState | None]


# ---------------------------------------------------------------------- the check


def check(content: object) -> GraphFile:
    """The content as a graph. Raises ValueError naming the place in the file; MemoryError for more nodes than fit."""
    listed = content.get("nodes") if isinstance(content, dict) else None
    n = len(listed) if isinstance(listed, list) else 0
    check_memory(n * n * 8 * ADJACENCY_COPIES, f"a graph of {n:,} nodes")
    graph = check_type(GraphFile, content)
    nodes, n_tokens = graph["nodes"], len(graph["metadata"]["prompt_tokens"])
    for i, node in enumerate(nodes):
        _check_node(node, f"nodes[{i}]", n_tokens)
    chance = any(kind_of(node) == "logit" and probability_of(node) > 0 for node in nodes)
    need(chance, "nodes", 'at least one logit whose token_prob, or "(p=...)" in its clerp, is above 0', "none")
    ids = {node["node_id"] for node in nodes}
    for i, link in enumerate(graph["links"]):
        for end in ("source", "target"):
            need(link[end] in ids, f"links[{i}].{end}", "the node_id of a node", link[end])
    for i, (_, *members) in enumerate(view_state(graph.get("qParams")).get("supernodes") or []):
        for member in members:
            need(member in ids, f"qParams.supernodes[{i}]", "a name and node_ids of nodes", member)
    return graph


def _check_node(node: Node, place: str, n_tokens: int) -> None:
    need(0 <= node["ctx_idx"] < n_tokens, f"{place}.ctx_idx", f"from 0 to {n_tokens - 1}, a token", node["ctx_idx"])
    if kind_of(node) in ("feature", "error"):
        layer = layer_of(node)
        need(layer is not None and layer >= 0, f"{place}.layer", "a layer from 0 to 999", node["layer"])
        need((node["feature"] or 0) >= -1, f"{place}.feature", "a feature's number, or -1", node["feature"])


def tell_apart(content: GraphFile, path: Path) -> None:
    """Gives every node an id of its own, in place.

    circuit-tracer up to 0.5 calls the error of layer l at position p "0_{l}_{p}", which feature l of layer 0 is called
    too. Where both are in a file the error becomes "{l}_-1_{p}", its id since. Their links cannot be told apart for
    sure: they are taken as the feature's, but for the second one between the same two nodes (features come first).
    """
    seen: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for i, node in enumerate(content["nodes"]):
        name, first = node["node_id"], seen.setdefault(node["node_id"], node)
        if first is node:
            continue
        errors = [n for n in (first, node) if kind_of(n) == "error"]
        need(len(errors) == 1, f"nodes[{i}].node_id", "different from all others", name)
        error, other = errors[0], node if errors[0] is first else first
        renamed[name] = error["node_id"] = str(NodeId(layer_of(error) or 0, -1, error["ctx_idx"]))
        need(renamed[name] not in seen, f"nodes[{i}].node_id", "different from all others", node["node_id"])
        seen[name], seen[renamed[name]] = other, error
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


def check_no_loop(ends: Iterable[tuple[str, str]]) -> None:
    """`ends`: the (source, target) of each link."""
    sources: dict[str, list[str]] = defaultdict(list)
    for source, target in ends:
        sources[target].append(source)
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        raise ValueError(f"links should not form a loop, got {reprlib.repr(error.args[1])}") from None


# ---------------------------------------------------------------------- fields


def kind_of(node: Node) -> Kind:
    kind = KINDS[node["feature_type"]]
    return "left_out" if kind == "error" and node.get("is_left_out") else kind


def view_state(q_params: Mapping[str, object] | None) -> ViewState:
    """The same with its lists as lists."""
    return adapter_of(ViewState).validate_python(q_params or {})


def supernodes_of(state: ViewState) -> dict[str, list[str]]:
    """The supernodes by name; the second of a name gets a number."""
    groups: dict[str, list[str]] = {}
    for name, *members in state.get("supernodes") or []:
        n, unique = 1, name
        while unique in groups:
            n, unique = n + 1, f"{name} ({n + 1})"
        groups[unique] = members
    return groups


def layer_of(node: Node) -> int | None:
    """The layer as a number, None for an embedding or a word."""
    match = re.fullmatch(r"-?[0-9]{1,3}", str(node["layer"]))
    return int(match[0]) if match else None


def probability_of(node: Node) -> float:
    """Of a logit: as given, else as its label shows it; NaN if neither."""
    return node.get("token_prob") or output_of(node["clerp"])[1]


def output_of(clerp: str) -> tuple[str, float]:
    """The token and probability that a logit's label shows, 'Output " Austin" (p=0.364)'; the label and NaN if none."""
    words, mark, shown = clerp.rpartition("(p=")
    token = words.partition('"')[2].rpartition('"')[0]
    found = re.match(r"([0-9]{0,3}\.?[0-9]{1,20})\)", shown)
    return token or clerp, min(float(found[1]), 1.0) if found and mark else math.nan
