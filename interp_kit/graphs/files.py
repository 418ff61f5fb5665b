"""Graph files: the JSON of the public attribution-graph viewer and Neuronpedia (schema version 1).

Beyond the schema, which readers ignore: `metadata.interp_kit` (layers, scores, supernodes are in qParams) and, on
a node, `bias` and `token`.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import atomic_file
from .graph import AttributionGraph

KINDS = {
    "cross layer transcoder": "feature",
    "mlp reconstruction error": "error",
    "embedding": "embedding",
    "logit": "logit",
}
TYPES = {kind: name for name, kind in KINDS.items()}
NODE_KEYS = ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp")


def save_graph(graph: AttributionGraph, path: str | Path) -> None:
    path = Path(path)
    slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "graph"
    ids = graph.nodes["id"].tolist()
    target, source = graph.adjacency.nonzero()
    best = graph.nodes.loc[graph.nodes["kind"] == "logit", "id"].iloc[0]
    content = {
        "metadata": {
            "slug": slug,
            "scan": graph.about.get("model", "") or "unknown",
            "transcoder_list": [],
            "prompt_tokens": graph.tokens,
            "prompt": graph.prompt,
            "node_threshold": 1.0,
            "schema_version": 1,
            "info": {"generator": {"name": "interp_kit"}},
            "interp_kit": {"n_layers": graph.n_layers, "about": graph.about, "scores": graph.scores},
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [[name, *members] for name, members in graph.supernodes.items()],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [_node(n, graph, n.id == best) for n in graph.nodes.itertuples()],
        "links": [
            {"source": ids[s], "target": ids[t], "weight": float(graph.adjacency[t, s])}
            for t, s in zip(target, source, strict=True)
        ],
    }
    text = json.dumps(content, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _node(n, graph, is_target):
    last = len(graph.tokens) - 1
    layer = {"embedding": "E", "logit": str(graph.n_layers + 1)}.get(n.kind, str(n.layer))
    js = {
        "feature": f"{n.layer}_{n.feature}-0",
        "error": f"{n.layer}_{n.position}-0",
        "embedding": f"E_{n.feature}-{n.position}",
        "logit": f"L_{n.feature}-{n.position}",
    }[n.kind]
    clerp = f'Output "{n.token}" (p={n.probability:.3f})' if n.kind == "logit" else n.label
    public_feature = {
        "feature": (n.layer + n.feature) * (n.layer + n.feature + 1) // 2 + n.feature,  # Cantor's pairing
        "error": -1,
        "embedding": n.position,
        "logit": n.feature,
    }[n.kind]
    number = lambda v: None if v is None or math.isnan(v) else float(v)  # noqa: E731
    return {
        "node_id": n.id,
        "feature": int(public_feature),
        "layer": layer,
        "ctx_idx": int(n.position),
        "feature_type": TYPES[n.kind],
        "token_prob": number(n.probability) or 0.0,
        "is_target_logit": bool(is_target),
        "run_idx": 0,
        "reverse_ctx_idx": int(last - n.position),
        "jsNodeId": js,
        "clerp": clerp,
        "influence": float(n.cumulative),
        "activation": number(n.activation),
        "bias": number(n.bias),
        "token": n.token,
        "raw_influence": float(n.influence),
    }


def load_graph(path: str | Path) -> AttributionGraph:
    """A graph from a public JSON file, ours or another tool's.

    Raises FileNotFoundError, or ValueError naming what is missing or does not fit.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file, or is cut short: {error}") from error
    _check(content, path)
    metadata = content["metadata"]
    nodes = pd.DataFrame([_row(n, metadata["prompt_tokens"]) for n in content["nodes"]])
    own = metadata.get("interp_kit") or {}
    numbers = nodes.loc[~nodes["kind"].isin(["logit"]), "layer"]
    n_layers = int(own.get("n_layers") or numbers.max() + 1)
    nodes.loc[nodes["kind"] == "logit", "layer"] = n_layers
    index = {node: i for i, node in enumerate(nodes["id"])}
    adjacency = np.zeros((len(nodes), len(nodes)), dtype=np.float32)
    for link in content["links"]:
        adjacency[index[link["target"]], index[link["source"]]] = link["weight"]
    return AttributionGraph(
        prompt=metadata["prompt"],
        tokens=metadata["prompt_tokens"],
        n_layers=n_layers,
        nodes=nodes,
        adjacency=adjacency,
        about=own.get("about") or {"model": metadata["scan"]},
        supernodes={s[0]: s[1:] for s in (content.get("qParams") or {}).get("supernodes", [])},
        scores=own.get("scores"),
    )


def _check(content, path):
    def need(condition, what):
        if not condition:
            raise ValueError(f"{path} is not an attribution graph: {what}")

    need(isinstance(content, dict), "expected a JSON object")
    for key, kind in (("metadata", dict), ("nodes", list), ("links", list)):
        need(isinstance(content.get(key), kind), f"{key!r} should be a {kind.__name__}")
    metadata = content["metadata"]
    for key, kind in (("slug", str), ("scan", str), ("prompt", str), ("prompt_tokens", list)):
        need(isinstance(metadata.get(key), kind), f"metadata.{key} should be a {kind.__name__}")
    need(content["nodes"], "it has no nodes")
    for i, node in enumerate(content["nodes"]):
        need(isinstance(node, dict), f"node {i} should be an object")
        missing = [key for key in NODE_KEYS if key not in node]
        need(not missing, f"node {i} lacks {', '.join(missing)}")
        need(
            node["feature_type"] in KINDS,
            f"node {i} has the feature_type {node['feature_type']!r}, known: {', '.join(KINDS)}",
        )
        inside = isinstance(node["ctx_idx"], int) and 0 <= node["ctx_idx"] < len(metadata["prompt_tokens"])
        need(
            inside,
            f"node {i} has ctx_idx {node['ctx_idx']!r}, and the prompt has {len(metadata['prompt_tokens'])} tokens",
        )
    ids = {node["node_id"] for node in content["nodes"]}
    need(len(ids) == len(content["nodes"]), "two nodes share one node_id")
    for i, link in enumerate(content["links"]):
        fits = isinstance(link, dict) and link.get("source") in ids and link.get("target") in ids
        need(fits, f"link {i} does not join two of the file's nodes")
        weight = link.get("weight")
        need(isinstance(weight, int | float) and math.isfinite(weight), f"link {i} has the weight {weight!r}")


def _row(n, tokens):
    kind = KINDS[n["feature_type"]]
    layer = {"embedding": -1, "logit": 10**6}.get(kind)
    parts = re.split("_", str(n["node_id"]))
    if kind == "feature" and len(parts) == 3:
        feature = int(parts[1])
    elif kind == "embedding" and len(parts) == 3:
        feature = int(parts[1])
    else:
        feature = int(n["feature"])
    label = n["clerp"]
    token = n.get("token") or (
        tokens[n["ctx_idx"]] if kind != "logit" else label.removeprefix('Output "').split('" (p=')[0]
    )
    return {
        "id": str(n["node_id"]),
        "kind": kind,
        "layer": int(n["layer"]) if layer is None else layer,
        "position": n["ctx_idx"],
        "token": token,
        "feature": feature,
        "label": token if kind == "logit" else label,
        "influence": float(n.get("raw_influence") or 0.0),
        "cumulative": float(n["influence"]) if n.get("influence") is not None else 0.0,
        "activation": _float(n.get("activation")),
        "probability": _float(n.get("token_prob")) if kind == "logit" else math.nan,
        "bias": _float(n.get("bias")),
    }


def _float(value):
    return math.nan if value is None else float(value)
