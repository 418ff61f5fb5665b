"""Checkpoints of a training run: one safetensors file with weights, Adam's moments and the step.

Safetensors, not pickle: a checkpoint from somebody else cannot run code. Nothing of it is copied into the run before
all of it is known to fit: Adam's kernels read past the end of a moment that is too short, which ends the interpreter.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Adam

from .atomic import atomic_file, resolved
from .reading import check_tensors, read_tensors

NAME = "checkpoint.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")  # of each parameter, beside "step", the number of Adam's steps
LARGEST_STEP = 10**9
LARGEST = 1e15  # of a number: products of two of them are finite in float32
REMEDY = "move it away to begin anew"

Tensors = dict[str, Tensor]


def save_checkpoint(
    folder: str | Path,
    model: nn.Module,
    optimizer: Adam,
    step: int,
    extra: Tensors | None = None,
    notes: object = None,
) -> None:
    """Writes the state after `step`. A run that is killed meanwhile keeps its last whole checkpoint.

    extra: further tensors of the run's state. notes: anything json can hold (the history so far).

    Raises FileExistsError where a file that is no checkpoint has its name, OSError where it cannot be written.
    """
    tensors = {name: value.detach().contiguous().clone() for name, value in _state(model, optimizer, extra).items()}
    about = {"step": str(step), "notes": json.dumps(notes), "digest": _digest(tensors, step)}
    with atomic_file(Path(folder) / NAME, is_checkpoint) as temporary:
        save_file(tensors, temporary, metadata=about)


def load_checkpoint(
    folder: str | Path,
    model: nn.Module,
    optimizer: Adam,
    extra: Tensors | None = None,
    last: int = LARGEST_STEP,
    check_notes: Callable[[int, Any], None] = lambda step, notes: None,
) -> tuple[int, Any]:
    """Restores model, optimizer and `extra` in place; returns (step to go on from, notes), (0, None) without a file.

    last: the run's last step. check_notes: raises ValueError for a step and notes that are not this run's.

    Raises ValueError for a file that is damaged, changed since it was written, or not of such a run, and
    NotADirectoryError where `folder` is a file, OSError where a link leads nowhere. Then nothing was restored.
    """
    path = resolved(Path(folder) / NAME)
    if Path(folder).exists() and not Path(folder).is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file, expected the folder of a checkpoint: give another name")
    if not path.exists():
        return 0, None
    if not is_checkpoint(path):
        check_tensors(path)  # says what is wrong with a damaged one
        raise ValueError(f"{path} is no checkpoint of interp_kit: give another folder, or {REMEDY}")
    about, tensors = check_tensors(path)[1], read_tensors(path)
    try:
        step = _step(about["step"], last)
        notes = json.loads(about["notes"])
        check_notes(step, notes)
        wanted = _state(model, _stepped_once(optimizer), extra)
        _check_shapes(tensors, wanted)
        if "digest" in about and about["digest"] != _digest(tensors, step):  # before 0.3 there was none
            raise ValueError("it was changed or damaged since it was written")
        _check_numbers(tensors, step)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}; {REMEDY}") from error
    _restore(tensors, model, optimizer, extra or {})
    return step, notes


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one of ours, and whole."""
    try:
        shapes, about = check_tensors(path)
    except (OSError, ValueError):
        return False
    return {"step", "notes"} <= about.keys() and all(re.match(r"(model|extra|optimizer)\.", name) for name in shapes)


# ---------------------------------------------------------------- tensors by their names in the file


def _state(model: nn.Module, optimizer: Adam, extra: Tensors | None) -> Tensors:
    """All that is restored, by its name in the file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"extra.{name}": value for name, value in (extra or {}).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    return tensors


def _stepped_once(optimizer: Adam) -> Adam:
    """An optimizer of the same parameters that has a state for each; its moments have shapes and no memory."""
    parameters = [nn.Parameter(p.to("meta")) for group in optimizer.param_groups for p in group["params"]]
    other = Adam(parameters)
    for parameter in parameters:
        moments = {name: torch.empty_like(parameter) for name in MOMENTS}
        other.state[parameter] = {"step": torch.empty((), dtype=torch.float32, device="meta"), **moments}
    return other


def _restore(tensors: Tensors, model: nn.Module, optimizer: Adam, extra: Tensors) -> None:
    """Copies all of it: nothing stays a part of the file."""
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for name, value in extra.items():
        value.copy_(tensors[f"extra.{name}"])
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = value.clone()
    optimizer.load_state_dict(state)


# ---------------------------------------------------------------- checks, each a ValueError without the file's name


def _step(text: str, last: int) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > last:
        raise ValueError(f"its step should be a whole number from 0 to {last}, got {text[:40]!r}")
    return int(text)


def _check_shapes(tensors: Tensors, wanted: Tensors) -> None:
    """Exactly these tensors, of these shapes and types."""
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ValueError(f"it lacks {missing[0]!r}: it was cut down, or another version or another run wrote it")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ValueError(f"it has {unknown[0]!r}, which this run does not know: another version or run wrote it")
    for name, value in wanted.items():
        found = tensors[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            should, is_ = (f"{t.dtype} {list(t.shape)}".removeprefix("torch.") for t in (value, found))
            raise ValueError(f"{name!r} should be {should}, found {is_}: it is of another run")


def _check_numbers(tensors: Tensors, step: int) -> None:
    """Finite, and of Adam's such as Adam makes them. The least trained parameter has made the run's steps."""
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.numel():
            continue
        least, greatest = (number.item() for number in value.aminmax())
        if not -LARGEST <= least <= greatest <= LARGEST:  # NaN neither
            raise ValueError(f"{name!r} holds NaN, infinite or absurdly large numbers")
        if name.endswith(".exp_avg_sq") and least < 0:
            raise ValueError(f"{name!r} holds negative numbers, and it is a mean of squares")
    steps = [value.item() for name, value in tensors.items() if re.fullmatch(r"optimizer\.\d+\.step", name)]
    if steps and (min(steps) != step or any(number % 1 for number in steps)):
        raise ValueError(f"its step is {step}, and Adam's least step {min(steps)!r}: they should be the same")


def _digest(tensors: Tensors, step: int) -> str:
    """Of all numbers, and of the step that they are of."""
    found = hashlib.sha256(str(step).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)} ".encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
