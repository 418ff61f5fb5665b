"""The frozen view of a model on one prompt: attention patterns and norm denominators held fixed, so that the
residual stream is an affine function of the embeddings and of what the MLPs write.

    frozen = FrozenModel(model, prompt)
    maps = linear_maps(frozen, "mlp.hook_in")       # gradients from one layer down to the next

This is the local replacement model of Ameisen et al. 2025 with nothing replaced yet.
"""

import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..families import MLP_INPUT, RESIDUAL, Norm, anatomy
from ..hooks import Hook, hooked
from ..language_model import LanguageModel, Prompt

Module = TypeVar("Module", bound=nn.Module)


class FrozenModel:
    """One prompt's run and its frozen quantities.

    ids [position]
    embeddings: what the tokens write [position, d_model]
    position_embeddings: what learnt positions add, the same shape; zeros in most families
    patterns: attention's, one [head, query, key] a layer
    residual_pre: the stream that attention reads [layer, position, d_model]
    residual_mid: the stream that the MLP's norm reads, mlp_in: what the MLP reads, mlp_out: what it (or the norm after
        it) writes; the same shape
    residual_final: the stream that the final norm reads [position, d_model]
    logits [position, vocabulary], and uncapped, the same as the unembedding writes them, before Gemma 2's cap
    attention_out: what the norm after attention reads, one [position, d_model] a layer; empty without that norm
    block_arguments: what each layer is called with beside the stream: (args, kwargs)
    """

    def __init__(self, model: LanguageModel, prompt: Prompt, dtype: torch.dtype = torch.float32):
        self.hf = in_dtype(model.hf, dtype)
        self.ids = model.input_ids(prompt).to(self.hf.device)
        self.parts = anatomy(self.hf)
        self.final_norm = Norm.of(self.parts.final_norm)
        self._run()

    @property
    def n_layers(self) -> int:
        """How many layers the model has."""
        return len(self.parts.blocks)

    @property
    def n_positions(self) -> int:
        """How many tokens the prompt has, the one put before it included."""
        return len(self.ids)

    def below(self, layer: int) -> "FrozenModel":
        """The same run of the first layers alone: its last stream is what attention reads in `layer`."""
        part = copy.copy(self)
        part.parts = replace(self.parts, blocks=self.parts.blocks[:layer])
        for name in ("residual_pre", "residual_mid", "mlp_in", "mlp_out"):
            setattr(part, name, getattr(self, name)[:layer])
        part.residual_final = self.residual_pre[layer]
        return part

    def transcoder_input(self, feature_input_hook: str) -> torch.Tensor:
        """[layer, position, d_model], by circuit-tracer's hook names."""
        if feature_input_hook == MLP_INPUT:
            return self.mlp_in
        if feature_input_hook == RESIDUAL:
            return self.residual_mid
        norms = [Norm.of(block.mlp_norm) for block in self.parts.blocks]
        return torch.stack([norm.normalised(x) for norm, x in zip(norms, self.residual_mid, strict=True)])

    @cached_property
    def norms(self) -> dict[nn.Module, tuple[Norm, torch.Tensor]]:
        """Every norm of the model (those inside attention too) and one over its denominators on this prompt."""
        norms = {module: Norm.of(module) for module in self.hf.modules() if "Norm" in type(module).__name__}
        inputs: dict[nn.Module, torch.Tensor] = {}
        hooks: list[Hook] = [(module, "in", partial(inputs.__setitem__, module)) for module in norms]
        with hooked(*hooks), torch.no_grad():
            self.hf(input_ids=self.ids[None], use_cache=False)
        return {module: (norms[module], norms[module].scale(x)) for module, x in inputs.items()}

    def _run(self) -> None:
        """Reads the prompt once and keeps what passes by. Tensors come as a batch of one: [1, position, ...]."""
        residual_pre, residual_mid, mlp_in, mlp_out, attention_out = [], [], [], [], []
        residual_final, uncapped, positions, arguments = [], [], [], []
        parts = self.parts
        hooks: list[Hook] = [(parts.final_norm, "in", residual_final.append)]
        hooks.append((parts.unembedding, "out", uncapped.append))
        if parts.positions is not None:
            hooks.append((parts.positions, "out", positions.append))
        for block in parts.blocks:
            hooks.append((block.layer, "call", lambda args, kwargs: arguments.append((args[1:], kwargs))))
            hooks.append((block.attention_norm, "in", residual_pre.append))
            if block.after_attention is not None:
                hooks.append((block.after_attention, "in", attention_out.append))
            hooks.append((block.mlp_norm, "in", residual_mid.append))
            hooks.append((block.mlp, "in", mlp_in.append))
            hooks.append((block.writer, "out", mlp_out.append))
        with hooked(*hooks), torch.no_grad():
            out = self.hf(input_ids=self.ids[None], use_cache=False, output_attentions=True)
        self.residual_pre, self.residual_mid = torch.cat(residual_pre), torch.cat(residual_mid)
        self.mlp_in, self.mlp_out = torch.cat(mlp_in), torch.cat(mlp_out)
        self.attention_out = [x[0] for x in attention_out]
        self.residual_final, self.uncapped, self.logits = residual_final[0][0], uncapped[0][0], out.logits[0]
        self.patterns = [pattern[0] for pattern in out.attentions]
        self.position_embeddings = positions[0][0] if positions else torch.zeros_like(self.residual_pre[0])
        self.embeddings = self.residual_pre[0] - self.position_embeddings
        self.block_arguments = arguments

    # ------------------------------------------------- the last step, from the stream to the logits

    def readout(self, vocabulary_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The last position's (logit - mean logit) as a function of the residual stream there.

        Values [target]; gradients [target, d_model]; the part of the values that biases make up [target]. A cap on
        the logits (Gemma 2), or a scale (Granite), comes after these values, as in circuit-tracer.
        """
        rows, bias = self.parts.unembedding.weight, self.parts.unembedding.bias
        centred = rows[vocabulary_ids] - rows.mean(0)
        constant = torch.zeros_like(centred[:, 0]) if bias is None else bias[vocabulary_ids] - bias.mean()
        if self.final_norm.bias is not None:
            constant = constant + centred @ self.final_norm.bias
        stream = self.residual_final[-1]
        gradients = self.final_norm.pull(centred) * self.final_norm.scale(stream)
        return gradients @ stream + constant, gradients, constant


# ---------------------------------------------------------------- precision and device


def copied(module: Module, dtype: torch.dtype) -> Module:
    """A copy on the CPU, in `dtype`; none is made elsewhere on the way, where memory may be short."""
    named = [*module.named_parameters(), *module.named_buffers()]
    moved = {id(tensor): _moved(tensor, dtype) for _, tensor in named}
    return copy.deepcopy(module, moved)  # which takes what it finds there as copied already


def _moved(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    values = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
    return nn.Parameter(values, requires_grad=False) if isinstance(tensor, nn.Parameter) else values


def in_dtype(hf: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself, or a copy in `dtype` whose norms really compute in it (transformers' use float32).

    What is frozen is computed on the CPU, in its memory and by its threads, so that of a model on a GPU this is a copy.

    Raises ValueError for a dtype other than float32 and float64: half precision is too coarse for edges.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype should be torch.float32 or torch.float64, got {dtype!r}")
    if hf.dtype == dtype == torch.float32 and hf.device.type == "cpu":
        return hf
    hf = copied(hf, dtype)
    for module in hf.modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = Norm.of(module)
    return hf
