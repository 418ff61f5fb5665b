"""Checkpoints of a training run: one safetensors file with weights, Adam's moments and the step.

Safetensors, not pickle: a checkpoint from somebody else cannot run code.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from .atomic import always, atomic_file

NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: str | Path,
    model: nn.Module,
    optimizer: Optimizer,
    step: int,
    extra: dict[str, Tensor] | None = None,
    notes: object = None,
) -> None:
    """Writes the state after `step`. A run that is killed meanwhile keeps its last whole checkpoint.

    extra: further tensors of the run's state. notes: anything json can hold (the history so far).
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"extra.{name}": value for name, value in (extra or {}).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    with atomic_file(Path(folder) / NAME, always) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step), "notes": json.dumps(notes)})


def load_checkpoint(
    folder: str | Path, model: nn.Module, optimizer: Optimizer, extra: dict[str, Tensor] | None = None
) -> tuple[int, Any]:
    """Restores model, optimizer and `extra` in place; returns (step to go on from, notes), (0, None) without a file.

    Raises ValueError for a file that lacks what this version needs.
    """
    path = Path(folder) / NAME
    if not path.exists():
        return 0, None
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if missing := [name for name in extra or {} if f"extra.{name}" not in tensors]:
        raise ValueError(f"{path} lacks {missing[0]!r}: another version wrote it; move it away to begin anew")
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for name, value in (extra or {}).items():
        value.copy_(tensors[f"extra.{name}"])
    state = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
    return int(about["step"]), json.loads(about["notes"])
