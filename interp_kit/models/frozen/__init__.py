"""A model's frozen (linear) view of one prompt, and the two ways to take gradients through it."""

from .freezing import frozen_attention, frozen_norms, noted_scores
from .linear_maps import LinearMaps, linear_maps
from .model import FrozenModel, in_dtype

__all__ = ["FrozenModel", "LinearMaps", "frozen_attention", "frozen_norms", "in_dtype", "linear_maps", "noted_scores"]
