"""What a puzzle is made of."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Function = Callable[..., object]


@dataclass(frozen=True)
class Puzzle:
    """One function to write. Its inputs are random and small: what comes out can be drawn whole."""

    name: str
    asks: str
    "what the function is given, and should return, with shapes"
    axes: tuple[str, ...]
    "what the dimensions of the result are"
    draw: Callable[[random.Random], tuple]
    "random arguments"
    solution: Function
    "written to be read, not to be fast"
    mistakes: Mapping[str, Function]
    "what is often written instead, by the hint that helps then"


def normal(draw: random.Random, *shape: int) -> torch.Tensor:
    """Random numbers of this shape, normally distributed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(draw.randrange(2**31)))
