"""Texts as names, words, numbers and signs: the pieces that labels are made of."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

COMMON_WORD_FREQUENCY = 0.1  # a word that this share of all texts has says little about any one of them
COOCCURRENCE_DOUBT = 8  # texts' worth of doubt about what goes along with a word that is seen only now and then
# A name is a run of capitalised words, which "of", "the" and "and" may join: Isle of Man.
PIECE = re.compile(
    r"[^\W\d_a-z][\w'’]*(?:-[\w'’]+)*(?:(?: (?:of|the|and)){0,2} [^\W\d_a-z][\w'’]*(?:-[\w'’]+)*)*"
    r"|\d[\d.,]*\d(?!\w)|\w+(?:['’-]\w+)*|[^\w\s]+|[^\S\n]*\n\s*"
)


class Words(NamedTuple):
    """A text in pieces, and for each token the piece that it ends in."""

    pieces: list[str]
    of_token: list[int]
    "for each token the index of its piece"
    read: list[str]
    "for each token its piece as far as it has been read: at 'Lake' that is 'Salt Lake', not yet 'Salt Lake City'"


class Corpus:
    """Texts, each a list of tokens: their words, how frequent those are, and which occur together.

    >>> corpus = Corpus([[" Dallas", " is", " in", " Texas"], [" Waco", " is", " in", " Texas"]])
    >>> corpus.document_frequency("Dallas")
    0.5
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        self.texts = {tuple(tokens): None for tokens in texts}  # each once, in their order
        # What was worked out, kept here: functools' caches on methods would hold every corpus for good.
        self._names: dict[str, str] = {}
        self._words: dict[tuple[str, ...], Words] = {}
        self._cooccurrence: dict[str, dict[str, float]] = {}

    @cached_property
    def _runs(self) -> Counter[str]:
        """How often each run of capitalised words occurs as such."""
        return Counter(m.group() for tokens in self.texts for m in PIECE.finditer("".join(tokens)))

    def _name(self, piece: str) -> str:
        """Without a first word that is capital only because a sentence starts with it: "For Dallas" is Dallas, since
        Dallas stands alone more often than after For."""
        if piece not in self._names:
            name = piece
            while " " in name:
                rest = name.split(" ", 1)[1]
                if self._runs[rest] <= self._runs[name]:
                    break
                name = rest
            self._names[piece] = name
        return self._names[piece]

    def words(self, tokens: tuple[str, ...]) -> Words:
        """The text of these tokens in pieces."""
        if tokens not in self._words:
            self._words[tokens] = self._split(tokens)
        return self._words[tokens]

    def _split(self, tokens: tuple[str, ...]) -> Words:
        text = "".join(tokens)
        found = list(PIECE.finditer(text))
        of_token, read, i = [], [], 0
        for end in accumulate(map(len, tokens)):
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

    def document_frequency(self, word: str) -> float:
        """The share of the texts that have `word`."""
        return len(self._texts_with.get(word, ())) / len(self.texts)

    def is_informative(self, word: str) -> bool:
        """Whether it is rare enough to say something about a text."""
        return self.document_frequency(word) < COMMON_WORD_FREQUENCY

    def cooccurrence(self, word: str) -> dict[str, float]:
        """For each other informative word the share of the texts with `word` that have it too; lower, out of caution,
        where `word` is rare."""
        if word not in self._cooccurrence:
            self._cooccurrence[word] = self._counted_with(word)
        return self._cooccurrence[word]

    def _counted_with(self, word: str) -> dict[str, float]:
        texts = self._texts_with.get(word, ())
        counted = Counter(other for pieces in texts for other in pieces)
        n = len(texts) + COOCCURRENCE_DOUBT
        return {other: k / n for other, k in counted.items() if other != word and self.is_informative(other)}


def _clean(piece: str) -> str:
    return piece.strip() or repr(piece)
