"""What a course needs: puzzles that check themselves, and predictions that are kept.

ik.course.check("topk", my_topk)             tries a function on random input, and draws what came out
ik.course.predict("austin", "Which layer?")  a box that keeps what was predicted
"""

from .check import Check, check
from .predict import Prediction, predict, predictions
from .puzzles import PUZZLES

__all__ = ["PUZZLES", "Check", "Prediction", "check", "predict", "predictions"]
