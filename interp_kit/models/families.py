"""Where things are in a transformers model: the one table that knows module names.

    parts = anatomy(model.hf)
    parts.blocks[3].mlp

A family with an entry in FAMILIES is handled by plain algebra (`frozen/algebra.py`); a decoder whose modules
have one of the same layouts, but whose family is not listed, by autograd (`frozen/autograd.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from .hooks import Callback, Hook, hooked

# What a transcoder's encoder reads, by circuit-tracer's hook names: the residual stream before the MLP's norm; that
# divided by the norm's denominator (and centred by a LayerNorm), without gain; what the MLP itself sees.
RESIDUAL, NORMALIZED, MLP_INPUT = FEATURE_INPUT_HOOKS = ("hook_resid_mid", "ln2.hook_normalized", "mlp.hook_in")


# ---------------------------------------------------------------- norms


@dataclass(frozen=True)
class Norm:
    """An RMSNorm or LayerNorm taken apart: (x - mean if centred) / denominator * gain + bias."""

    gain: torch.Tensor
    bias: torch.Tensor | None
    centred: bool
    eps: float

    @classmethod
    def of(cls, module: nn.Module) -> "Norm":
        """Reads `module`. Gemma multiplies by 1 + weight, others by weight; a probe vector tells which.

        Raises ValueError for a module that is neither kind of norm.
        """
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        centred = isinstance(module, nn.LayerNorm)
        if eps is None or weight is None:
            raise ValueError(f"{type(module).__name__} is no RMSNorm or LayerNorm with a weight that interp_kit knows")
        weight, bias = weight.detach(), getattr(module, "bias", None)
        probe = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            wanted = module(probe).double()

        def error(norm: "Norm") -> float:
            return float((norm(probe).double() - wanted).abs().max())

        norm = min([cls(weight, bias, centred, eps), cls(1 + weight, bias, centred, eps)], key=error)
        size = norm.normalised(probe).abs().max() * (1 + norm.gain.abs().max())
        if error(norm) < 2e-2 * size:  # half precision is coarse
            return norm
        raise ValueError(f"{type(module).__name__} does not compute an RMSNorm or LayerNorm as interp_kit knows them")

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """One over the denominator of x [..., d_model]: [...]."""
        return (self.centre(x).pow(2).mean(-1) + self.eps).rsqrt()

    def centre(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., d_model] less its mean, where the norm is a LayerNorm."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def normalised(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., d_model] / denominator, before gain and bias; with `scale` [...] in place of its own where that is
        frozen."""
        return self.centre(x) * (self.scale(x) if scale is None else scale)[..., None]

    def push(self, x: torch.Tensor) -> torch.Tensor:
        """The norm without denominator and bias: a linear map of x [..., d_model]."""
        return self.centre(x) * self.gain

    def pull(self, gradient: torch.Tensor) -> torch.Tensor:
        """The transpose of `push`: from a gradient at the norm's output to one at its input."""
        return self.centre(gradient * self.gain)

    def __call__(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """The whole norm; see `normalised`."""
        y = self.normalised(x, scale) * self.gain
        return y if self.bias is None else y + self.bias


# ---------------------------------------------------------------- layouts


Projection = Callable[[nn.Module], tuple[torch.Tensor, torch.Tensor | None]]


def _linear(name: str) -> Projection:
    return lambda attention: (getattr(attention, name).weight, getattr(attention, name).bias)


def _gpt2_value(attention):
    """c_attn is a Conv1D [d_model, 3 d_model]: q, k and v side by side."""
    width = attention.split_size
    return attention.c_attn.weight[:, 2 * width :].T, attention.c_attn.bias[2 * width :]


def _gpt2_out(attention):
    return attention.c_proj.weight.T, attention.c_proj.bias


def _neox_value(attention):
    """query_key_value is [head, (q, k, v), width] in rows."""
    packed = attention.query_key_value
    weight, bias = packed.weight, packed.bias
    value = weight.view(-1, 3, attention.head_size, weight.shape[1])[:, 2].flatten(0, 1)
    return value, None if bias is None else bias.view(-1, 3, attention.head_size)[:, 2].flatten()


@dataclass(frozen=True)
class Layout:
    """The names of a family's modules, and where its value and output projections are.

    `projection` is the module within attention that takes the heads, side by side, to the stream. `value` and `out`
    take the attention module and return weight and bias (or None), the weights as in nn.Linear: [groups * width,
    d_model] and [d_model, heads * width].
    """

    blocks: str = "layers"
    final_norm: str = "norm"
    attention_norm: str = "input_layernorm"
    attention: str = "self_attn"
    mlp_norm: str = "post_attention_layernorm"
    mlp: str = "mlp"
    after_attention: str | None = None  # a norm on what attention writes
    after_mlp: str | None = None  # a norm on what the MLP writes
    positions: str | None = None  # learnt position embeddings
    projection: str = "o_proj"
    value: Projection = _linear("v_proj")
    out: Projection = _linear("o_proj")


LLAMA = Layout()
GEMMA = replace(
    LLAMA, after_attention="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm", after_mlp="post_feedforward_layernorm",
)  # fmt: skip
GPT2 = Layout(
    "h", "ln_f", "ln_1", "attn", "ln_2", "mlp", positions="wpe", projection="c_proj", value=_gpt2_value, out=_gpt2_out
)  # fmt: skip
NEOX = replace(
    LLAMA, final_norm="final_layer_norm", attention="attention", projection="dense", value=_neox_value,
    out=_linear("dense"),
)  # fmt: skip

FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), LLAMA),
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text"), GEMMA),
    "gpt2": GPT2,
    "gpt_neox": NEOX,
}


