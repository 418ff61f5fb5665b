"""What a feature or a neuron responds to, a name for it, and what the name is worth."""

from .collect import collect_features, neuron_examples
from .dictionaries import Dictionary, Neurons, RandomDirections
from .label_scores import Judge, score_labels
from .labels import Rule, label_features, student_labels
from .llm import LLM, label_prompt
from .steering import steering_scores
from .store import Card, FeatureStore, load_feature_json, load_features, load_labels

__all__ = [
    "Card", "Dictionary", "FeatureStore", "Judge", "LLM", "Neurons", "RandomDirections", "Rule", "collect_features",
    "label_features", "label_prompt", "load_feature_json", "load_features", "load_labels", "neuron_examples",
    "score_labels", "steering_scores", "student_labels",
]  # fmt: skip
