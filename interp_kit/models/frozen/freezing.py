"""Run a model with attention patterns, or norm denominators, held at the values that they had on a prompt."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from ..families import anatomy
from ..hooks import replaced_forwards
from .model import FrozenModel

FROZEN = "interp_kit_frozen"  # our attention's name among transformers' implementations


def _attend_by_pattern(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: object, **_: object
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface, with the pattern given: [head, query, key] for the whole batch."""
    pattern = vars(module)["frozen_pattern"]
    value = value.repeat_interleave(pattern.shape[0] // value.shape[1], dim=1)
    return torch.einsum("hqk,bhkw->bqhw", pattern, value), None


AttentionInterface.register(FROZEN, _attend_by_pattern)


@contextmanager
def frozen_attention(hf: PreTrainedModel, patterns: list[torch.Tensor]) -> Iterator[None]:
    """Inside the block, `hf` attends by the given patterns, one [head, query, key] a layer, whatever it reads.

    Raises ValueError for a family whose attention transformers does not let us exchange.
    """
    attentions = [block.attention for block in anatomy(hf).blocks]
    config, before = getattr(attentions[0], "config", hf.config), hf.config._attn_implementation or "eager"
    for attention, pattern in zip(attentions, patterns, strict=True):
        attention.frozen_pattern = pattern
    hf.set_attn_implementation(FROZEN)
    try:
        if config._attn_implementation != FROZEN:  # transformers only logs that it could not
            raise ValueError(
                f"the attention of {hf.config.model_type!r} models cannot be frozen: transformers does not let it be "
                "exchanged there"
            )
        yield
    finally:
        hf.set_attn_implementation(before)
        for attention in attentions:
            del attention.frozen_pattern


def frozen_norms(frozen: FrozenModel) -> AbstractContextManager[None]:
    """Inside the block, every norm of `frozen.hf` divides by what it divided by on the prompt."""
    return replaced_forwards({module: partial(norm, scale=scale) for module, (norm, scale) in frozen.norms.items()})
