"""The frozen model's linear maps by autograd through the model's own layers: slower than the algebra, and right
for any decoder whose parts `anatomy` can find, whatever its projections look like.

A layer runs with attention patterns given, norm denominators fixed and its MLP's output put in from outside;
it is then an affine function of the stream, so its value at zero is what its biases write.
"""

import torch
from torch import Tensor

from ..hooks import hooked, replaced_forwards
from .freezing import frozen_attention, frozen_norms
from .model import FrozenModel


class Autograd:
    """`LinearMaps` for any decoder."""

    thread_safe = False  # the model's modules are changed while they run

    def __init__(self, frozen: FrozenModel, feature_input_hook: str):
        self.frozen, self.feature_input_hook = frozen, feature_input_hook

    def mlp_gradient(self, layer: int, gradient: Tensor) -> Tensor:
        """See `LinearMaps.mlp_gradient`."""
        written = self._zeros(len(gradient)).requires_grad_()
        out, _ = self._run(layer, self._zeros(len(gradient)), written)
        (found,) = torch.autograd.grad(out, written, self._padded(gradient))
        return found[:, : gradient.shape[1]]

    def pull(
        self, layer: int, gradient: Tensor, n: int, rows: Tensor, positions: Tensor, skip: Tensor | None, bias: Tensor
    ) -> None:
        """See `LinearMaps.pull`."""
        own, total = torch.arange(n, len(gradient)), len(gradient)
        at_out, at_reader = self._padded(gradient), self._zeros(total)
        at_out[n:] = 0
        at_reader[own, positions] = rows
        if skip is not None:
            at_reader[:n] += self._padded(skip)
        stream = self._zeros(total).requires_grad_()
        outputs = self._run(layer, stream, self._zeros(total))
        bias += (outputs[0].detach() * at_out).sum((1, 2)) + (outputs[1].detach() * at_reader).sum((1, 2))
        (found,) = torch.autograd.grad(outputs, stream, (at_out, at_reader), materialize_grads=True)
        gradient[:] = found[:, : gradient.shape[1]]

    def _zeros(self, n: int) -> Tensor:
        return self.frozen.embeddings.new_zeros(n, *self.frozen.embeddings.shape)

    def _padded(self, gradient: Tensor) -> Tensor:
        """[target, position, d_model], maybe of the first positions only -> [target, every position, d_model]."""
        full = self._zeros(len(gradient))
        full[:, : gradient.shape[1]] = gradient
        return full

    @torch.enable_grad()
    def _run(self, layer: int, stream: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        """The frozen layer on stream [target, position, d_model], its MLP writing `written`: the stream after it, and
        what the transcoder reads."""
        frozen, block = self.frozen, self.frozen.parts.blocks[layer]
        args, kwargs = frozen.block_arguments[layer]
        read = []
        reader = block.feature_input_hook(self.feature_input_hook, read.append, frozen.norms.get(block.mlp_norm))
        # The MLP is not computed. What it writes comes from outside: from itself, or from the norm after it.
        outside = {block.mlp: torch.zeros_like} | {block.writer: lambda _: written}
        with (
            frozen_attention(frozen.hf, frozen.patterns),
            frozen_norms(frozen),
            replaced_forwards(outside),
            hooked(reader),
        ):
            out = block.layer(stream, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out, read[0]
