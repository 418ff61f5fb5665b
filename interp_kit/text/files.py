"""A file as a source of text, never held as a whole: a .txt in documents, or a .jsonl with a text in each line."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..storage.reading import file_size, text_lines

PIECE = 2000  # characters of a text file read as one document, more or less
READ = (".txt", ".jsonl")
# What to do about files that people have and that are not read.
REMEDIES = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zip", ".zst"), "it is compressed: unpack it first"),
    **dict.fromkeys((".csv", ".tsv"), "give the column of the table: texts=pandas.read_csv(path)['text']"),
    **dict.fromkeys((".parquet", ".pq"), "give the column of the table: texts=pandas.read_parquet(path)['text']"),
    **dict.fromkeys((".json",), "give the list in it: texts=json.loads(Path(path).read_text(encoding='utf-8'))"),
}


def is_file_of_text(name: str) -> bool:
    """Whether a string is the path of a file rather than a text: it ends like one, or there is such a file."""
    ending = Path(name).suffix.lower()
    return "\n" not in name and (ending in READ or ending in REMEDIES or _is_there(name))


def _is_there(name: str) -> bool:
    try:
        return bool(name) and os.path.exists(name)
    except ValueError:  # a zero byte
        return False


@dataclass
class TextFile:
    """The texts of a file, each time it is iterated; UTF-8, with or without a byte-order mark, of any line ends.

    .txt: documents of some 2,000 characters that end at an empty line. .jsonl: of each line the string, or the "text"
    of the object; blank lines are passed over.

    Raises FileNotFoundError; ValueError for another kind of file, with what to do, and for an empty one. Iterating
    raises ValueError, naming the line, for another encoding, and for a line without a text.
    """

    path: Path

    def __post_init__(self) -> None:
        ending = self.path.suffix.lower()
        if not self._is_there() and ending in READ:
            raise FileNotFoundError(
                f"{self.path} is no file (looked from {os.getcwd()!r}): expected a .txt, or a .jsonl with a 'text' in "
                "each line"
            )
        size = file_size(self.path)
        if ending not in READ:
            remedy = REMEDIES.get(ending, "rename it if it is one of these")
            raise ValueError(f"{self.path} is not a .txt or .jsonl file, which texts are read from; {remedy}")
        if not size:
            raise ValueError(f"{self.path} is empty: there is no text in it")

    def _is_there(self) -> bool:
        return _is_there(str(self.path))

    def __iter__(self) -> Iterator[str]:
        if self.path.suffix.lower() == ".jsonl":
            yield from self._of_lines()
        else:
            yield from _documents(line.replace("\r\n", "\n").replace("\r", "\n") for line in text_lines(self.path))

    def _of_lines(self) -> Iterator[str]:
        for number, line in enumerate(text_lines(self.path), 1):
            if line.strip():
                yield self._text(f"{self.path}, line {number}", line)

    @staticmethod
    def _text(where: str, line: str) -> str:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also an object nested without end
            raise ValueError(f"{where}: is no JSON ({error}); mend or remove the line") from None
        text = row.get("text") if isinstance(row, dict) else row
        if isinstance(text, str):
            return text
        if isinstance(row, dict) and "text" not in row:
            fields = ", ".join(repr(name)[:40] for name in list(row)[:8]) or "nothing"
            raise ValueError(f"{where}: has no 'text', only {fields}: rename the field that holds the text")
        raise ValueError(f"{where}: the text is a {type(text).__name__}, expected a string; mend or remove the line")


def _documents(file: Iterable[str]) -> Iterator[str]:
    """Documents of some `PIECE` characters that end at an empty line."""
    lines, size = [], 0
    for line in file:
        if not line.strip() and size >= PIECE:
            yield "".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield "".join(lines)
