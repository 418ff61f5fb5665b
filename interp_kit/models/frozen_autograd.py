"""The frozen model's linear maps by autograd through the model's own layers: slower than the algebra, and right
for any decoder whose parts `anatomy` can find, whatever its projections look like.

A layer runs with attention patterns given, norm denominators fixed and its MLP's output put in from outside;
it is then an affine function of the stream, so its value at zero is what its biases write.
"""

from contextlib import ExitStack, contextmanager
from functools import cache

import torch

from .anatomy import MLP_INPUT, NORMALIZED, Norm
from .frozen import frozen_attention


class Autograd:
    """The same two methods as `frozen_algebra.Algebra`."""

    def __init__(self, frozen, reads: str):
        self.frozen, self.reads = frozen, reads
        self._norms = cache(self._norms)

    def mlp_gradient(self, layer: int, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient at what MLP `layer` writes, given one [position, target, d_model] at the stream after it."""
        written = self._zeros(gradient.shape[1]).requires_grad_()
        out, _ = self._run(layer, self._zeros(gradient.shape[1]), written)
        (found,) = torch.autograd.grad(out, written, self._padded(gradient))
        return found[:, : len(gradient)].transpose(0, 1)

    def pull(self, layer, gradient, n, rows, positions, skip, bias) -> None:
        """See `Algebra.pull`."""
        own, total = torch.arange(n, gradient.shape[1]), gradient.shape[1]
        at_out, at_reader = self._padded(gradient), self._zeros(total)
        at_out[n:] = 0
        at_reader[own, positions] = rows
        if skip is not None:
            at_reader[:n] += self._padded(skip)
        stream = self._zeros(total).requires_grad_()
        outputs = self._run(layer, stream, self._zeros(total))
        bias += (outputs[0].detach() * at_out).sum((1, 2)) + (outputs[1].detach() * at_reader).sum((1, 2))
        (found,) = torch.autograd.grad(outputs, stream, (at_out, at_reader), materialize_grads=True)
        gradient[:] = found[:, : len(gradient)].transpose(0, 1)

    def _zeros(self, n):
        return self.frozen.embeddings.new_zeros(n, *self.frozen.embeddings.shape)

    def _padded(self, gradient):
        """[position, target, d_model], maybe of the first positions only -> [target, every position, d_model]."""
        full = self._zeros(gradient.shape[1])
        full[:, : len(gradient)] = gradient.transpose(0, 1)
        return full

    def _run(self, layer, stream, written):
        """The frozen layer on stream [target, position, d_model], its MLP writing `written`: the stream after it, and
        what the transcoder reads."""
        block, reader = self.frozen.parts.blocks[layer], []
        norms = self._norms(layer)
        at = block.mlp if self.reads == MLP_INPUT else block.mlp_norm
        keep = at.register_forward_pre_hook(lambda _, args: reader.append(args[0]))
        changes = {module: lambda x, f=norm, s=scale: f(x, s) for module, (norm, scale) in norms.items()}
        changes |= {block.mlp: torch.zeros_like} | {block.writer: lambda _: written}
        try:
            with torch.enable_grad(), _forwards(changes):
                out = self._layer(layer, stream)
        finally:
            keep.remove()
        if self.reads == NORMALIZED:
            norm, scale = norms[block.mlp_norm]
            return out, norm.centre(reader[0]) * scale[..., None]
        return out, reader[0]

    def _layer(self, layer, stream):
        rest, named = self.frozen.block_arguments[layer]
        with frozen_attention(self.frozen.hf, self.frozen.patterns):
            out = self.frozen.parts.blocks[layer].layer(stream, *rest, **named)
        return out[0] if isinstance(out, tuple) else out

    def _norms(self, layer):
        """Every norm inside a layer and one over its denominators on this prompt."""
        found, handles = {}, []
        for module in self.frozen.parts.blocks[layer].layer.modules():
            if "Norm" in type(module).__name__:
                norm = Norm.of(module)
                keep = lambda m, args, norm=norm: found.update({m: (norm, norm.scale(args[0]))})  # noqa: E731
                handles.append(module.register_forward_pre_hook(keep))
        try:
            with torch.no_grad():
                self._layer(layer, self.frozen.residual_pre[layer][None])
        finally:
            for handle in handles:
                handle.remove()
        return found


@contextmanager
def _forwards(changes):
    """Inside the block, modules compute the given functions: {module: function of its first argument}."""
    with ExitStack() as undo:
        for module, function in changes.items():
            own = vars(module).get("forward")
            undo.callback(setattr, module, "forward", own) if own else undo.callback(delattr, module, "forward")
            module.forward = lambda x, *_, f=function, **__: f(x)
        yield
