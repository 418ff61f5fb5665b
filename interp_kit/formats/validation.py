"""A file's content against the types that say what it may hold: one check, where the file is read.

pydantic does the checking. The messages are ours: the place in the file, what was expected and what was found.
"""

import reprlib
from collections.abc import Sequence
from functools import cache
from typing import Annotated, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError

LARGEST = 1e30  # of a number in a file: sums of such numbers stay finite in float32
SHOWN = r"^[^\x00-\x1f\x7f-\x9f]*$"  # characters that a terminal does not obey
WORDS = {
    "a valid dictionary": "an object",
    str(10**30): f"{LARGEST:g}",
    f"match pattern '{SHOWN}'": "be plain text",
}  # pydantic's words, and ours

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Name = Annotated[str, Field(max_length=1000, pattern=SHOWN)]  # of a hook or a file: it is shown in messages
ModelName = Annotated[str, Field(max_length=1000)]  # as its user has given it, whatever that is
WholeNumber = Annotated[int, Field(gt=-(2**53), lt=2**53)]  # what JSON's readers agree on

T = TypeVar("T")


@cache  # built when a first file is read, not when this room is imported
def adapter_of(kind: type[T]) -> TypeAdapter[T]:
    """What checks values of a type and converts them."""
    return TypeAdapter(kind)


def check_type(kind: type[T], content: object) -> T:
    """The content itself, not converted. Raises ValueError for the first place that is not as the type says.

    >>> check_type(dict[str, list[int]], {"a": [1, "2"]})
    ValueError: a[1] should be a valid integer, got '2'
    """
    try:
        adapter_of(kind).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = first["loc"]
        if first["type"] == "missing":
            raise ValueError(f"{_spelled(place[:-1])} lacks {place[-1]!r}") from None
        should = first["msg"].partition(" should ")[2]
        for theirs, ours in WORDS.items():
            should = should.replace(theirs, ours)
        raise ValueError(f"{_spelled(place)} should {should}, got {reprlib.repr(first['input'])}") from None
    return cast(T, content)


def need(good: bool, place: str, expected: str, got: object) -> None:
    """Raises ValueError unless `good`: for what a type cannot say, such as a link's end that is no node."""
    if not good:
        raise ValueError(f"{place} should be {expected}, got {reprlib.repr(got)}")


def _spelled(place: Sequence[str | int]) -> str:
    """("nodes", 0, "layer") as "nodes[0].layer"."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{repr(part[:40])[1:-1]}" for part in place]
    return "".join(parts).removeprefix(".") or "the file"
