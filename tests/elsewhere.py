"""A device that is not the CPU, without one: its tensors lie in the CPU's memory and say that they lie elsewhere.

As on a GPU, an operation on tensors of both places is refused (but for numbers, and indices), and numpy cannot see
what lies there. torch's device "meta" lends its name: it is on every machine, and nothing of ours uses it.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "meta"
BOTH_PLACES = {"copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_"}


class Elsewhere(torch.Tensor):
    """`inside`: the same numbers, as the CPU knows them."""

    inside: torch.Tensor

    @staticmethod
    def __new__(cls, inside: torch.Tensor):
        self = torch.Tensor._make_wrapper_subclass(
            cls, inside.size(), strides=inside.stride(), storage_offset=inside.storage_offset(), dtype=inside.dtype,
            device=DEVICE, requires_grad=False,
        )  # fmt: skip
        self.inside = inside
        return self

    def __repr__(self):
        return f"Elsewhere({self.inside!r})"

    def __deepcopy__(self, memo):
        new = Elsewhere(self.inside.clone())
        memo[id(self)] = torch.nn.Parameter(new, False) if isinstance(self, torch.nn.Parameter) else new
        return memo[id(self)]

    def tolist(self):
        return self.inside.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert a tensor that lies elsewhere to numpy: use .cpu() first")

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert a tensor that lies elsewhere to numpy: use .cpu() first")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


def run(function, args, kwargs):
    """The operation, where its tensors lie."""
    name = function.__name__.split(".")[0]
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    there, here = [[t for t in tensors if isinstance(t, Elsewhere) == where] for where in (True, False)]
    device = kwargs.get("device")
    if there and any(t.dim() for t in here) and name not in BOTH_PLACES:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    goes_there = bool(there) if device is None else torch.device(device).type == DEVICE
    if name == "copy_":
        goes_there = isinstance(args[0], Elsewhere)
    opened = {**kwargs} | ({"device": "cpu"} if device is not None else {})
    found = function(*tree_map(_open, args), **tree_map(_open, opened))
    if name.endswith("_") and isinstance(args[0], torch.Tensor):  # in place
        return args[0]
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x, found) if goes_there else found


def _open(value):
    return value.inside if isinstance(value, Elsewhere) else value


class _Operations(TorchDispatchMode):
    """Also those without a tensor among their arguments, which make one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {})


class _Lists(TorchFunctionMode):
    """Numbers of Python's become tensors before an operation sees them: on the CPU, then moved."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            if function is torch.Tensor.new_tensor:
                device, args, function = kwargs.pop("device", args[0].device), args[1:], torch.as_tensor
            else:
                device = kwargs.pop("device", None)
            if not any(isinstance(x, Elsewhere) for x in args):
                made = function(*args, **kwargs)
                return made if device is None else made.to(device)
            return function(*args, **kwargs) if device is None else function(*args, **kwargs).to(device)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(i) if isinstance(i, list | range) else i for i in index)
            args = (args[0], index, *args[2:])
        return function(*args, **kwargs)


@contextmanager
def everywhere():
    """Inside the block, what is made on DEVICE is made there."""
    with _Operations(), _Lists():
        yield


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its parameters and buffers elsewhere."""
    seen = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                key = id(parameter)
                seen.setdefault(key, torch.nn.Parameter(Elsewhere(parameter.data), requires_grad=False))
                part._parameters[name] = seen[key]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Elsewhere(buffer)
    return module
