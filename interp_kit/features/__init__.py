"""What a feature or a neuron responds to, a name for it, and what the name is worth."""

from .collect import collect_features
from .labels import label_features, student_labels
from .llm import LLM, label_prompt
from .neurons import neuron_examples
from .polysemanticity import polysemanticity
from .scores import score_labels
from .steering import steering_scores
from .store import FeatureStore, load_feature_json, load_features, load_labels
from .superposition import toy_superposition
from .units import Neurons, RandomDirections

__all__ = [
    "FeatureStore",
    "LLM",
    "Neurons",
    "RandomDirections",
    "collect_features",
    "label_features",
    "label_prompt",
    "load_feature_json",
    "load_features",
    "load_labels",
    "neuron_examples",
    "polysemanticity",
    "score_labels",
    "steering_scores",
    "student_labels",
    "toy_superposition",
]
