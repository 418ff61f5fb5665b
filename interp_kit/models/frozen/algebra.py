"""The frozen model's linear maps as plain matrix products: no autograd, nothing but the gradient in memory.

With its pattern and its norms' denominators fixed, what attention writes is

    out[q] = sum over heads h and keys k of  pattern[h, q, k] * W_O[h] W_V[h] x[k]   + biases

so a gradient goes back through W_O, the pattern and W_V. Norm gains are folded into the two weights,
denominators into the pattern; heads that share a value head (grouped queries) are summed by the product
with the pattern. A gradient is [target, position, d_model], so that the targets that have started are side by side in
memory; what W_O makes of them has its heads in an order in which the product with the pattern needs no copy.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..families import MLP_INPUT, RESIDUAL, Norm
from .model import FrozenModel


class Algebra:
    """`LinearMaps` for a family that `families.FAMILIES` lists."""

    thread_safe = True

    def __init__(self, frozen: FrozenModel, feature_input_hook: str):
        self.frozen, self.feature_input_hook = frozen, feature_input_hook

    @cached_property
    def attentions(self) -> list["FrozenAttention"]:
        """One a layer."""
        return [FrozenAttention.of(self.frozen, layer) for layer in range(self.frozen.n_layers)]

    @cached_property
    def readers(self) -> list[tuple[Norm, Tensor]]:
        """The norm before each MLP and one over its denominators [position]."""
        norms = [Norm.of(block.mlp_norm) for block in self.frozen.parts.blocks]
        return [(norm, norm.scale(x)) for norm, x in zip(norms, self.frozen.residual_mid, strict=True)]

    def mlp_gradient(self, layer: int, gradient: Tensor) -> Tensor:
        """See `LinearMaps.mlp_gradient`."""
        return gradient

    def pull(
        self, layer: int, gradient: Tensor, n: int, rows: Tensor, positions: Tensor, skip: Tensor | None, bias: Tensor
    ) -> None:
        """See `LinearMaps.pull`."""
        stream_rows, constant = self.read_back(layer, rows, positions)
        bias[n:] += constant
        if skip is not None:
            skip, constant = self.read_back(layer, skip, torch.arange(gradient.shape[1]))
            bias[:n] += constant.sum(1)
        if self.frozen.parts.blocks[layer].parallel:  # the MLP reads what attention reads
            self.attentions[layer].pull(gradient[:n], bias[:n])
        if skip is not None:
            gradient[:n] += skip
        gradient[torch.arange(n, len(gradient)), positions] = stream_rows
        if not self.frozen.parts.blocks[layer].parallel:
            self.attentions[layer].pull(gradient, bias)

    def read_back(self, layer: int, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients rows [..., row, d_model] at the encoder's input of positions [row] -> rows at the stream, and what
        the norm's bias adds [..., row]."""
        norm, scale = self.readers[layer]
        constant = torch.zeros_like(rows[..., 0])
        if self.feature_input_hook == RESIDUAL:
            return rows, constant
        if self.feature_input_hook == MLP_INPUT:
            if norm.bias is not None:
                constant = rows @ norm.bias
            rows = rows * norm.gain
        return norm.centre(rows) * scale[positions][:, None], constant

    def read(self, layer: int, x: Tensor) -> Tensor:
        """What a stream vector x [source, position, d_model] becomes at the encoder's input, but for biases: the
        transpose of `read_back`."""
        norm, scale = self.readers[layer]
        if self.feature_input_hook == RESIDUAL:
            return x
        return (norm.push(x) if self.feature_input_hook == MLP_INPUT else norm.centre(x)) * scale[:, None]


