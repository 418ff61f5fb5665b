"""The keys and values of what a model has read, kept so that a further token costs one position."""

import inspect

import torch
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedModel

# `cache` in recent releases of transformers 5, `past_key_values` in earlier ones.
CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"


def new_cache(hf: PreTrainedModel) -> DynamicCache:
    """An empty cache, of the kind that this model needs."""
    return DynamicCache(config=hf.config)


def read_on(hf: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache | None, **options: object) -> torch.Tensor:
    """The logits [batch, position, vocabulary] of ids [batch, position] that follow on what `cache` holds. What they
    add to it is kept there. cache=None: of ids alone, and nothing is kept.

        cache = new_cache(model.hf)
        read_on(model.hf, model.encode("The capital of")[None], cache)
        read_on(model.hf, torch.tensor([[token]]), cache)           # [1, 1, vocabulary]

    options: further arguments of the model's forward.
    """
    if cache is None:
        return hf(input_ids=ids, use_cache=False, **options).logits
    return hf(input_ids=ids, use_cache=True, **{CACHE_ARGUMENT: cache}, **options).logits
