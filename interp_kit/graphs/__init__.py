"""Attribution graphs: computing, scoring, pruning, changing and saving them."""

from .attribution import attribute
from .graph import AttributionGraph
from .graph_file import load_graph
from .interventions import Steer, intervene, swap
from .validation import validate

__all__ = [
    "AttributionGraph",
    "Steer",
    "attribute",
    "intervene",
    "load_graph",
    "swap",
    "validate",
]
