"""Graph files: the JSON of the public attribution-graph viewer and Neuronpedia (schema version 1).

A loaded graph keeps its file in `graph.origin`, and `write_graph` writes that back but for what was changed since: keys
that our tables have no column for, and the order of nodes and links, survive. A graph of our own adds, which other
readers ignore, `metadata.interp_kit` (layers, model, scores, what was asked) and on each node `bias`, `token`,
`raw_influence` and `contribution`; `is_left_out` marks the node that stands for the features that a capped graph does
not have. What a file may hold, and what its fields mean, is in `graph_schema.py`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from typing_extensions import TypedDict

from ..storage.atomic import always
from ..storage.locking import locked
from . import graph_schema as schema
from .graph_schema import GraphFile, Link, Node, kind_of, layer_of
from .graph_tables import GraphTables
from .json import cantor, read_json, uncantor, write_json
from .node_id import EMBEDDING_LAYER, NodeId
from .validation import check_type

OF_EDGES = ("stability", "belief")  # what only we write of a link
LIST_OF_GRAPHS = "graph-metadata.json"


class ListedGraph(TypedDict):
    slug: str


class ListOfGraphs(TypedDict):
    graphs: list[ListedGraph]


# ---------------------------------------------------------------------- writing


def write_graph(graph: GraphTables, path: Path, scan: str | None = None, listed: bool = False) -> None:
    """Writes `graph` to `path`; `scan` says where the viewer finds its features' files. `listed` enters it in the list
    of graphs beside it."""
    origin = graph.origin.get("content")
    metadata = _metadata(graph, origin) | {"slug": slug_of(path)} | ({"scan": scan} if scan else {})
    state, nodes, links = _q_params(graph, origin), _nodes(graph, origin), _links(graph, origin)
    content = {**(origin or {}), "metadata": metadata, "qParams": state, "nodes": nodes, "links": links}
    write_json(content, path, replaces=is_graph_file)
    if listed:
        _enter_in_list(metadata, path.parent / LIST_OF_GRAPHS)


def is_graph_file(path: Path) -> bool:
    """Whether a file holds a graph, ours or another tool's, which saving one to its place may replace."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"metadata", "nodes", "links"} <= set(content)


