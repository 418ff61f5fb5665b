"""One training run on several processes or GPUs, and in each process on several cores.

Launched by `accelerate launch` (or torchrun), every process calls `train_transcoder` with the same arguments:

    parallel="data"      each reads its share of the text; gradients are summed. Needs the whole transcoder in each.
    parallel="features"  each holds its share of every layer's features; reconstructions are summed. For a transcoder
                         that outgrows one device (as Ameisen et al. 2025 shard theirs).

Both end with the weights that a single process gives, but for the order of floating-point sums.
"""

import os
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from ...hardware import one_core_pool

Split = Literal["data", "features"]
Result = TypeVar("Result")


class Processes:
    """What the processes of a run tell each other; where there is only one, its methods change nothing."""

    def __init__(self, split: Split, device: torch.device):
        if split not in get_args(Split):
            raise ValueError(f"parallel {split!r} is not one of {', '.join(get_args(Split))}")
        self.rank, self.size, self.device = 0, 1, device
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # launched
            state = PartialState(cpu=device.type == "cpu" and not torch.cuda.is_available())
            self.rank, self.size, self.device = state.process_index, state.num_processes, state.device or device
        self.by_tokens = self.size > 1 and split == "data"
        self.by_features = self.size > 1 and split == "features"
        self.rows = (self.rank, self.size) if self.by_tokens else (0, 1)  # its share of the text's: which, of how many

    def features(self, n: int) -> slice:
        """This process's features of each layer's n."""
        which, parts = (self.rank, self.size) if self.by_features else (0, 1)
        if n % parts:
            raise ValueError(f"{n} features a layer cannot be shared equally by {parts} processes")
        return slice(which * n // parts, (which + 1) * n // parts)

    def sum_over_tokens(self, *tensors: torch.Tensor) -> None:
        """In place: sums of what each process adds up over its own tokens."""
        if self.by_tokens:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def sum_over_features(self, *tensors: torch.Tensor) -> None:
        """In place: sums of what each process adds up over its own features."""
        if self.by_features:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def latest(self, steps: torch.Tensor) -> None:
        """In place: the largest of the processes' values."""
        if self.by_tokens:
            dist.all_reduce(steps, op=dist.ReduceOp.MAX)

    def all_values(self, values: torch.Tensor) -> torch.Tensor:
        """[..., n] of each process side by side: [..., n * processes]."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts, dim=-1)

    def whole(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        """The tensor of which each process holds a share along `dim`."""
        if not self.by_features:
            return tensor
        mesh = init_device_mesh(self.device.type, (self.size,))
        return DTensor.from_local(tensor, mesh, [Shard(dim)]).full_tensor()


class LayerWorkers:
    """Calls a function for each layer, and where that is faster several at a time, each on a core of its own."""

    def __init__(self, n_layers: int, workers: int):
        self.n_layers = n_layers
        self.map = one_core_pool(workers).map if workers > 1 else map

    def __call__(self, function: Callable[[int], Result]) -> list[Result]:
        """What `function` returns for each layer's number."""
        return list(self.map(function, range(self.n_layers)))
