"""The frozen view of a model on one prompt: attention patterns and norm denominators held fixed, so that the
residual stream is an affine function of the embeddings and of what the MLPs write.

    frozen = FrozenModel(model, prompt)
    maps = linear_maps(frozen, reads="mlp.hook_in")       # gradients from one layer down to the next

This is the local replacement model of Ameisen et al. 2025 with nothing replaced yet.
"""

import copy
from contextlib import ExitStack, contextmanager
from functools import cached_property

import torch
from transformers import AttentionInterface

from ..anatomy import MLP_INPUT, RESIDUAL, Norm, anatomy


class FrozenModel:
    """One prompt's run and its frozen quantities.

    ids [position]; embeddings [position, d_model], what the tokens write, and position_embeddings, the same shape,
    what learnt positions add (zeros in most families); patterns, one [head, query, key] a layer; residual_pre,
    residual_mid, mlp_in, mlp_out [layer, position, d_model]: the stream that attention reads, that the MLP's norm
    reads, what the MLP reads and what it (or the norm after it) writes; logits [position, vocabulary], and uncapped,
    the same as the unembedding writes them, before Gemma 2's cap.
    """

    def __init__(self, model, prompt, dtype: torch.dtype = torch.float32):
        self.hf = in_dtype(model.hf, dtype)
        self.ids = model.input_ids(prompt)
        self.parts = anatomy(self.hf)
        self._run()
        self.final_norm = Norm.of(self.parts.final_norm)

    @property
    def n_layers(self) -> int:
        return len(self.parts.blocks)

    @property
    def n_positions(self) -> int:
        return len(self.ids)

    def transcoder_input(self, feature_input_hook: str) -> torch.Tensor:
        """[layer, position, d_model], by circuit-tracer's hook names."""
        if feature_input_hook == MLP_INPUT:
            return self.mlp_in
        if feature_input_hook == RESIDUAL:
            return self.residual_mid
        norms = [Norm.of(block.mlp_norm) for block in self.parts.blocks]
        return torch.stack([norm.normalised(x) for norm, x in zip(norms, self.residual_mid, strict=True)])

    @cached_property
    def norms(self) -> dict[torch.nn.Module, tuple[Norm, torch.Tensor]]:
        """Every norm of the model (those inside attention too) and one over its denominators on this prompt."""
        found, handles = {}, []
        for module in self.hf.modules():
            if "Norm" in type(module).__name__:
                norm = Norm.of(module)
                keep = lambda m, args, norm=norm: found.update({m: (norm, norm.scale(args[0]))})  # noqa: E731
                handles.append(module.register_forward_pre_hook(keep))
        try:
            with torch.no_grad():
                self.hf(input_ids=self.ids[None], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _run(self):
        caught = {key: [] for key in ("pre", "attention", "mid", "in", "out", "final", "positions", "uncapped")}
        self.block_arguments, handles = [], []  # what each layer is called with beside the stream

        def before(module, key):
            handles.append(module.register_forward_pre_hook(lambda _, args: caught[key].append(args[0][0])))

        def after(module, key):
            handles.append(module.register_forward_hook(lambda _, args, out: caught[key].append(out[0])))

        def keep_arguments(_, args, kwargs):
            self.block_arguments.append((args[1:], kwargs))

        for block in self.parts.blocks:
            handles.append(block.layer.register_forward_pre_hook(keep_arguments, with_kwargs=True))
            before(block.attention_norm, "pre")
            if block.after_attention is not None:
                before(block.after_attention, "attention")
            before(block.mlp_norm, "mid")
            before(block.mlp, "in")
            handles.append(block.on_write(lambda out: caught["out"].append(out[0])))
        before(self.parts.final_norm, "final")
        after(self.parts.unembedding, "uncapped")
        if self.parts.positions is not None:
            after(self.parts.positions, "positions")
        try:
            with torch.no_grad():
                out = self.hf(input_ids=self.ids[None], use_cache=False, output_attentions=True)
        finally:
            for handle in handles:
                handle.remove()
        self.residual_pre, self.residual_mid, self.mlp_in, self.mlp_out = (
            torch.stack(caught[key]) for key in ("pre", "mid", "in", "out")
        )
        self.attention_out = caught["attention"]
        self.residual_final, self.uncapped = caught["final"][0], caught["uncapped"][0]
        self.position_embeddings = sum(caught["positions"], torch.zeros_like(self.residual_pre[0]))
        self.embeddings = self.residual_pre[0] - self.position_embeddings
        self.patterns = [a[0] for a in out.attentions]
        self.logits = out.logits[0]

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


def linear_maps(frozen: FrozenModel, feature_input_hook: str):
    """The way a gradient takes down through each layer: algebra for the listed families, else autograd."""
    from .algebra import Algebra
    from .autograd import Autograd

    return (Algebra if frozen.parts.layout else Autograd)(frozen, feature_input_hook)


# ---------------------------------------------------------------- precision


def in_dtype(hf, dtype: torch.dtype):
    """The model itself, or a copy in `dtype` whose norms really compute in it (transformers' use float32).

    Raises ValueError for a dtype other than float32 and float64: half precision is too coarse for edges.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype should be torch.float32 or torch.float64, got {dtype!r}")
    if hf.dtype == dtype == torch.float32:
        return hf
    hf = copy.deepcopy(hf).to(dtype)
    for module in hf.modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = Norm.of(module)
    return hf


# ---------------------------------------------------------------- frozen attention, frozen norms


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
    config, before = getattr(attentions[0], "config", hf.config), hf.config._attn_implementation
    for attention, pattern in zip(attentions, patterns, strict=True):
        attention.frozen_pattern = pattern
    hf.set_attn_implementation("interp_kit_frozen")
    try:
        if config._attn_implementation != "interp_kit_frozen":  # transformers only logs that it could not
            raise ValueError(
                f"the attention of {hf.config.model_type!r} models cannot be frozen: transformers does not let it be "
                "exchanged there"
            )
        yield hf
    finally:
        hf.set_attn_implementation(before)
        for attention in attentions:
            del attention.frozen_pattern


def frozen_norms(frozen: FrozenModel):
    """Inside the block, every norm of `frozen.hf` divides by what it divided by on the prompt."""
    return forwards({m: lambda x, f=norm, s=scale: f(x, s) for m, (norm, scale) in frozen.norms.items()})


@contextmanager
def forwards(changes):
    """Inside the block, modules compute the given functions: {module: function of its first argument}."""
    with ExitStack() as undo:
        for module, function in changes.items():
            own = vars(module).get("forward")
            undo.callback(setattr, module, "forward", own) if own else undo.callback(delattr, module, "forward")
            module.forward = lambda x, *_, f=function, **__: f(x)
        yield