def slug_of(path: Path) -> str:
    """What the public viewer calls a graph, after its file: letters, digits and "-"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "graph"


def _enter_in_list(metadata: Mapping[str, object], path: Path) -> None:
    """The public viewer shows the graphs that this file lists."""
    with locked(path.parent):  # another process may enter a graph of its own
        content = read_json(path) if path.exists() else {"graphs": []}
        try:
            content = check_type(ListOfGraphs, content)
        except ValueError as error:
            raise ValueError(f"{path} is not the viewer's list of graphs: {error}") from None
        others = [graph for graph in content["graphs"] if graph["slug"] != metadata["slug"]]
        write_json({**content, "graphs": [*others, metadata]}, path, replaces=always)


def _metadata(graph: GraphTables, origin: GraphFile | None) -> dict[str, object]:
    from .. import __version__

    metadata: dict[str, object] = {
        "scan": graph.about.get("model", "") or "unknown", "transcoder_list": [],
        "prompt_tokens": graph.tokens, "prompt": graph.prompt, "node_threshold": 1.0, "schema_version": 1,
        "info": {"generator": {"name": "interp_kit", "version": __version__}}, "interp_kit": {},
    }  # fmt: skip
    if origin:
        metadata = dict(origin["metadata"])
    if "interp_kit" in metadata:
        own = {"n_layers": graph.n_layers, "about": graph.about, "scores": graph.scores}
        own |= {"conditioning": graph.conditioning} if graph.conditioning else {}
        metadata["interp_kit"] = own | ({"asked": graph.asked} if graph.asked else {})
    return metadata


def _q_params(graph: GraphTables, origin: GraphFile | None) -> Mapping[str, object]:
    """The state of the public view, without the nodes that are gone since."""
    before = origin.get("qParams") if origin else None
    after: dict[str, object] = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    if before is not None:
        after = dict(before)
    state = schema.view_state(before)
    if graph.supernodes != schema.supernodes_of(state):
        after["supernodes"] = [[name, *members] for name, members in graph.supernodes.items()]
    gone = {node["node_id"] for node in origin["nodes"]} - set(graph.nodes["id"]) if origin else set()
    pinned = state.get("pinnedIds") or []
    if gone & set(pinned):
        after["pinnedIds"] = [node for node in pinned if node not in gone]
    if state.get("clickedId") in gone:
        after["clickedId"] = ""
    return after


def _nodes(graph: GraphTables, origin: GraphFile | None) -> list[dict[str, object]]:
    """Each node as in its file, but for the keys whose value is now another or gone."""
    now = _written(graph.nodes, graph)
    if origin is None or "nodes" not in graph.origin:
        return list(now.values())
    then = _written(graph.origin["nodes"], graph)
    file = dict(zip(then, origin["nodes"], strict=True))
    return [_changed(file.get(i, {}), then.get(i, {}), node) for i, node in now.items()]


def _changed(file: Mapping[str, object], then: Mapping[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """One node of the file with what `then` and `now`, its row as it would be written, do not have in common."""
    kept = {key: value for key, value in file.items() if key in now or key not in then}
    return kept | {key: value for key, value in now.items() if key not in then or value != then[key]}


def _written(nodes: pd.DataFrame, graph: GraphTables) -> dict[str, dict[str, object]]:
    """By id, each row as it is written."""
    best = nodes.loc[nodes["kind"] == "logit", "id"].iloc[0]
    return {n["id"]: _node(n, graph) | {"is_target_logit": n["id"] == best} for n in nodes.to_dict("records")}


def _node(n: dict, graph: GraphTables) -> dict[str, object]:
    kind, layer, position, feature = n["kind"], n["layer"], n["position"], n["feature"]
    probability = _number(n["probability"]) or 0.0
    public_feature, js = {
        "feature": (cantor(layer, feature), f"{layer}_{feature}-0"),
        "error": (-1, f"{layer}_{position}-0"),
        "left_out": (-1, "left_out-0"),
        "embedding": (position, f"E_{feature}-{position}"),
        "logit": (feature, f"L_{feature}-{position}"),
    }[kind]
    return {
        "node_id": n["id"], "feature": public_feature,
        "layer": {"embedding": "E", "left_out": "0", "logit": str(graph.n_layers + 1)}.get(kind, str(layer)),
        "ctx_idx": position, "feature_type": schema.TYPES[kind], "token_prob": probability,
        "run_idx": 0, "reverse_ctx_idx": len(graph.tokens) - 1 - position, "jsNodeId": js,
        "clerp": f'Output "{n["label"]}" (p={probability:.3f})' if kind == "logit" else n["label"],
        "influence": min(n["cumulative"], 1.0),  # a last digit above 1 would hide the node in the public viewer
        "activation": _number(n["activation"]),
        **({"bias": _number(n["bias"])} if "bias" in n else {}),
        **({"is_left_out": True} if kind == "left_out" else {}),
        "token": n["token"], "raw_influence": n["influence"], "contribution": _number(n.get("contribution")),
    }  # fmt: skip


def _number(value: float | None) -> float | None:
    """None for what a table holds where there is no number."""
    return None if value is None or math.isnan(value) else float(value)


def _links(graph: GraphTables, origin: GraphFile | None) -> list[Link]:
    """The file's links that still have their weight, in its order; then the others."""
    ids = graph.nodes["id"].tolist()
    target, source = graph.adjacency.nonzero()
    weights = graph.adjacency[target, source].tolist()
    now = {(ids[s], ids[t]): w for s, t, w in zip(source.tolist(), target.tolist(), weights, strict=True)}
    links = origin["links"] if origin else []
    listed, present = _weights(links), set(ids)
    same = {ends for ends, w in listed.items() if present.issuperset(ends) and w == now.get(ends, 0.0)}
    rest: list[Link] = [{"source": s, "target": t, "weight": w} for (s, t), w in now.items() if (s, t) not in same]
    written = [link for link in links if (link["source"], link["target"]) in same] + rest
    for name in OF_EDGES:
        known = getattr(graph, name)
        if known is not None:
            of = dict(zip(now, known[target, source].tolist(), strict=True))
            written = [cast("Link", {**link, name: of.get((link["source"], link["target"]), 0.0)}) for link in written]
    return written


def _weights(links: Iterable[Link]) -> dict[tuple[str, str], float]:
    """(source, target): weight. A pair of nodes that is listed twice has the sum, as in the viewer's shares."""
    total: dict[tuple[str, str], float] = defaultdict(float)
    for link in links:
        total[link["source"], link["target"]] += link["weight"]
    return total


# ---------------------------------------------------------------------- reading


def read_graph(path: Path) -> GraphTables:
    """The tables of a public JSON file, ours or another tool's. Influence, cumulative share and label are NaN or empty
    where the file does not say.

    circuit-tracer up to 0.5 may give a feature of layer 0 and an error one id: the error is renamed, with a warning
    (see `graph_schema.tell_apart`).

    Raises FileNotFoundError; MemoryError, before allocating, for more nodes than fit; else ValueError naming the place
    in the file and what was expected there, also for nodes of attention replacements (feature_type "lorsa").
    """
    content = read_json(path)
    try:
        graph = schema.check(content)
        schema.tell_apart(graph, path)
        return _tables(graph)
    except ValueError as error:
        raise ValueError(f"{path} is not an attribution graph that interp_kit can read: {error}") from None


