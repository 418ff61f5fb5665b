"""When a label expects its feature to fire: the rules of a table of labels, as it has them in `rule` and `words`."""

import ast
import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from ..formats.label_table import checked_labels, is_missing
from .corpus import Words

WORD_CLASSES = {
    "a number": r"\d[\d.,]*",
    "a line break": r"'.*\\n.*'",
    "punctuation": r"[^\w\s']+",
    "capitals": r"[A-Z]{2,}",
    "a name": r"[A-Z].*",
}
N_WORDS = {"class": (1, 1), "after": (2, 2), "say": (1, 1), "words": (0, math.inf)}  # others: at least one
LONGEST_LIST = 10_000  # characters of a list of words that a file has made a text of

RuleKind = Literal["word", "tied", "words", "say", "class", "phrase", "after"]
KINDS: tuple[RuleKind, ...] = get_args(RuleKind)


@dataclass(frozen=True)
class Rule:
    """When a label expects its feature to fire: on one of `words`, before it ("say"), on a word of the class
    ("class"), on the last of them where the others stand right before it ("phrase"), or on the second where the first
    came before ("after").

    Raises ValueError for another kind, and for words that do not fit it.
    """

    kind: RuleKind
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"rule {self.kind!r}: expected one of {', '.join(KINDS)}")
        least, most = N_WORDS.get(self.kind, (1, math.inf))
        if not (all(isinstance(word, str) for word in self.words) and least <= len(self.words) <= most):
            expected = "words" if most == math.inf else f"{most} of words"
            raise ValueError(f"rule {self.kind!r} needs {expected}, got {self.words!r}")
        if self.kind == "class" and self.words[0] not in WORD_CLASSES:
            raise ValueError(f"{self.words[0]!r} is no class of words: expected one of {', '.join(WORD_CLASSES)}")

    def expects(self, words: Words, token: int) -> bool:
        """Whether it should fire on that token of a text."""
        at, read = words.of_token[token], words.read[token]
        if self.kind == "say":
            return [w.lower() for w in words.pieces[at + 1 : at + 2]] == [w.lower() for w in self.words]
        if self.kind == "class":
            return re.fullmatch(WORD_CLASSES[self.words[0]], read) is not None
        if self.kind == "phrase":
            *before, last = self.words
            return read == last and words.pieces[max(0, at - len(before)) : at] == before
        if self.kind == "after":
            return read == self.words[1] and self.words[0] in words.pieces[:at]
        return read.lower() in {w.lower() for w in self.words}


def with_rules(labels: object) -> pd.DataFrame:
    """A table of labels whose `rule` and `words`, where it has them, are a rule's or None: also of a file that has made
    texts of the lists of words.

    Raises TypeError and ValueError as `checked_labels`, and ValueError naming the column and the row that is no rule.
    """
    table = checked_labels(labels)
    if "rule" not in table:
        return table
    if "words" not in table:
        raise ValueError("the table of labels has a column 'rule' and none 'words': a rule needs both")
    rules = []
    for row, (kind, words) in enumerate(zip(table["rule"], table["words"], strict=True)):
        try:
            rules.append(None if is_missing(kind) else Rule(kind, _words(words)))
        except ValueError as error:
            raise ValueError(f"the columns 'rule' and 'words' hold no rule in row {row}: {error}") from None
    kinds, words = [rule and rule.kind for rule in rules], [rule and rule.words for rule in rules]
    columns = {"rule": kinds, "words": words}
    return table.assign(**{name: pd.Series(values, table.index, object) for name, values in columns.items()})


def _words(value: object) -> tuple[str, ...]:
    """A rule's words, also as str() writes them, "('Dallas', 'Texas')"."""
    if isinstance(value, str) and len(value) <= LONGEST_LIST:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"expected a list of words, got the text {value[:80]!r}") from None
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"expected a list of words, got {str(value)[:80]!r}")
    return tuple(value)
