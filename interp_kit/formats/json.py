"""JSON that we share with other tools, graphs and features: read with care, written whole.

A file may come from anywhere: `read_json` refuses what JSON's readers do not agree on; `check_keys` and `need` say in
words where a file is not what it should be. Both formats number features by Cantor's pairing, `cantor` and `uncantor`.
"""

import json
import math
import re
import reprlib
from collections import Counter
from pathlib import Path

from ..hardware import check_memory
from ..storage.atomic import atomic_file

LARGEST = 1e30  # of a number in a file: sums of such numbers stay finite in float32
DEEPEST = 50  # levels of lists and objects in a file; the public schemas have five
PARSED = 10  # bytes of memory that a byte of JSON may take while it is read; half of that in a usual file
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def write_json(content, path: Path) -> None:
    text = json.dumps(content, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path):
    """What a JSON file holds, once it is known to be finite, valid text and not nested without end.

    Raises FileNotFoundError, MemoryError (before reading) and ValueError.
    """
    check_memory(path.stat().st_size * PARSED, f"reading {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"{path}: lists or objects are nested more than {DEEPEST} levels deep") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a readable JSON file (is it cut short?): {error}") from None
    odd = _oddity(content)
    if odd:
        raise ValueError(f"{path}: {odd[0].removeprefix('.') or 'the file'} {odd[1]}")
    return content


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"one object has the key {reprlib.repr(twice)} twice")
    return found


def _oddity(value, depth=0):
    """What JSON's readers do not agree on, as (where, what); None when there is nothing."""
    if isinstance(value, str):
        good = value.isascii() or not HALF_CHARACTER.search(value)
        return None if good else ("", "is not text: it holds half of a surrogate pair")
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", f"should be a finite number, got {value}")
    if not isinstance(value, dict | list):
        return None
    if depth == DEEPEST:
        return "", f"is nested more than {DEEPEST} levels deep"
    is_object = isinstance(value, dict)
    for key, inner in value.items() if is_object else enumerate(value):
        odd = _oddity(inner, depth + 1) or (_oddity(key) if is_object else None)
        if odd:
            return (f".{key[:40]!a}".replace("'", "") if is_object else f"[{key}]") + odd[0], odd[1]
    return None


# ---------------------------------------------------------------------- what a value should be


def is_text(value) -> bool:
    return isinstance(value, str)


def is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Words for the message, and the test.
TEXT = "a text", is_text
TEXTS = "a list of texts", is_texts
NUMBER = f"a number of at most {LARGEST:g}", is_number
LIST = "a list", lambda v: isinstance(v, list)
OBJECT = "an object", lambda v: isinstance(v, dict)


def need(good: bool, place: str, expected: str, got) -> None:
    if not good:
        raise ValueError(f"{place} should be {expected}, got {reprlib.repr(got)}")


def check_keys(value, place: str, required: dict, optional: dict | None = None) -> None:
    """Raises ValueError unless `value` is an object whose keys hold what they should; the whole file's place is ""."""
    need(isinstance(value, dict), place or "the file", "an object", value)
    dot = f"{place}." if place else ""
    for key, (expected, test) in required.items():
        if key not in value:
            raise ValueError(f"{place or 'the file'} lacks {key!r}, {expected}")
        need(test(value[key]), dot + key, expected, value[key])
    for key, (expected, test) in (optional or {}).items():
        if value.get(key) is not None:
            need(test(value[key]), dot + key, expected, value[key])


# ---------------------------------------------------------------------- the number of a feature


def cantor(layer: int, feature: int) -> int:
    """The public number of a feature: Cantor's pairing."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def uncantor(number: int) -> tuple[int, int]:
    """The (layer, feature) that `cantor` made a number of."""
    total = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - total * (total + 1) // 2
    return total - feature, feature
