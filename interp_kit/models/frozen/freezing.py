"""Run a model with attention patterns, or norm denominators, held at the values that they had on a prompt."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from ..families import anatomy
from ..hooks import replaced_forwards
from .model import FrozenModel

FROZEN, NOTING = "interp_kit_frozen", "interp_kit_noting"  # our attentions among transformers' implementations


def _attend_by_pattern(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: object, **_: object
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface, with the pattern given: [head, query, key] for the whole batch."""
    pattern = vars(module)["frozen_pattern"]
    value = value.repeat_interleave(pattern.shape[0] // value.shape[1], dim=1)
    return torch.einsum("hqk,bhkw->bqhw", pattern, value), None


def _note(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: object,
    scaling: float | None = None, **_: object,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Notes what the scores are made of, and attends to nothing."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    vars(module)["noted_scores"].append((query, key, scaling))
    return torch.zeros_like(query.transpose(1, 2)[..., : value.shape[-1]]), None


AttentionInterface.register(FROZEN, _attend_by_pattern)
AttentionInterface.register(NOTING, _note)


@contextmanager
def frozen_attention(hf: PreTrainedModel, patterns: list[torch.Tensor]) -> Iterator[None]:
    """Inside the block, `hf` attends by the given patterns, one [head, query, key] a layer, whatever it reads.

    Raises ValueError for a family whose attention transformers does not let us exchange.
    """
    with _exchanged(hf, FROZEN, "frozen_pattern", patterns):
        yield


@contextmanager
def noted_scores(hf: PreTrainedModel) -> Iterator[list[list[tuple[torch.Tensor, torch.Tensor, float]]]]:
    """Inside the block, attention writes nothing, and what its scores are made of is noted: one list a layer, of
    queries and keys [batch, head, position, width], after rotation, and the factor of their product.

    Raises ValueError as `frozen_attention` does.
    """
    notes: list[list[tuple[torch.Tensor, torch.Tensor, float]]] = [[] for _ in anatomy(hf).blocks]
    with _exchanged(hf, NOTING, "noted_scores", notes):
        yield notes


@contextmanager
def _exchanged(hf: PreTrainedModel, name: str, attribute: str, values: Sequence[object]) -> Iterator[None]:
    """With another attention, by its name among transformers' implementations, which finds a value on each module."""
    attentions = [block.attention for block in anatomy(hf).blocks]
    config, before = getattr(attentions[0], "config", hf.config), hf.config._attn_implementation or "eager"
    for attention, value in zip(attentions, values, strict=True):
        setattr(attention, attribute, value)
    hf.set_attn_implementation(name)
    try:
        if config._attn_implementation != name:  # transformers only logs that it could not
            raise ValueError(
                f"the attention of {hf.config.model_type!r} models cannot be frozen: transformers does not let it be "
                "exchanged there"
            )
        yield
    finally:
        hf.set_attn_implementation(before)
        for attention in attentions:
            delattr(attention, attribute)


def frozen_norms(frozen: FrozenModel) -> AbstractContextManager[None]:
    """Inside the block, every norm of `frozen.hf` divides by what it divided by on the prompt."""
    return replaced_forwards({module: partial(norm, scale=scale) for module, (norm, scale) in frozen.norms.items()})
