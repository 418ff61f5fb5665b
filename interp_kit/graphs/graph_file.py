"""An attribution graph to and from its file; the format itself is `formats/graph_json.py`'s."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..formats.graph_json import is_graph_file, read_graph, slug_of, write_graph
from ..formats.graph_tables import node_rows
from ..formats.provenance import check_belongs, insisted
from ..storage.atomic import check_replaceable, resolved
from . import influence
from .graph import AttributionGraph, check_store, plain_label, signed

if TYPE_CHECKING:  # of a room above
    from ..features import FeatureStore


def save_graph(graph: AttributionGraph, path: str | Path, features: "FeatureStore | None", listed: bool) -> None:
    """See `AttributionGraph.save`."""
    path, scan = resolved(path), None
    check_replaceable(path, is_graph_file)  # before the features are written beside it
    if features is not None:
        check_store(features)
        check_belongs(features, "features", graph, "graph")
        mine = graph.features[["layer", "feature"]].itertuples(index=False, name=None)
        features.save_json(path.parent / "features" / slug_of(path), set(mine))
        # The viewer serves the graphs' folder as ./data and fetches {scan}/{index}.json where scan starts with "./".
        scan = f"./data/features/{slug_of(path)}"
    write_graph(graph, path, scan, listed)


def load_graph(path: str | Path, belongs_to: object = None) -> AttributionGraph:
    """A graph from a public JSON file, ours or another tool's; saved again, it is the same file.

    belongs_to: a model, transcoder or store that it goes with, whatever the file says of its model (see
        `ik.load_features`).

    Where a file has no influence, it is computed from the file's own links. circuit-tracer up to 0.5 may give a
    feature of layer 0 and an error one id: the error is renamed, with a warning.

    Raises FileNotFoundError; MemoryError, before allocating, for more nodes than fit; else ValueError naming the place
    in the file and what was expected there, also for nodes of attention replacements (feature_type "lorsa").

    >>> ik.load_graph("mine.json").show()
    """
    path = Path(path)
    tables = read_graph(path)
    nodes = tables.nodes
    # A label that is missing would make all such features of a position one step of a path.
    nodes["label"] = [n.label or plain_label(n.kind, n.layer, n.feature, n.token) for n in node_rows(nodes)]
    if name := tables.asked.get("name"):
        nodes.loc[nodes["kind"] == "logit", "label"] = name
    try:
        if nodes["contribution"].isna().all():
            nodes["contribution"], tables.conditioning = signed(nodes, tables.adjacency)
        if nodes["influence"].isna().any():
            weights = nodes["probability"].fillna(0).to_numpy(float)
            nodes["influence"] = influence.influence(tables.adjacency, nodes["layer"].to_numpy(int), weights)
    except ValueError as error:
        raise ValueError(f"{path} is not an attribution graph that interp_kit can read: {error}") from None
    share = influence.cumulative_share(nodes["influence"].to_numpy())
    nodes["cumulative"] = nodes["cumulative"].where(nodes["cumulative"].notna(), share)
    tables.origin["nodes"] = nodes.copy()
    tables.about = insisted(tables.about, belongs_to)
    return AttributionGraph(**vars(tables))
