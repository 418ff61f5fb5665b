"""The frozen view of a model on one prompt: attention patterns and norm scales held fixed, so that the
residual stream is a linear function of the embeddings and of what the MLPs write.

    frozen = FrozenModel(model, prompt)
    gradient = frozen.through_attention(layer, gradient)      # one layer down, no autograd

This is the local replacement model of Ameisen et al. 2025 with nothing replaced yet.
"""

import copy
from contextlib import contextmanager
from types import MethodType

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from .anatomy import anatomy


class FrozenModel:
    """One prompt's run, its frozen quantities and the linear maps between MLPs.

    ids [position]; embeddings [position, d_model]; patterns, one [head, query, key] a layer;
    residual_mid, mlp_in, mlp_out [layer, position, d_model]; logits [position, vocabulary].
    """

    def __init__(self, model, prompt, dtype: torch.dtype = torch.float32):
        self.hf = in_dtype(model.hf, dtype)
        self.ids = model.encode(prompt) if isinstance(prompt, str) else prompt
        self.parts = anatomy(self.hf)
        self._run()
        self.attention_scale = self._scale(self.residual_pre, [b.attention_norm for b in self.parts.blocks])
        self.mlp_scale = self._scale(self.residual_mid, [b.mlp_norm for b in self.parts.blocks])
        self.final_scale = self._scale(self.residual_final[None], [self.parts.final_norm])[0]

    @property
    def n_layers(self) -> int:
        return len(self.parts.blocks)

    @property
    def n_positions(self) -> int:
        return len(self.ids)

    def transcoder_input(self, reads: str) -> torch.Tensor:
        """[layer, position, d_model], by circuit-tracer's hook names."""
        return self.mlp_in if reads == "mlp.hook_in" else self.residual_mid

    def _run(self):
        caught = {"pre": [], "mid": [], "in": [], "out": [], "final": []}
        handles = []

        def before(module, key):
            handles.append(module.register_forward_pre_hook(lambda _, args: caught[key].append(args[0][0])))

        for block in self.parts.blocks:
            before(block.attention_norm, "pre")
            before(block.mlp_norm, "mid")
            before(block.mlp, "in")
            handles.append(block.mlp.register_forward_hook(lambda _, args, out: caught["out"].append(out[0])))
        before(self.parts.final_norm, "final")
        try:
            with torch.no_grad():
                out = self.hf(input_ids=self.ids[None], use_cache=False, output_attentions=True)
        finally:
            for handle in handles:
                handle.remove()
        self.residual_pre, self.residual_mid, self.mlp_in, self.mlp_out = (
            torch.stack(caught[key]) for key in ("pre", "mid", "in", "out")
        )
        self.residual_final, self.embeddings = caught["final"][0], caught["pre"][0]
        self.patterns = [a[0] for a in out.attentions]
        self.logits = out.logits[0]

    def _scale(self, residual, norms):
        """1 / RMS of residual [layer, position, d_model], as each layer's norm has it: [layer, position]."""
        eps = torch.tensor([n.variance_epsilon for n in norms], dtype=residual.dtype)
        return (residual.pow(2).mean(-1) + eps[:, None]).rsqrt()

    # ------------------------------------------------- linear maps, from the output side down

    def logit_gradient(self, vocabulary_ids: torch.Tensor) -> torch.Tensor:
        """Gradient of (logit - mean logit) at the last position's residual stream: [target, d_model]."""
        rows = self.parts.unembedding.weight
        centred = rows[vocabulary_ids] - rows.mean(0)
        return centred * self.parts.final_norm.weight * self.final_scale[-1]

    def input_gradient(self, reads: str, layer: int, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Gradient at the residual stream of encoder rows [target, d_model] that read layer `layer` there."""
        if reads == "hook_resid_mid":
            return rows
        return rows * self.parts.blocks[layer].mlp_norm.weight * self.mlp_scale[layer, positions][:, None]

    def through_attention(self, layer: int, gradient: torch.Tensor) -> torch.Tensor:
        """What the layer's frozen attention adds to gradient [target, position, d_model] of its output.

        out[q] = sum over heads and keys of pattern[h, q, k] W_O[h] W_V[h] (gain * scale[k] * x[k]),
        read backwards. Heads that share a value head (grouped queries) are summed before W_V.
        """
        block = self.parts.blocks[layer]
        pattern, attention = self.patterns[layer], block.attention
        n, t, _ = gradient.shape
        heads, width = pattern.shape[0], attention.head_dim
        z = (gradient @ attention.o_proj.weight).view(n, t, heads, width)
        z = torch.einsum("hqk,nqhw->nkhw", pattern, z)
        groups = attention.v_proj.weight.shape[0] // width
        z = z.view(n, t, groups, heads // groups, width).sum(3).reshape(n, t, groups * width)
        back = z @ attention.v_proj.weight
        return back * (self.attention_scale[layer][:, None] * block.attention_norm.weight)

    def attention_bias(self, layer: int) -> torch.Tensor | None:
        """What the layer's value and output biases write, [position, d_model]; None without biases.

        The value bias arrives weighted by the pattern's row sums: one, but for the float32 of transformers' softmax.
        """
        attention = self.parts.blocks[layer].attention
        value, out = attention.v_proj.bias, attention.o_proj.bias
        if value is None and out is None:
            return None
        written = torch.zeros_like(self.embeddings) if out is None else out.expand_as(self.embeddings)
        if value is not None:
            pattern, groups = self.patterns[layer], value.view(-1, attention.head_dim)
            heads = groups.repeat_interleave(len(pattern) // len(groups), 0)
            arriving = pattern.sum(-1).T[:, :, None] * heads  # [position, head, width]
            written = written + arriving.flatten(1) @ attention.o_proj.weight.T
        return written


def in_dtype(hf, dtype: torch.dtype):
    """The model itself, or a copy in `dtype` whose norms really compute in it (transformers' use float32)."""
    if hf.dtype == dtype:
        return hf
    hf = copy.deepcopy(hf).to(dtype)
    for module in hf.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = MethodType(_rms_norm, module)
    return hf


def _rms_norm(module, x):
    return F.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)


def _attend_by_pattern(module, query, key, value, attention_mask, **_):
    """transformers' attention interface, with the pattern given: [head, query, key] for the whole batch."""
    pattern = module.frozen_pattern
    value = value.repeat_interleave(pattern.shape[0] // value.shape[1], dim=1)
    return torch.einsum("hqk,bhkw->bqhw", pattern, value), None


AttentionInterface.register("interp_kit_frozen", _attend_by_pattern)


@contextmanager
def frozen_attention(hf, patterns: list[torch.Tensor]):
    """Inside the block, `hf` attends by the given patterns, one [head, query, key] a layer, whatever it reads."""
    attentions = [block.attention for block in anatomy(hf).blocks]
    before = hf.config._attn_implementation
    for attention, pattern in zip(attentions, patterns, strict=True):
        attention.frozen_pattern = pattern
    hf.set_attn_implementation("interp_kit_frozen")
    try:
        yield hf
    finally:
        hf.set_attn_implementation(before)
        for attention in attentions:
            del attention.frozen_pattern
