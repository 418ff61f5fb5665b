"""The puzzles of the lessons, one a file: functions of a few lines that a student writes."""

from .edge import EDGE
from .error_node import ERROR_NODE
from .jumprelu_gradient import JUMPRELU_GRADIENT
from .label_rule import LABEL_RULE
from .logit_lens import LOGIT_LENS
from .puzzle import Puzzle
from .topk import TOPK

PUZZLES = {each.name: each for each in (TOPK, JUMPRELU_GRADIENT, LOGIT_LENS, EDGE, ERROR_NODE, LABEL_RULE)}

__all__ = ["PUZZLES", "Puzzle"]
