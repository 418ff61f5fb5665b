"""How inputs and answers pass between the grader and a student's process: as JSON, which can hold nothing that runs."""

import base64
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch

MOST_NUMBERS, MOST_TEXT = 4_000_000, 100_000  # that one answer may hold
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def packed(value: object, folder: Path | None = None) -> object:
    """What JSON can hold of a value: numbers, texts, None, tensors, arrays, and lists, tuples, sets and dictionaries of
    them; pandas' columns become lists. `folder` takes attribution graphs, which an answer may not be.

    Raises TypeError for anything else, ValueError for what is too large.

    >>> packed(torch.ones(2, 3))["shape"]
    [2, 3]
    """
    if isinstance(value, torch.Tensor):
        return {"tensor": True, **_array(value.detach().cpu().numpy())}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind not in "OU":
        return _array(value)
    if isinstance(value, np.ndarray | pd.Series | pd.Index):  # of texts, such as ids
        value = value.tolist()
    if folder is not None and (graph := _saved(value, folder)):
        return graph
    if isinstance(value, str):
        if len(value) > MOST_TEXT:
            raise ValueError(f"a text of {len(value):,} characters is too long for an answer")
        return value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list | tuple):
        return [packed(each, folder) for each in value]
    if isinstance(value, set | frozenset):
        return {"set": [packed(each, folder) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[packed(name, folder), packed(each, folder)] for name, each in value.items()]}
    raise TypeError(f"a {type(value).__name__} cannot be an answer: expected numbers, texts, tensors, or lists of them")


def unpacked(value: object, folder: Path | None = None) -> object:
    """The value that `packed` made JSON of.

    Raises ValueError for what it did not make.
    """
    if isinstance(value, list):
        return [unpacked(each, folder) for each in value]
    if not isinstance(value, dict):
        return value
    try:
        if "bytes" in value:
            array = (
                np.frombuffer(base64.b64decode(value["bytes"]), _dtype(value["dtype"])).reshape(value["shape"]).copy()
            )
            return torch.from_numpy(array) if "tensor" in value else array
        if "float" in value:
            return float(value["float"])
        if "set" in value:
            return {_key(unpacked(each)) for each in value["set"]}
        if "dict" in value:
            return {_key(unpacked(name)): unpacked(each, folder) for name, each in value["dict"]}
        if "graph" in value and folder is not None:
            from ...graphs import load_graph

            return load_graph(folder / Path(value["graph"]).name)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not an answer: {error}") from None
    raise ValueError(f"not an answer: {sorted(map(str, value))}")


def _saved(value: object, folder: Path) -> dict[str, str] | None:
    """An attribution graph as a file of the folder. Imported here: a student's process mostly needs no graphs, and
    would wait for them for seconds."""
    from ...graphs import AttributionGraph

    if not isinstance(value, AttributionGraph):
        return None
    name = f"graph-{len(list(folder.glob('graph-*')))}.json"
    value.save(folder / name)
    return {"graph": name}


def _key(value: object) -> object:
    """Lists cannot be keys of a dictionary; they were tuples."""
    return tuple(map(_key, value)) if isinstance(value, list) else value


def _array(array: np.ndarray) -> dict[str, object]:
    if array.size > MOST_NUMBERS:
        raise ValueError(f"{array.size:,} numbers are too many for an answer")
    _dtype(str(array.dtype))
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"bytes": data, "dtype": str(array.dtype), "shape": list(array.shape)}


def _dtype(name: object) -> np.dtype:
    if name not in DTYPES:
        raise TypeError(f"expected numbers, got an array of {name}")
    return np.dtype(str(name))
