"""The cross-layer transcoder: module, training, evaluation, files."""

from .evaluation import evaluate_transcoder
from .files import load_transcoder
from .module import CrossLayerTranscoder, TranscoderConfig
from .training import TrainingRun, train_transcoder

__all__ = [
    "CrossLayerTranscoder",
    "TrainingRun",
    "TranscoderConfig",
    "evaluate_transcoder",
    "load_transcoder",
    "train_transcoder",
]
