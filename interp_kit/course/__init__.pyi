"""What an editor sees of `ik.course.`; `__init__.py` reads the same lines to know where each name lives."""

from .assignments import hidden_test as hidden_test
from .check import Check as Check
from .check import check as check
from .predict import Prediction as Prediction
from .predict import predict as predict
from .predict import predictions as predictions
from .puzzles import PUZZLES as PUZZLES
from .questions import FunctionQuestion as FunctionQuestion
from .questions import ValueQuestion as ValueQuestion
from .questions import variant as variant

__all__ = [
    "PUZZLES", "Check", "FunctionQuestion", "Prediction", "ValueQuestion", "check", "hidden_test", "predict",
    "predictions", "variant",
]  # fmt: skip
