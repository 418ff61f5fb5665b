"""JSON that we share with other tools, graphs and features: read with care, written whole.

A file may come from anywhere: `read_json` refuses what JSON's readers do not agree on; what a file of ours should hold
is checked in `validation.py`. Both formats number features by Cantor's pairing, `cantor` and `uncantor`.
"""

import json
import math
import re
import reprlib
from collections import Counter
from pathlib import Path

from ..hardware import check_memory
from ..storage.atomic import Test, atomic_file
from ..storage.reading import file_size, read_text

MAX_DEPTH = 50  # levels of lists and objects in a file; the public schemas have five
BYTES_PER_BYTE = 10  # bytes of memory that a byte of JSON may take while it is read; half of that in a usual file
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def json_text(content: object) -> str:
    """Raises ValueError for a number that is not finite."""
    return json.dumps(content, allow_nan=False)


def write_json(content: object, path: Path, replaces: Test) -> None:
    """Writes the file whole or not at all, see `atomic_file`. Raises ValueError for a number that is not finite."""
    text = json_text(content)
    with atomic_file(path, replaces) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> object:
    """What a JSON file holds, once it is known to be finite, valid text and not nested without end.

    Raises FileNotFoundError, MemoryError (before reading) and ValueError.
    """
    check_memory(file_size(path) * BYTES_PER_BYTE, f"reading {path}")
    try:
        content = json.loads(read_text(path), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"{path}: lists or objects are nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a readable JSON file (is it cut short?): {error}") from None
    if odd := _oddity(content):
        raise ValueError(f"{path}: {odd[0].removeprefix('.') or 'the file'} {odd[1]}")
    return content


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"one object has the key {reprlib.repr(twice)} twice")
    return found


def _oddity(value: object, depth: int = 0) -> tuple[str, str] | None:
    """What JSON's readers do not agree on, as (where, what); None when there is nothing."""
    if isinstance(value, str):
        good = value.isascii() or not HALF_CHARACTER.search(value)
        return None if good else ("", "is not text: it holds half of a surrogate pair")
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", f"should be a finite number, got {value}")
    if not isinstance(value, dict | list):
        return None
    if depth == MAX_DEPTH:
        return "", f"is nested more than {MAX_DEPTH} levels deep"
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if odd := _oddity(inner, depth + 1) or _oddity(key):
            place = f".{key[:40]!a}".replace("'", "") if isinstance(key, str) else f"[{key}]"
            return place + odd[0], odd[1]
    return None


# ---------------------------------------------------------------------- the number of a feature


def cantor(layer: int, feature: int) -> int:
    """The public number of a feature: Cantor's pairing."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def uncantor(number: int) -> tuple[int, int]:
    """The (layer, feature) that `cantor` made a number of."""
    total = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - total * (total + 1) // 2
    return total - feature, feature
