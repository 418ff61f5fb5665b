"""The keys and values of what a model has read, kept so that a further token costs one position.

The one place that knows what transformers calls the argument: `cache` in recent releases of transformers 5,
`past_key_values` in earlier ones, which recent ones warn of.
"""

import functools
import inspect

import torch
from transformers import DynamicCache, PreTrainedModel

NAMES = ("cache", "past_key_values")


def keeps_cache(hf: PreTrainedModel) -> bool:
    """Whether the model keeps keys and values at all; a few old families do not."""
    return _argument(type(hf)) is not None


def new_cache(hf: PreTrainedModel) -> DynamicCache:
    """An empty cache, of the kind that this model needs.

    Raises NotImplementedError for a family that keeps none, which would read a further token as if it were the first.
    """
    if not keeps_cache(hf):
        raise NotImplementedError(
            f"{hf.config.model_type!r} models keep no keys and values in transformers, which this needs: take a model "
            "of another family, such as Llama, Qwen, Gemma or GPT-2"
        )
    return DynamicCache(config=hf.config)


def places(hf: PreTrainedModel) -> int | None:
    """How many places of the cache a token can look back on where padding counts as one; None where it never does.

    So are a sliding window and the masks that a few old families store, such as GPT-Neo, counted.
    """
    window = getattr(hf.config.get_text_config(), "sliding_window", None)
    stored = [int(mask.sum(-1).max()) for mask in hf.buffers() if mask.dtype == torch.bool and mask.dim() == 4]
    return min([window, *stored] if window else stored, default=None)


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


def read_into(hf: PreTrainedModel, ids: torch.Tensor, cache: DynamicCache) -> None:
    """Keeps what ids [batch, position] add to `cache`, without the work of their logits."""
    hf.base_model(input_ids=ids, use_cache=True, **_given(hf, cache))


def _given(hf: PreTrainedModel, cache: DynamicCache) -> dict[str, DynamicCache]:
    return {_argument(type(hf)) or NAMES[0]: cache}


@functools.cache
def _argument(kind: type[PreTrainedModel]) -> str | None:
    """Asked of each family: within one release they need not agree, and most pass over a name that they do not know."""
    parameters = inspect.signature(kind.forward).parameters
    return next((name for name in NAMES if name in parameters), None)
