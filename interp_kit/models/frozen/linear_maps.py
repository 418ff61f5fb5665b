"""How a gradient goes down through the frozen model: one interface, two back ends."""

from typing import Protocol

from torch import Tensor

from .algebra import Algebra
from .autograd import Autograd
from .model import FrozenModel


class LinearMaps(Protocol):
    """One prompt's frozen layers, as linear maps of a gradient [target, position, d_model].

    The positions of a gradient may be only the first ones of the prompt: a target needs none after its own.
    """

    thread_safe: bool  # whether several threads may use one object at once

    def mlp_gradient(self, layer: int, gradient: Tensor) -> Tensor:
        """The gradient at what MLP `layer` writes, given the one at the stream after the layer; both
        [target, position, d_model]."""
        ...

    def pull(
        self, layer: int, gradient: Tensor, n: int, rows: Tensor, positions: Tensor, skip: Tensor | None, bias: Tensor
    ) -> None:
        """Takes gradient [target, position, d_model] from the stream after `layer` to the stream before it, in place.

        The first n targets come from above. The others start here: they are `rows` [target, d_model], gradients at
        the encoder's input at `positions` [target]. `skip` [n, position, d_model] or None is a further gradient at the
        encoder's input for the first n. What the layer's biases contribute is added to bias [target].
        """
        ...


def linear_maps(frozen: FrozenModel, feature_input_hook: str) -> LinearMaps:
    """Choose the back end that carries gradients one layer down: algebra for known families, else autograd.

    feature_input_hook: what the transcoder's encoder reads, one of `families.FEATURE_INPUT_HOOKS`.
    """
    return Algebra(frozen, feature_input_hook) if frozen.parts.layout else Autograd(frozen, feature_input_hook)