def _tables(content: GraphFile) -> GraphTables:
    metadata, state = content["metadata"], schema.view_state(content.get("qParams"))
    own = metadata.get("interp_kit") or {}
    typed_in = {number: label for number, label in state.get("clerps") or []}
    nodes = _table(content, typed_in)
    nodes.loc[nodes["kind"] == "logit", "layer"] = n_layers = _n_layers(content, own)
    index = {node: i for i, node in enumerate(nodes["id"])}
    adjacency = _adjacency(content["links"], index)
    of_edges = {name: _of_edges(content["links"], index, name) for name in OF_EDGES}
    return GraphTables(
        metadata["prompt"], list(metadata["prompt_tokens"]), n_layers, nodes, adjacency,
        about=own.get("about") or {"model": metadata["scan"]}, supernodes=schema.supernodes_of(state),
        scores=own.get("scores") or {}, asked=own.get("asked") or schema.Question(),
        conditioning=own.get("conditioning") or {}, **of_edges, origin={"content": content},
    )  # fmt: skip


def _n_layers(content: GraphFile, own: schema.Own) -> int:
    """Ours says; else the logits' layer is the number of layers plus one (circuit-tracer), or says nothing."""
    below = [(layer_of(n) or 0) + 1 for n in content["nodes"] if kind_of(n) in ("feature", "error")]
    above = [(layer_of(n) or 0) - 1 for n in content["nodes"] if kind_of(n) == "logit"]
    return max([own.get("n_layers") or max(above), *below, 1])


def _table(content: GraphFile, typed_in: dict[str, str]) -> pd.DataFrame:
    """`typed_in`: labels that were given in the viewer, by feature number."""
    tokens = content["metadata"]["prompt_tokens"]
    nodes = pd.DataFrame([_row(node, tokens) for node in content["nodes"]])
    chosen = [typed_in.get(str(node["feature"])) or node["clerp"] for node in content["nodes"]]
    nodes["label"] = [c if kind != "logit" else "" for c, kind in zip(chosen, nodes["kind"], strict=True)]
    return nodes


def _row(n: Node, tokens: Sequence[str]) -> dict[str, object]:
    kind = kind_of(n)
    token = schema.output_of(n["clerp"])[0] if kind == "logit" else tokens[n["ctx_idx"]]
    return {
        "id": n["node_id"], "kind": kind, "layer": layer_of(n) if kind in ("feature", "error") else -1,
        "position": n["ctx_idx"], "token": n.get("token") or token, "feature": _feature(n, kind), "label": "",
        "influence": _float(n.get("raw_influence")), "contribution": _float(n.get("contribution")),
        "cumulative": _float(n.get("influence")),
        "activation": _float(n.get("activation")),
        "probability": _float(schema.probability_of(n)) if kind == "logit" else math.nan, "bias": _float(n.get("bias")),
    }  # fmt: skip


def _feature(n: Node, kind: schema.Kind) -> int:
    """A feature's index in its layer or a token's in the vocabulary; -1 where there is none.

    It is in the node's id; else a feature's comes from Cantor's number."""
    number = -1 if n["feature"] is None else n["feature"]
    if kind not in ("feature", "embedding"):
        return number if kind == "logit" else -1
    layer, found = EMBEDDING_LAYER if kind == "embedding" else layer_of(n), _parsed(n["node_id"])
    if found is not None and (found.layer, found.position) == (layer, n["ctx_idx"]):
        return found.feature
    if kind == "embedding":
        return -1
    paired = uncantor(max(number, 0))
    return paired[1] if paired[0] == layer else number


def _parsed(name: str) -> NodeId | None:
    """An id like "3_127_8", or EleutherAI's "intermediate_8_3_127" (position, layer, feature); None for others."""
    if theirs := re.fullmatch(r".*_([0-9]{1,9})_([0-9]{1,9})_([0-9]{1,9})", name):
        return NodeId(layer=int(theirs[2]), feature=int(theirs[3]), position=int(theirs[1]))
    try:
        return NodeId.parse(name)
    except ValueError:
        return None


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _adjacency(links: Iterable[Link], index: Mapping[str, int]) -> np.ndarray:
    """[target, source]; in float32 where that loses no digit of the file."""
    weights = _weights(links)
    values = np.array(list(weights.values()), dtype=np.float64)
    dtype = np.float32 if (values.astype(np.float32) == values).all() else np.float64
    adjacency = np.zeros((len(index), len(index)), dtype=dtype)
    adjacency[[index[target] for _, target in weights], [index[source] for source, _ in weights]] = values
    schema.check_no_loop(weights)
    return adjacency


def _of_edges(links: Iterable[Link], index: Mapping[str, int], name: str) -> np.ndarray | None:
    """[target, source]: what links say of themselves under `name`; None where none says anything."""
    known = [(index[link["target"]], index[link["source"]], x) for link in links if (x := link.get(name)) is not None]
    if not known:
        return None
    found = np.zeros((len(index), len(index)), dtype=np.float32)
    target, source, values = zip(*known, strict=True)
    found[list(target), list(source)] = values
    return found
