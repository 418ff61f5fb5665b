"""How a gradient goes down through the frozen model: one interface, two back ends."""

from .algebra import Algebra
from .autograd import Autograd
from .model import FrozenModel

LinearMaps = Algebra | Autograd  # the same methods, which `Algebra` documents


def linear_maps(frozen: FrozenModel, feature_input_hook: str) -> LinearMaps:
    """Choose the back end that carries gradients one layer down: algebra for known families, else autograd.

    feature_input_hook: what the transcoder's encoder reads, one of `anatomy.FEATURE_INPUT_HOOKS`.
    """
    return Algebra(frozen, feature_input_hook) if frozen.parts.layout else Autograd(frozen, feature_input_hook)
