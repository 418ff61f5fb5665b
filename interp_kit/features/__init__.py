"""What a feature responds to, and a name for it."""

from .labels import label_features
from .public import load_public_features
from .store import FeatureStore, collect_features, load_features

__all__ = ["FeatureStore", "collect_features", "label_features", "load_features", "load_public_features"]
