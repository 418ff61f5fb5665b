"""Attribution graphs: computing, scoring, pruning, changing and saving them."""

from .attribution import attribute
from .frontier import Frontier, frontier
from .graph import AttributionGraph
from .graph_file import load_graph
from .interventions import Steer, intervene, swap
from .validation import validate

__all__ = [
    "AttributionGraph",
    "Frontier",
    "Steer",
    "attribute",
    "frontier",
    "intervene",
    "load_graph",
    "swap",
    "validate",
]
