"""What a feature responds to, and a name for it."""

from .labels import label_features
from .public import load_public_features
from .collect import collect_features
from .store import FeatureStore, load_features
from .units import Neurons

__all__ = ["FeatureStore", "Neurons", "collect_features", "label_features", "load_features", "load_public_features"]
