"""A model's frozen (linear) view of one prompt, and the two ways to take gradients through it."""

from .model import FrozenModel, linear_maps

__all__ = ["FrozenModel", "linear_maps"]
