"""The keys and values of what a model has read, kept so that a further token costs one position.

The one place that knows what transformers calls the argument: `cache` in recent releases of transformers 5,
`past_key_values` in earlier ones, which recent ones warn of.
"""

import functools
import inspect

import torch
from transformers import DynamicCache, PreTrainedModel

NAMES = ("cache", "past_key_values")


def new_cache(hf: PreTrainedModel) -> DynamicCache | None:
    """An empty cache, of the kind that this model needs; None for the few families that keep none."""
    return DynamicCache(config=hf.config) if _argument(type(hf)) else None


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
    return hf(input_ids=ids, use_cache=True, **_given(hf, cache), **options).logits


def read_into(hf: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache | None) -> None:
    """Keeps what ids [batch, position] add to `cache`, without the work of their logits."""
    if cache is not None:
        hf.base_model(input_ids=ids, use_cache=True, **_given(hf, cache))


def _given(hf: PreTrainedModel, cache: DynamicCache) -> dict[str, DynamicCache]:
    name = _argument(type(hf))
    return {} if name is None else {name: cache}


@functools.cache
def _argument(kind: type[PreTrainedModel]) -> str | None:
    """Asked of each family: within one release they need not agree, and most pass over a name that they do not know."""
    parameters = inspect.signature(kind.forward).parameters
    return next((name for name in NAMES if name in parameters), None)
