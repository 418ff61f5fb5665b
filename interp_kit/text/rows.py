"""Text from anywhere, as rows of token ids: a list, a file, or a stream that is never held as a whole."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ..models import LanguageModel

WINDOW = 256  # tokens a row; longer texts are cut into several
AT_ONCE = 256  # texts tokenised in one call
PIECE = 2000  # characters of a text file read as one document, more or less


Texts = Iterable[str | Mapping[str, object]] | str | Path


class TextRows:
    """Token ids of a source of text, an epoch at a time.

    `texts` is a list of strings, a path of a .txt or .jsonl file, or anything that gives strings or dictionaries with
    a "text" when iterated, as a Hugging Face data set does, streaming or not. A list is read in an order of its own
    in each epoch, anything else from front to back. Raises TypeError for what is none of these.
    """

    def __init__(self, model: LanguageModel, texts: Texts, seed: int = 0):
        self.texts = _source(texts)
        self.texts_read = 0  # in all epochs so far
        self.seed = seed
        self.restarts = not isinstance(self.texts, Iterator)  # a generator can be read only once
        self.vocabulary = model.vocabulary
        self.window = min(model.context_length or WINDOW, WINDOW)

    def epoch(self, number: int | None = None) -> Iterator[list[int]]:
        """Rows of one pass, each of at least two tokens; `number` fixes the order of a list, None keeps its own."""
        texts = self.texts
        if number is not None and isinstance(texts, Sequence):
            order = random.Random(f"texts-{self.seed}-{number}").sample(range(len(texts)), len(texts))
            texts = map(texts.__getitem__, order)
        strings = map(_text, texts)
        while some := list(islice(strings, AT_ONCE)):
            self.texts_read += len(some)
            yield from self._rows(some)

    def peek(self, n: int) -> list[list[int]]:
        """Rows of the first n texts, which are not used up by this."""
        texts = list(islice(self.texts, n))
        if not self.restarts:
            self.texts = chain(texts, self.texts)
        return list(self._rows(list(map(_text, texts))))

    def _rows(self, texts: list[str]) -> Iterator[list[int]]:
        """Windows of the texts, which each begin as a prompt does."""
        for ids in self.vocabulary.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else ():
            first = self.vocabulary.prefix_of(ids)
            step = self.window - len(first)
            rows = (first + ids[start : start + step] for start in range(0, len(ids), step))
            yield from (row for row in rows if len(row) > 1)


def encode_texts(model: LanguageModel, texts: Texts) -> list[list[int]]:
    """All rows of `texts`, in their order. Raises ValueError when there is nothing to read, TypeError as `TextRows`."""
    rows = list(TextRows(model, texts).epoch())
    if not rows:
        raise ValueError(NOTHING)
    return rows


NOTHING = "there is no text to read: give a list of strings, each of at least one token"


def _source(texts: Texts) -> Iterable[str | Mapping[str, object]]:
    if isinstance(texts, (str, Path)):
        path = Path(texts)
        if path.suffix in (".txt", ".jsonl") and path.is_file():
            return _File(path)
        if isinstance(texts, Path) or path.suffix in (".txt", ".jsonl"):
            raise FileNotFoundError(f"{path} is no file: expected a .txt, or a .jsonl with a 'text' in each line")
        raise TypeError("texts should be a list of strings, got one string; wrap it in a list")
    if isinstance(texts, Iterable) and not isinstance(texts, (dict, bytes)):
        return texts
    raise TypeError(f"texts should be a list of strings, a file or a data set, got {type(texts).__name__}")


def _text(item: str | Mapping[str, object]) -> str:
    text = item.get("text") if isinstance(item, Mapping) else item
    if isinstance(text, str):
        return text
    if isinstance(item, Mapping):
        raise TypeError(f"a row has no 'text', only {', '.join(map(repr, item))}: rename the column")
    raise TypeError(f"texts should give strings, or rows with a 'text', got {type(item).__name__}")


@dataclass
class _File:
    """A text file in documents, or a file of JSON lines; it can be read again and again."""

    path: Path

    def __iter__(self) -> Iterator[str | Mapping[str, object]]:
        with open(self.path, encoding="utf-8") as file:
            yield from _documents(file) if self.path.suffix == ".txt" else map(json.loads, file)


def _documents(file: Iterable[str]) -> Iterator[str]:
    """Documents of some `PIECE` characters that end at an empty line."""
    lines, size = [], 0
    for line in file:
        if not line.strip() and size >= PIECE:
            yield "".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield "".join(lines)
