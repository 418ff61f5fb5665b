"""Other ways of looking at what a model does."""

from .chain_of_thought import cot_faithfulness
from .faithfulness import CotFaithfulness
from .problems import Mistake, Problem, Step, stories, sums
from .reliance import Reliance, reliance, share_by_position

__all__ = [
    "CotFaithfulness",
    "Mistake",
    "Problem",
    "Reliance",
    "Step",
    "cot_faithfulness",
    "reliance",
    "share_by_position",
    "stories",
    "sums",
]
