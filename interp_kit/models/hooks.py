"""Look at what a model's modules read and write while it runs, or change it: the one place that registers hooks.

    found = []
    with hooked((block.mlp, "in", found.append), (block.mlp, "out", torch.zeros_like)):
        hf(input_ids=ids)           # keeps what the MLP reads, and lets it write zeros

Hooks of one module act in the order in which they are given.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Side = Literal["in", "out", "call"]
Callback = Callable[..., torch.Tensor | None]
Hook = tuple[nn.Module, Side, Callback]


@contextmanager
def hooked(*hooks: Hook) -> Iterator[None]:
    """Inside the block, callbacks are called with what modules read and write. However it ends, they are removed.

    "in": callback(x), the module's first argument, and "out": callback(y), what it gives back. A tensor that the
    callback returns takes its place; None changes nothing. "call": callback(args, kwargs), everything the module is
    called with, only to be looked at.

    When the model runs, an "out" hook on a module that gives back more than one tensor is a ValueError.
    """
    with ExitStack() as handles:
        for hook in hooks:
            handles.enter_context(_register(*hook))
        yield


def _register(module: nn.Module, side: Side, callback: Callback) -> RemovableHandle:
    def before(_: nn.Module, args: tuple) -> tuple | None:
        new = callback(args[0])
        return None if new is None else (new, *args[1:])

    def after(_: nn.Module, args: tuple, out: object) -> torch.Tensor | None:
        if not isinstance(out, torch.Tensor):
            raise ValueError(f"{type(module).__name__} writes a {type(out).__name__}, expected one tensor")
        return callback(out)

    def called(_: nn.Module, args: tuple, kwargs: dict) -> None:
        callback(args, kwargs)

    if side == "in":
        return module.register_forward_pre_hook(before)
    if side == "out":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(called, with_kwargs=True)


@contextmanager
def replaced_forwards(functions: Mapping[nn.Module, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
    """Inside the block, modules compute the given functions of their first argument instead of their own."""
    own = {module: vars(module).get("forward") for module in functions}  # most have none: their class has it
    try:
        for module, function in functions.items():
            module.forward = _of_first_argument(function)
        yield
    finally:
        for module, forward in own.items():
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward


def _of_first_argument(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, *_, **__: function(x)
