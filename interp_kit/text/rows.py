"""Text from anywhere, as rows of token ids: a list, a table's column, a file, or a stream that is never held as a
whole. What is no text is refused, naming which; what has no tokens is left out, and said."""

import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from reprlib import repr as shortened

from ..formats.json import HALF_CHARACTER
from ..models import LanguageModel
from .files import TextFile, is_file_of_text

WINDOW = 256  # tokens a row; longer texts are cut into several
AT_ONCE = 256  # texts tokenised in one call
CHARACTERS_AT_ONCE = 2**20  # a tokenizer takes tens of bytes for each; a longer text is cut


Item = str | Mapping[str, object]
Texts = Iterable[Item] | str | Path


class TextRows:
    """Token ids of a source of text, an epoch at a time.

    `texts` is a list of strings, a path of a .txt or .jsonl file, a table of pandas with a column "text" or one of its
    columns, or anything that gives strings or dictionaries with a "text" when iterated, as a Hugging Face data set
    does, streaming or not. A list is read in an order of its own in each epoch, anything else from front to back.
    Texts without a token to predict are left out; the end of an epoch warns how many. Raises TypeError for what is
    none of these, FileNotFoundError and ValueError for a file that is not as `TextFile` reads it.
    """

    def __init__(self, model: LanguageModel, texts: Texts, seed: int = 0):
        self.texts = _source(texts)
        self.texts_read = 0  # in all epochs so far
        self.said = False  # that texts are left out
        self.seed = seed
        self.restarts = not isinstance(self.texts, Iterator)  # a generator can be read only once
        self.vocabulary = model.vocabulary
        self.window = min(model.context_length or WINDOW, WINDOW)

    def epoch(self, number: int | None = None) -> Iterator[list[int]]:
        """Rows of one pass, each of at least two tokens; `number` fixes the order of a list, None keeps its own."""
        found, left_out, first_left_out = 0, 0, ""
        for some in _batches(self._counted(self._numbered(number))):
            found += len(some)
            for (i, text), rows in zip(some, self._rows([text for _, text in some])):
                if not rows:
                    left_out += 1
                    first_left_out = first_left_out or f"texts[{i}], {shortened(text)}"
                yield from rows
        if left_out and left_out < found and not self.said:  # none at all is an error of whoever asks for rows
            self.said = True
            warnings.warn(
                f"{left_out:,} of {found:,} texts have no token to predict and are left out, the first: "
                f"{first_left_out}",
                stacklevel=2,
            )

    def _numbered(self, number: int | None) -> Iterator[tuple[int, str]]:
        """The texts in the order of an epoch, each with its place in the source."""
        texts = self.texts
        if number is None or not isinstance(texts, Sequence):
            return ((i, _text(i, item)) for i, item in enumerate(texts))
        order = random.Random(f"texts-{self.seed}-{number}").sample(range(len(texts)), len(texts))
        return ((i, _text(i, texts[i])) for i in order)

    def _counted(self, texts: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for i, text in texts:
            self.texts_read += 1
            yield i, text

    def peek(self, n: int) -> list[list[int]]:
        """Rows of the first n texts, which are not used up by this."""
        texts = list(islice(self.texts, n))
        if not self.restarts:
            self.texts = chain(texts, self.texts)
        batches = _batches((i, _text(i, text)) for i, text in enumerate(texts))
        return [row for some in batches for rows in self._rows([text for _, text in some]) for row in rows]

    def _rows(self, texts: list[str]) -> Iterator[list[list[int]]]:
        """For each text its windows, which each begin as a prompt does."""
        for ids in self.vocabulary.ids_of_all(texts):
            first = self.vocabulary.prefix_of(ids)
            step = self.window - len(first)
            rows = (first + ids[start : start + step] for start in range(0, len(ids), step))
            yield [row for row in rows if len(row) > 1]


def _batches(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Numbered texts, as many as are tokenised together; of a text that is too long for that, each part."""
    batch: list[tuple[int, str]] = []
    n_characters = 0
    for i, text in texts:
        for part in _parts(text):
            batch.append((i, part))
            n_characters += len(part)
            if len(batch) == AT_ONCE or n_characters >= CHARACTERS_AT_ONCE:
                yield batch
                batch, n_characters = [], 0
    if batch:
        yield batch


def _parts(text: str) -> Iterator[str]:
    """The text, cut before white space where it is too long to be tokenised at once."""
    start = 0
    while len(text) - start > CHARACTERS_AT_ONCE:
        most = start + CHARACTERS_AT_ONCE
        cut = max(text.rfind(" ", start + 1, most), text.rfind("\n", start + 1, most))
        end = cut if cut > start else most
        yield text[start:end]
        start = end
    yield text[start:]


def encode_texts(model: LanguageModel, texts: Texts) -> list[list[int]]:
    """All rows of `texts`, in their order. Raises ValueError when there is nothing to read, and as `TextRows`."""
    rows = list(TextRows(model, texts).epoch())
    if not rows:
        raise ValueError(NOTHING)
    return rows


NOTHING = "there is no text to read: give a list of strings, each of at least one token"


def _source(texts: Texts) -> Iterable[Item]:
    if isinstance(texts, Path) or (isinstance(texts, str) and is_file_of_text(texts)):
        return TextFile(Path(texts))
    if isinstance(texts, str):
        raise TypeError("texts should be a list of strings, got one string; wrap it in a list")
    columns = getattr(texts, "columns", None)  # of pandas, and of what is like it
    if columns is not None:
        if "text" not in list(columns):
            raise TypeError(
                f"texts is a table with the columns {', '.join(map(repr, columns))}, none named 'text': give the "
                "column that holds the texts, table[name]"
            )
        return list(texts["text"])  # type: ignore[index]
    if isinstance(texts, Iterable) and not isinstance(texts, Mapping | bytes | bytearray | memoryview):
        return list(texts) if hasattr(texts, "iloc") else texts  # a column of pandas: by place, not by its index
    raise TypeError(f"texts should be a list of strings, a file or a data set, got {type(texts).__name__}")


def _text(i: int, item: Item) -> str:
    """Raises TypeError for what is no text, ValueError for half a character."""
    text = item.get("text") if isinstance(item, Mapping) else item
    if not isinstance(text, str):
        if isinstance(item, Mapping) and "text" not in item:
            raise TypeError(f"texts[{i}] has no 'text', only {', '.join(map(repr, item))}: rename the column")
        where = f"texts[{i}]['text']" if isinstance(item, Mapping) else f"texts[{i}]"
        raise TypeError(
            f"{where} is {shortened(text)}, a {type(text).__name__}, expected a string: texts should give strings, or "
            "rows with a 'text'; leave out what is missing"
        )
    if not text.isascii() and HALF_CHARACTER.search(text):
        raise ValueError(f"texts[{i}] is not text: it holds half of a surrogate pair, from a string cut in two")
    return text
