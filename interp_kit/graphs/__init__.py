"""Attribution graphs: computing, scoring, pruning, changing and saving them."""

from ..formats.node_id import NodeId
from .attribution import attribute
from .edge_grades import grade_edges
from .family import family
from .graph import AttributionGraph
from .graph_file import load_graph
from .head_view import browse_heads
from .heads import head_loadings
from .interventions import Steer, intervene, swap
from .qk_attribution import qk_attribution
from .validation import validate

__all__ = [
    "AttributionGraph", "NodeId", "Steer", "attribute", "browse_heads", "family", "grade_edges", "head_loadings",
    "intervene", "load_graph", "qk_attribution", "swap", "validate",
]  # fmt: skip
