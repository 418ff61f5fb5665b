"""Attribution graphs: computing, scoring, pruning, changing and saving them."""

from .attribution import attribute
from .files import load_graph
from .frontier import Frontier, frontier
from .graph import AttributionGraph
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
