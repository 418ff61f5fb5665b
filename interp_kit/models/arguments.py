"""Arguments of public functions: one that is of another kind than the function says is refused with words, before
anything is computed, as where two were given in the wrong order."""

import functools
import inspect
import types
from collections.abc import Callable
from reprlib import repr as shortened
from typing import ParamSpec, TypeVar, Union, get_args, get_origin

import pandas as pd

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function, or a class's __init__: TypeError for an argument that should be one of the kit's objects or
    a table and is not. Other kinds are left to the function, which knows what else it takes.

    >>> ik.attribute(model, prompt, transcoder)
    TypeError: attribute takes (model, transcoder, prompt, ...): transcoder should be a CrossLayerTranscoder, got ...
    """
    signature = inspect.signature(function)
    wanted = {name: kinds for name, p in signature.parameters.items() if (kinds := _kinds(p.annotation))}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in [*zip(signature.parameters, args), *kwargs.items()]:
            if name in wanted and not isinstance(value, wanted[name]):
                raise TypeError(_words(function, list(signature.parameters), name, wanted[name], value))
        return function(*args, **kwargs)

    return call


def _kinds(annotation: object) -> tuple[type, ...]:
    """The classes that an annotation allows, where it allows only classes of the kit and tables, and None."""
    several = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    kinds = [kind for kind in several if isinstance(kind, type)]
    ours = [kind for kind in kinds if _is_ours(kind)]
    return tuple(kinds) if ours and len(kinds) == len(several) == len(ours) + (types.NoneType in kinds) else ()


def _is_ours(kind: type) -> bool:
    protocol = getattr(kind, "_is_protocol", False)  # of which there are objects of anybody's
    return kind is pd.DataFrame or (kind.__module__.startswith("interp_kit.") and not protocol)


def _words(function: Callable, parameters: list[str], name: str, kinds: tuple[type, ...], value: object) -> str:
    takes = [parameter for parameter in parameters if parameter != "self"]
    what = function.__qualname__.removesuffix(".__init__")
    names = [kind.__name__ for kind in kinds if kind is not types.NoneType]
    expected = " or ".join(f"an {name}" if name[0] in "AEIO" else f"a {name}" for name in names)
    return (
        f"{what} takes ({', '.join(takes[:4])}{', ...' if len(takes) > 4 else ''}): {name} should be {expected}, got "
        f"{type(value).__name__} {shortened(value)}"
    )
