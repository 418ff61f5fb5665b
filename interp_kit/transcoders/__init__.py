"""The cross-layer transcoder: module, training, evaluation, files."""

from .evaluation import evaluate_transcoder
from .files import load_transcoder
from .module import CrossLayerTranscoder, TranscoderConfig
from .planning import Plan, plan_training
from .training import TrainingRun, train_transcoder

__all__ = [
    "CrossLayerTranscoder",
    "Plan",
    "TrainingRun",
    "TranscoderConfig",
    "evaluate_transcoder",
    "load_transcoder",
    "plan_training",
    "train_transcoder",
]
