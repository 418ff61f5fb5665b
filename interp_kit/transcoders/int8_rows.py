"""Rows of weights as int8 files hold them: whole numbers, and one scale a row, row = scale * numbers.

A large transcoder keeps them so, a quarter of float32; its decoders stay mapped into memory from their files. What is
asked for becomes float, and nothing else does.
"""

from collections.abc import Callable

import torch
from torch import nn

Index = int | slice | torch.Tensor


class Int8Rows(nn.Module):
    """Weights [..., width]. `rows[index]` are some of them, as floats of type `dtype`; index is as for a tensor of the
    rows [...], and may be `:` for all.

    numbers [..., width] int8, scale [...] float32; both stay so when the transcoder becomes another type.

        rows = Int8Rows(numbers, scale, torch.float32)
        rows[3]; rows[:, 0]; rows[layers, features]
    """

    numbers: torch.Tensor
    scale: torch.Tensor

    def __init__(self, numbers: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)
        self.dtype = dtype

    def __getitem__(self, index: Index | tuple[Index, ...]) -> torch.Tensor:
        return (self.numbers[index] * self.scale[index][..., None]).to(self.dtype)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> torch.Size:
        """Of the weights."""
        return self.numbers.shape

    @property
    def device(self) -> torch.device:
        """Where the numbers lie."""
        return self.numbers.device

    @property
    def nbytes(self) -> int:
        """As they are held."""
        return self.numbers.nbytes + self.scale.nbytes

    def extra_repr(self) -> str:
        """Of the module's repr."""
        return f"{list(self.shape)}, given as {self.dtype}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "Int8Rows":
        """What `module.to(...)` does to each tensor: here another type of what is given, or another device."""
        like = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        self.dtype = like.dtype
        self.numbers, self.scale = self.numbers.to(like.device), self.scale.to(like.device)
        return self

    def in_dtype(self, dtype: torch.dtype, device: torch.device) -> "Int8Rows":
        """The same weights, given as another type of float, or on another device."""
        return Int8Rows(self.numbers.to(device), self.scale.to(device), dtype)
