"""Texts as names, words, numbers and signs: the pieces that labels are made of."""

import re
from collections import Counter, defaultdict
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

COMMON = 0.1  # a word that this share of all texts has says little about any one of them
FEW = 8  # texts' worth of doubt about what goes along with a word that is seen only now and then
# A name is a run of capitalised words, which "of", "the" and "and" may join: Isle of Man.
PIECE = re.compile(
    r"[^\W\d_a-z][\w'’]*(?:-[\w'’]+)*(?:(?: (?:of|the|and)){0,2} [^\W\d_a-z][\w'’]*(?:-[\w'’]+)*)*"
    r"|\d[\d.,]*\d(?!\w)|\w+(?:['’-]\w+)*|[^\w\s]+|[^\S\n]*\n\s*"
)


class Words(NamedTuple):
    """The pieces of a text, and for each token the piece that its last character is in, cut off after that token: at
    "Lake" a text has read "Salt Lake", not yet "Salt Lake City"."""

    pieces: list[str]
    of_token: list[int]
    read: list[str]


class Corpus:
    """Texts, each a list of tokens: their words, how frequent those are, and which go along with which."""

    def __init__(self, texts):
        self.texts = {tuple(tokens): None for tokens in texts}

    @cached_property
    def _runs(self) -> Counter:
        """How often each run of capitalised words occurs as such."""
        return Counter(m.group() for tokens in self.texts for m in PIECE.finditer("".join(tokens)))

    @cache  # noqa: B019
    def _name(self, piece):
        """Without a first word that is capital only because a sentence starts with it: "For Dallas" is Dallas, since
        Dallas stands alone more often than after For."""
        while " " in piece and self._runs[rest := piece.split(" ", 1)[1]] > self._runs[piece]:
            piece = rest
        return piece

    @lru_cache(maxsize=100_000)  # noqa: B019
    def words(self, tokens: tuple[str, ...]) -> Words:
        text, ends = "", []
        for token in tokens:
            text += token
            ends.append(len(text))
        found = list(PIECE.finditer(text))
        of_token, read, i = [], [], 0
        for end in ends:
            while i < len(found) - 1 and found[i].end() < end:
                i += 1
            of_token.append(i)
            start = found[i].end() - len(self._name(found[i].group())) if found else end
            read.append(_clean(text[min(start, end) : end]))
        return Words([_clean(self._name(m.group())) for m in found], of_token, read)

    @cached_property
    def _texts_with(self) -> dict[str, list[frozenset[str]]]:
        lists = defaultdict(list)
        for tokens in self.texts:
            pieces = frozenset(self.words(tokens).pieces)
            for piece in pieces:
                lists[piece].append(pieces)
        return lists

    def share(self, word: str) -> float:
        """The share of the texts that have `word`."""
        return len(self._texts_with.get(word, ())) / len(self.texts)

    def tells(self, word: str) -> bool:
        """Whether it is rare enough to tell something."""
        return self.share(word) < COMMON

    @cache  # noqa: B019
    def along_with(self, word: str) -> dict[str, float]:
        """How surely each other telling word is in a text that has `word`; cautious where that is rare."""
        texts = self._texts_with.get(word, ())
        counted = Counter(other for pieces in texts for other in pieces)
        return {other: n / (len(texts) + FEW) for other, n in counted.items() if other != word and self.tells(other)}


def _clean(piece):
    return piece.strip() or repr(piece)
