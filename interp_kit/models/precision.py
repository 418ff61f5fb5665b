"""From a model's numbers, of whatever precision and on whatever device, to ones that can be computed with and shown."""

from collections.abc import Sequence

import numpy as np
import torch


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, else the values themselves: sums and softmaxes are too coarse in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32)) if values.is_floating_point() else values


def as_numpy(values: torch.Tensor | Sequence) -> np.ndarray:
    """The same numbers in numpy, which knows neither GPUs nor bfloat16; what is no tensor becomes an array."""
    if isinstance(values, torch.Tensor):
        return at_least_float32(values.detach()).cpu().numpy()
    return np.asarray(values)
