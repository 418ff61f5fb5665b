"""Training a transcoder: activations, the trainer and its recipes, several processes, a plan beforehand."""

from .planning import Plan, plan_training
from .train import TrainingRun, train_transcoder

__all__ = ["Plan", "TrainingRun", "plan_training", "train_transcoder"]
