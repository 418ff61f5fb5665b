"""Where things are in a transformers model: the one table that knows module names.

    parts = anatomy(model.hf)
    parts.blocks[3].mlp

A family with an entry in FAMILIES is handled by plain algebra (`frozen/algebra.py`); a decoder whose modules
have one of the same layouts, but whose family is not listed, by autograd (`frozen/autograd.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

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
        """Reads `module`. Gemma's RMSNorms multiply by 1 + weight: which it is, one vector tells.

        Raises ValueError for a module that is neither kind of norm.
        """
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        centred = isinstance(module, nn.LayerNorm)
        if eps is None or weight is None:
            raise ValueError(f"{type(module).__name__} is no RMSNorm or LayerNorm with a weight that interp_kit knows")
        probe = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            found = module(probe).double()
        bias, gains = getattr(module, "bias", None), (weight.detach(), 1 + weight.detach())
        norms = [cls(gain, bias, centred, eps) for gain in gains]
        off = [(norm(probe).double() - found).abs().max() for norm in norms]
        norm = norms[off[1] < off[0]]
        size = norm.normalised(probe).abs().max() * (1 + norm.gain.abs().max())
        if min(off) < 2e-2 * size:  # half precision is coarse
            return norm
        raise ValueError(f"{type(module).__name__} does not compute an RMSNorm or LayerNorm as interp_kit knows them")

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """One over the denominator of x [..., d_model]: [...]."""
        return (self.centre(x).pow(2).mean(-1) + self.eps).rsqrt()

    def centre(self, x: torch.Tensor) -> torch.Tensor:
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


def _linear(name):
    return lambda attention: (getattr(attention, name).weight, getattr(attention, name).bias)


def _gpt2_value(attention):
    """c_attn is a Conv1D [d_model, 3 d_model]: q, k and v side by side."""
    width = attention.split_size
    return attention.c_attn.weight[:, 2 * width :].T, attention.c_attn.bias[2 * width :]


def _gpt2_out(attention):
    return attention.c_proj.weight.T, attention.c_proj.bias


def _neox_value(attention):
    """query_key_value is [head, (q, k, v), width] in rows."""
    packed, width = attention.query_key_value, attention.head_size
    pick = lambda t: t.view(-1, 3, width, *t.shape[1:])[:, 2].flatten(0, 1)  # noqa: E731
    return pick(packed.weight), None if packed.bias is None else pick(packed.bias)


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
    value: Callable = _linear("v_proj")
    out: Callable = _linear("o_proj")


LLAMA = Layout()
GEMMA = replace(
    LLAMA,
    after_attention="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
)
GPT2 = Layout(
    "h", "ln_f", "ln_1", "attn", "ln_2", "mlp", positions="wpe", projection="c_proj", value=_gpt2_value, out=_gpt2_out
)  # fmt: skip
NEOX = replace(
    LLAMA, final_norm="final_layer_norm", attention="attention", projection="dense", value=_neox_value,
    out=_linear("dense"),
)  # fmt: skip

FAMILIES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": LLAMA,
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "gemma3_text": GEMMA,
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

    def on_read(self, feature_input_hook: str, callback: Callable[[torch.Tensor], None]):
        """Calls `callback` with the encoder's input [batch, position, d_model] in every forward; returns the handle."""
        if feature_input_hook == MLP_INPUT:
            return self.mlp.register_forward_pre_hook(lambda _, args: callback(args[0]))
        if feature_input_hook == RESIDUAL:
            return self.mlp_norm.register_forward_pre_hook(lambda _, args: callback(args[0]))
        norm = Norm.of(self.mlp_norm)
        return self.mlp_norm.register_forward_pre_hook(lambda _, args: callback(norm.normalised(args[0])))

    def on_write(self, callback: Callable[[torch.Tensor], torch.Tensor | None]):
        """Calls `callback` with what the MLP writes to the stream; a tensor it returns is written instead."""

        def check(_, args, out):
            if not isinstance(out, torch.Tensor):
                raise ValueError(f"{type(self.writer).__name__} writes a {type(out).__name__}, expected one tensor")
            return callback(out)

        return self.writer.register_forward_hook(check)


@dataclass(frozen=True)
class Anatomy:
    """`positions` embeds positions (None in most families); `layout` is None for a family not in FAMILIES."""

    positions: nn.Module | None
    blocks: list[Block]
    final_norm: nn.Module
    unembedding: nn.Module
    layout: Layout | None


def anatomy(hf) -> Anatomy:
    """The parts of a loaded transformers model.

    Raises ValueError for a model that is laid out like none of the families.
    """
    decoder, listed = hf.get_decoder(), FAMILIES.get(hf.config.model_type)
    layouts = [listed] if listed else [GEMMA, LLAMA, NEOX, GPT2]
    layout = next((layout for layout in layouts if _fits(decoder, layout)), None)
    if layout is None:
        raise ValueError(
            f"models of the family {hf.config.model_type!r} are laid out like none that interp_kit knows "
            f"({', '.join(FAMILIES)}): give it an entry in interp_kit/models/anatomy.py"
        )
    parallel = getattr(hf.config, "use_parallel_residual", False)
    blocks = [_block(layer, layout, parallel) for layer in getattr(decoder, layout.blocks)]
    final_norm = getattr(decoder, layout.final_norm)
    positions = getattr(decoder, layout.positions) if layout.positions else None
    return Anatomy(positions, blocks, final_norm, hf.get_output_embeddings(), listed)


def _fits(decoder, layout):
    names = (layout.attention_norm, layout.attention, layout.mlp_norm, layout.mlp, layout.after_mlp)
    blocks = getattr(decoder, layout.blocks, None)
    return (
        blocks is not None
        and hasattr(decoder, layout.final_norm)
        and all(getattr(blocks[0], name, None) is not None for name in names if name)
    )


def _block(layer, layout, parallel):
    mlp = getattr(layer, layout.mlp)
    return Block(
        layer=layer,
        attention_norm=getattr(layer, layout.attention_norm),
        attention=getattr(layer, layout.attention),
        projection=getattr(getattr(layer, layout.attention), layout.projection, None),
        after_attention=getattr(layer, layout.after_attention) if layout.after_attention else None,
        mlp_norm=getattr(layer, layout.mlp_norm),
        mlp=mlp,
        writer=getattr(layer, layout.after_mlp) if layout.after_mlp else mlp,
        parallel=parallel,
    )


def mlp_activations(
    hf, ids: torch.Tensor, feature_input_hook: str, layers: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a transcoder of `layers` reads and what their MLPs write: two tensors [layer, batch, position, d_model];
    ids [batch, position]. `reads` is one of READS."""
    inputs, outputs, handles = [], [], []
    blocks = anatomy(hf).blocks
    for block in (blocks[layer] for layer in layers):
        handles.append(block.on_read(feature_input_hook, inputs.append))
        handles.append(block.on_write(outputs.append))
    try:
        with torch.no_grad():
            hf.base_model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(inputs), torch.stack(outputs)
