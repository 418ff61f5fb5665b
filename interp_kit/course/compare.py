"""Whether an answer is the expected one, and if not, what kind of answer it is."""

from collections.abc import Mapping, Set

import torch

CLOSE = 1e-4  # of the largest number: answers in float32 may add in another order


def same(given: object, expected: object) -> bool:
    """Whether two answers agree: numbers of one shape up to `CLOSE` of the largest expected one, else what Python
    calls equal. A set takes a list without repetition; a dictionary is compared key by key."""
    if isinstance(expected, Set):
        listed = list(given) if isinstance(given, Set | list | tuple) else None
        return listed is not None and len(listed) == len(expected) and all(each in listed for each in expected)
    if isinstance(expected, Mapping):
        return (
            isinstance(given, Mapping)
            and given.keys() == expected.keys()
            and all(same(given[name], expected[name]) for name in expected)
        )
    x, y = numbers(given), numbers(expected)
    if x is None or y is None:
        return _listed(given) == _listed(expected)
    scale = float(y.abs().max()) if y.numel() else 0.0
    return x.shape == y.shape and bool(((x - y).abs() <= CLOSE * max(scale, 1e-30)).all())


def problem(given: object, expected: object) -> str:
    """What is wrong with the kind of answer; "" where it can be compared."""
    if given is None:
        return "It returns nothing: end with `return`."
    if isinstance(expected, str):
        return "" if isinstance(given, str | int | float) else f"Expected a token, a text; got {type(given).__name__}."
    if numbers(expected) is not None and numbers(given) is None:
        return f"Expected numbers, a tensor; got {type(given).__name__}."
    return ""


def numbers(value: object) -> torch.Tensor | None:
    """As numbers of double precision, also a list of tensors; None for what are none."""
    try:
        if isinstance(value, list | tuple) and value and all(isinstance(each, torch.Tensor) for each in value):
            value = torch.stack(list(value))
        return torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        return None


def _listed(value: object) -> object:
    """A tuple is as good as a list."""
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value