# ---------------------------------------------------------------- a model's parts


@dataclass(frozen=True)
class Block:
    """One decoder layer: the modules that attribution and training look at.

    `projection` takes attention's heads, side by side, to the stream (None where it has another name). `writer` is the
    module whose output is added to the residual stream: the MLP, or the norm after it. With `parallel` the MLP reads
    the stream that attention reads, not what attention has written to it.
    """

    layer: nn.Module
    attention_norm: nn.Module
    attention: nn.Module
    projection: nn.Module | None
    after_attention: nn.Module | None
    mlp_norm: nn.Module
    mlp: nn.Module
    writer: nn.Module
    parallel: bool

    def feature_input_hook(self, name: str, callback: Callback, fixed: tuple[Norm, torch.Tensor] | None = None) -> Hook:
        """For `hooked`: `callback` sees what a transcoder's encoder reads [batch, position, d_model].

        name: one of FEATURE_INPUT_HOOKS. fixed: where norms are frozen, the one before the MLP and one over its
        denominators.
        """
        if name == MLP_INPUT:
            return self.mlp, "in", callback
        if name == RESIDUAL:
            return self.mlp_norm, "in", callback
        norm, scale = fixed or (Norm.of(self.mlp_norm), None)
        return self.mlp_norm, "in", lambda x: callback(norm.normalised(x, scale))

    def feature_output_hook(self, callback: Callback) -> Hook:
        """For `hooked`: `callback` sees what the MLP writes to the stream, which a transcoder rebuilds."""
        return self.writer, "out", callback


@dataclass(frozen=True)
class Anatomy:
    """`positions` embeds positions (None in most families); `layout` is None for a family not in FAMILIES."""

    positions: nn.Embedding | None
    blocks: list[Block]
    final_norm: nn.Module
    unembedding: nn.Linear
    layout: Layout | None


def anatomy(hf: PreTrainedModel) -> Anatomy:
    """The parts of a loaded transformers model.

    Raises ValueError for a model that is laid out like none of the families, or has no unembedding.
    """
    decoder, listed = hf.get_decoder(), FAMILIES.get(hf.config.model_type)
    layouts = [listed] if listed else [GEMMA, LLAMA, NEOX, GPT2]
    layout = next((layout for layout in layouts if _fits(decoder, layout)), None)
    if layout is None:
        raise ValueError(
            f"models of the family {hf.config.model_type!r} are laid out like none that interp_kit knows "
            f"({', '.join(FAMILIES)}): give it an entry in interp_kit/models/families.py"
        )
    parallel = getattr(hf.config, "use_parallel_residual", False)
    blocks = [_block(layer, layout, parallel) for layer in getattr(decoder, layout.blocks)]
    positions = getattr(decoder, layout.positions) if layout.positions else None
    unembedding = hf.get_output_embeddings()
    if unembedding is None:
        raise ValueError(f"{type(hf).__name__} gives no logits: load it as a causal language model")
    return Anatomy(positions, blocks, getattr(decoder, layout.final_norm), unembedding, listed)


def input_embeddings(hf: PreTrainedModel) -> torch.Tensor:
    """The embedding of every token: [token, d_model]."""
    return cast("nn.Embedding", hf.get_input_embeddings()).weight


def _fits(decoder: nn.Module, layout: Layout) -> bool:
    names = (layout.attention_norm, layout.attention, layout.mlp_norm, layout.mlp, layout.after_mlp)
    blocks = getattr(decoder, layout.blocks, None)
    if blocks is None or not hasattr(decoder, layout.final_norm):
        return False
    return all(getattr(blocks[0], name, None) is not None for name in names if name)


def _block(layer: nn.Module, layout: Layout, parallel: bool) -> Block:
    attention, mlp = getattr(layer, layout.attention), getattr(layer, layout.mlp)
    return Block(
        layer=layer, attention_norm=getattr(layer, layout.attention_norm), attention=attention,
        projection=getattr(attention, layout.projection, None),
        after_attention=getattr(layer, layout.after_attention) if layout.after_attention else None,
        mlp_norm=getattr(layer, layout.mlp_norm), mlp=mlp,
        writer=getattr(layer, layout.after_mlp) if layout.after_mlp else mlp, parallel=parallel,
    )  # fmt: skip


def mlp_activations(
    hf: PreTrainedModel, ids: torch.Tensor, feature_input_hook: str, layers: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a transcoder of `layers` reads and what their MLPs write: two tensors [layer, batch, position, d_model].

    ids [batch, position]; feature_input_hook is one of FEATURE_INPUT_HOOKS.
    """
    inputs, outputs, hooks = [], [], []
    blocks = anatomy(hf).blocks
    for layer in layers:
        hooks.append(blocks[layer].feature_input_hook(feature_input_hook, inputs.append))
        hooks.append(blocks[layer].feature_output_hook(outputs.append))
    with hooked(*hooks), torch.no_grad():
        hf.base_model(input_ids=ids, use_cache=False)
    return torch.stack(inputs), torch.stack(outputs)
