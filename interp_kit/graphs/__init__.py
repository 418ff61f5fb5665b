"""Attribution graphs: computing, scoring, pruning, changing and saving them."""

from ..formats.node_id import NodeId
from .attribution import attribute
from .edge_grades import grade_edges
from .graph import AttributionGraph
from .graph_file import load_graph
from .interventions import Steer, intervene, swap
from .validation import validate

__all__ = [
    "AttributionGraph", "NodeId", "Steer", "attribute", "grade_edges", "intervene", "load_graph", "swap", "validate",
]  # fmt: skip
