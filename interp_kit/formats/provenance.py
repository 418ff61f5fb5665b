"""What belongs together: the model and the transcoder that a store, a table of labels or a graph is of.

Everything that can be joined has an `about`: an object as an attribute, a table in its `attrs`. Here is the one place
where two of them are compared, and the words for it.
"""

import warnings
from collections.abc import Sequence
from typing import cast

import pandas as pd
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from ..storage.shipped import TRANSCODERS
from .validation import ModelName, Name

KEYS = ("fingerprint", "transcoder")  # what is compared: the model, and what has the features
LOADERS = {"features": "load_features", "labels": "load_labels", "transcoder": "load_transcoder", "graph": "load_graph"}
DIGITS = set("0123456789abcdef")


class About(TypedDict, total=False):
    """What something is of. What is not known is missing."""

    model: ModelName  # for display
    fingerprint: Name  # of its weights
    transcoder: Name  # a transcoder's fingerprint, or a name of what else has the features, such as "neurons"


class UnknownOrigin(UserWarning):
    """Two things are joined, and one does not say which model or transcoder it is of."""


def about_of(thing: object) -> About:
    """The `about` of a model, transcoder, store, graph or table; empty where it says nothing."""
    found = thing.attrs.get("about") if isinstance(thing, pd.DataFrame) else getattr(thing, "about", None)
    if not isinstance(found, dict):
        return About()
    return cast("About", {key: found[key] for key in About.__annotations__ if isinstance(found.get(key), str)})


def insisted(about: About, belongs_to: object) -> About:
    """`about`, with what `belongs_to` says of itself in its place; None changes nothing.

    Raises TypeError for what does not know its model.
    """
    theirs = about_of(belongs_to)
    if belongs_to is not None and not theirs:
        raise TypeError(
            "belongs_to should be what it goes with (a model, a transcoder, a store or a graph), and this "
            f"{type(belongs_to).__name__} does not say which model it is of"
        )
    return cast("About", {**about, **theirs})


def check_belongs(mine: object, name: str, theirs: object, other: str, keys: Sequence[str] = KEYS) -> None:
    """Raises ValueError where two things that are joined are of different models or transcoders; warns where one of
    them does not say.

    name, other: what they are: "features", "labels", "transcoder", "graph", "model".
    keys: what they have in common; a model has no transcoder.

    >>> check_belongs(store, "features", graph, "graph")
    """
    a, b = about_of(mine), about_of(theirs)
    for key in keys:
        if key in a and key in b and a[key] != b[key]:
            raise ValueError(_refusal(key, a, name, b, other))
    if unknown := [key for key in keys if key not in a or key not in b]:
        silent = name if any(key not in a for key in unknown) else other
        what = "model" if "fingerprint" in unknown else "transcoder"
        said = f"the {silent} {'do' if silent.endswith('s') else 'does'} not say of which {what}: "
        said += f"whether {name} and {other} belong together is not known. If they do, say so: {_insisting(silent)}"
        warnings.warn(said, UnknownOrigin, stacklevel=3)


def _refusal(key: str, a: About, name: str, b: About, other: str) -> str:
    ours, theirs = (about.get("model", "an unknown model") for about in (a, b))
    if key == "fingerprint":
        here, there = f"{ours!r} (fingerprint {a.get(key)})", f"{theirs!r} (fingerprint {b.get(key)})"
        why = "a feature's number means nothing in another model"
        if ours == theirs:
            why = "the names are the same and the weights are not, as in a copy in another format"
    else:
        here, there = f"{_dictionary(a.get(key, ''))} of {ours!r}", _dictionary(b.get(key, ""))
        why = "a feature's number means something else there"
    right = f", such as ik.{LOADERS[name]}({theirs!r})" if name in LOADERS and theirs in TRANSCODERS else ""
    return (
        f"the {name} and the {other} do not belong together: {here} here, {there} there; {why}. Load those that belong "
        f"together{right}; or, if they are of the same model in another format (a GGUF and a copy from the Hub), say "
        f"so: {_insisting(name)}"
    )


def _dictionary(transcoder: str) -> str:
    return f"the transcoder {transcoder}" if len(transcoder) == 16 and set(transcoder) <= DIGITS else transcoder


def _insisting(name: str) -> str:
    by_hand = ", or labels.attrs['about'] = store.about" if name == "labels" else ""
    return f"ik.{LOADERS.get(name, 'load_graph')}(..., belongs_to=what it goes with){by_hand}"
