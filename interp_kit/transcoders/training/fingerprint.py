"""Which text is it? A fingerprint of a source of texts, so that a run is not resumed with others.

A list is known by all its texts, a file by what it holds wherever it lies, a stream, which may never end, by how it
begins. No more than `BLOCKS` mebibytes of a file are read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...text.rows import TextRows

FIRST = 64  # texts of a stream
BLOCK, BLOCKS = 2**20, 256  # bytes; of a larger file, so many blocks, evenly spread, its beginning and end among them


def text_fingerprint(rows: TextRows) -> str:
    """Of the source of these rows, such as "list-0123456789abcdef"; nothing of a stream is used up."""
    path = getattr(rows.texts, "path", None)
    if isinstance(path, Path):
        return f"file-{_of_file(path)}"
    if isinstance(rows.texts, Sequence):
        return f"list-{_of(rows.texts)}"
    return f"stream-{_of(rows.peek(FIRST))}"


def _of(items: Sequence[object]) -> str:
    found = hashlib.sha256(f"{len(items)} ".encode())
    for item in items:
        text = str(item.get("text") if isinstance(item, Mapping) else item).encode(errors="surrogatepass")
        found.update(f"{len(text)} ".encode() + text)
    return found.hexdigest()[:16]


def _of_file(path: Path) -> str:
    size = path.stat().st_size
    starts = range(0, size, BLOCK)
    if len(starts) > BLOCKS:
        starts = [(size - BLOCK) * i // (BLOCKS - 1) for i in range(BLOCKS)]
    found = hashlib.sha256(f"{size} ".encode())
    with open(path, "rb") as file:
        for start in starts:
            file.seek(start)
            found.update(file.read(BLOCK))
    return found.hexdigest()[:16]
