"""The cross-layer transcoder: module, training, evaluation, files."""

from .evaluation import evaluate_transcoder
from .folder import load_transcoder
from .module import CrossLayerTranscoder, TranscoderConfig
from .training import Plan, TrainingRun, plan_training, train_transcoder

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
