"""Where things are in a transformers model: the one table that knows module names."""

from dataclasses import dataclass

import torch
from torch import nn

# Pre-norm decoders with RMSNorm, rotary positions and separate q, k, v projections share one layout.
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Block:
    """One decoder layer: the modules that attribution and training look at."""

    attention_norm: nn.Module
    attention: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module

    def reader(self, reads: str) -> nn.Module:
        """The module whose input a transcoder reads: "mlp.hook_in" is what the MLP sees, after the norm and its gain;
        "hook_resid_mid" the residual stream before it."""
        return self.mlp if reads == "mlp.hook_in" else self.mlp_norm


@dataclass(frozen=True)
class Anatomy:
    embedding: nn.Module
    blocks: list[Block]
    final_norm: nn.Module
    unembedding: nn.Module


def anatomy(hf) -> Anatomy:
    """The parts of a loaded transformers model. Raises ValueError for a family that is not in the table."""
    if hf.config.model_type not in LLAMA_LIKE:
        raise ValueError(
            f"models of the family {hf.config.model_type!r} have no entry in interp_kit/models/anatomy.py yet; "
            f"families that work: {', '.join(LLAMA_LIKE)}"
        )
    blocks = [Block(b.input_layernorm, b.self_attn, b.post_attention_layernorm, b.mlp) for b in hf.model.layers]
    return Anatomy(hf.model.embed_tokens, blocks, hf.model.norm, hf.lm_head)


def mlp_activations(hf, ids: torch.Tensor, reads: str, layers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the MLPs of `layers` read and write: two tensors [layer, batch, position, d_model]; ids [batch, position].

    `reads` says what counts as an MLP's input; see `Block.reader`.
    """
    inputs, outputs, handles = [], [], []
    blocks = anatomy(hf).blocks
    for block in (blocks[layer] for layer in layers):
        handles.append(block.reader(reads).register_forward_pre_hook(lambda _, args: inputs.append(args[0])))
        handles.append(block.mlp.register_forward_hook(lambda _, args, out: outputs.append(out)))
    try:
        with torch.no_grad():
            hf.model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(inputs), torch.stack(outputs)