@dataclass
class FrozenAttention:
    """One layer's attention on one prompt, all that is linear about it.

    value [groups * width, d_model]; out [d_model, heads * width]; pattern [group, key, query, head in group];
    constant [position, d_model], what its biases write, or None.
    """

    value: Tensor
    out: Tensor
    pattern: Tensor
    constant: Tensor | None

    @classmethod
    def of(cls, frozen: FrozenModel, layer: int) -> "FrozenAttention":
        """Raises NotImplementedError for a family that `families.FAMILIES` does not list."""
        block, layout, pattern = frozen.parts.blocks[layer], frozen.parts.layout, frozen.patterns[layer]
        if layout is None:
            family = frozen.hf.config.model_type
            raise NotImplementedError(f"where the heads of {family!r} models are is not known: see models/families.py")
        value, value_bias = layout.value(block.attention)
        out, out_bias = layout.out(block.attention)
        t, width = frozen.n_positions, out.shape[1] // len(pattern)
        before = Norm.of(block.attention_norm)
        value_bias = _sum(value_bias, None if before.bias is None else value @ before.bias)
        written = _sum(None if value_bias is None else _arriving(pattern, value_bias, width) @ out.T, out_bias)
        scale = before.scale(frozen.residual_pre[layer])[None, None, :]
        if block.after_attention is not None:
            after, attention_out = Norm.of(block.after_attention), frozen.attention_out[layer]
            after_scale = after.scale(attention_out)
            out = after.push(out.T).T
            written = _sum(None if written is None else after.push(written) * after_scale[:, None], after.bias)
            scale = scale * after_scale[None, :, None]
        pattern = (pattern * scale).view(len(value) // width, -1, t, t).permute(0, 3, 2, 1).contiguous()
        constant = None if written is None else written.expand(t, -1)
        return cls(before.pull(value), out, pattern, constant)

    def pull(self, gradient: Tensor, bias: Tensor) -> None:
        """Adds to gradient [target, position, d_model] what comes back through the attention, in place."""
        if self.constant is not None:
            bias += torch.einsum("nqd,qd->n", gradient, self.constant[: gradient.shape[1]])
        (n, q, d_model), (groups, *_, per_group) = gradient.shape, self.pattern.shape
        gradient = gradient.view(n * q, d_model)
        at_heads = (gradient @ self._out_by_place()).view(n, q * per_group, groups, self.width)
        at_values = gradient.new_empty(n, q, groups, self.width)
        for group, pattern in enumerate(self.pattern[:, :q, :q].flatten(2)):
            at_values[:, :, group] = torch.bmm(pattern.expand(n, -1, -1), at_heads[:, :, group])
        gradient.addmm_(at_values.view(n * q, len(self.value)), self.value)

    def push(self, x: Tensor) -> Tensor:
        """What attention writes of stream vectors x [source, position, d_model], but for its biases: the same shape."""
        n, q, _ = x.shape
        values = (x @ self.value.T).view(n, q, len(self.pattern), self.width)
        arriving = [
            torch.bmm(pattern.T.expand(n, -1, -1), values[:, :, group])  # [source, query and head in group, width]
            for group, pattern in enumerate(self.pattern[:, :q, :q].flatten(2))
        ]
        return torch.stack(arriving, 2).view(n, q, self.out.shape[1]) @ self._out_by_place().T

    def by_head(self, gradient: Tensor, x: Tensor) -> Tensor:
        """What each head carries from stream vectors x [source, position, d_model] to gradients [target, position,
        d_model] at what attention writes: [head, target, source]; summed over heads, `gradient` times `push(x)`."""
        (n, q, _), (groups, *_, per_group) = x.shape, self.pattern.shape
        values = (x @ self.value.T).view(n, q, groups, self.width)
        wanted = (gradient @ self.out).view(len(gradient), q, groups, per_group, self.width)
        heads = []
        for group in range(groups):
            of_sources = values[:, :, group].flatten(1)  # [source, key width]
            for head in range(per_group):
                at_keys = torch.einsum("kq,mqw->mkw", self.pattern[group, :, :, head], wanted[:, :, group, head])
                heads.append(at_keys.flatten(1) @ of_sources.T)
        return torch.stack(heads)

    @property
    def width(self) -> int:
        """Of a head's values."""
        return len(self.value) // len(self.pattern)

    def _out_by_place(self) -> Tensor:
        """`out` with the first heads of all groups first, then their second heads, and so on: what it makes of a
        gradient is [query and head in group, group, width] of each target, whose groups are matrices without a copy."""
        by_place = self.out.view(len(self.out), len(self.pattern), -1, self.width).transpose(1, 2)
        return by_place.reshape(self.out.shape)


def _arriving(pattern: Tensor, value_bias: Tensor, width: int) -> Tensor:
    """What a value bias [groups * width] becomes after the pattern [head, query, key]: [query, heads * width].

    The pattern's rows sum to one, but for the float32 of transformers' softmax.
    """
    groups = value_bias.view(-1, width)
    heads = groups.repeat_interleave(len(pattern) // len(groups), 0)
    return (pattern.sum(-1).T[:, :, None] * heads).flatten(1)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b, where None stands for nothing."""
    if a is None or b is None:
        return b if a is None else a
    return a + b
