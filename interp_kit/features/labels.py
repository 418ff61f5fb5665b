"""A name for a feature from the evidence of its own examples: no language model needed.

Where the truth is known (a world's concepts, graded on held-out sentences) the name is what the feature detects.
Elsewhere, in the order in which people read a feature card:

    Dallas            the word it fires on, if that is mostly one and tells something
    Austin / Texas    if it fires on several telling words: the words that tie their texts together
    Waco / Nice / 46  or, where nothing does, those words themselves: the mark of a feature with several meanings
    say Austin        else the word that follows, if it is mostly one
    capital … is      else a word that stands before the place where it fires far more often than elsewhere
    is                else the word it fires on after all

A word tells something when few texts have it. The evidence is kept beside the label, because a label is a summary
and can mislead.
"""

from collections import Counter, defaultdict

import pandas as pd

MOSTLY = 0.6  # the share of the evidence, weighted by activation, that settles a label
COMMON = 0.1  # a token that this share of all texts has says little about any one of them
LIFT = 3.0  # a context word must be this many times as frequent in the feature's texts as in all
TIED = 3  # different words whose texts must share a word for it to tie them together
JOINED = 3


def label_features(store) -> pd.DataFrame:
    """A table with one row for each feature that fires: layer, feature, label, evidence."""
    frequency, known = token_frequency(store.examples), {}
    if "concept" in store.features:
        detects = store.features.dropna(subset="concept")
        known = {(r.layer, r.feature): (r.concept, f"detects {r.concept}, F1 {r.F1:.2f}") for r in detects.itertuples()}
    lines = []
    for at, examples in store.examples.groupby(["layer", "feature"], sort=False):
        lines.append((*at, *(known.get(at) or Evidence(examples, frequency).label())))
    return pd.DataFrame(lines, columns=["layer", "feature", "label", "evidence"])


def token_frequency(examples: pd.DataFrame) -> dict[str, float]:
    """The share of the examples' different texts that hold each token."""
    texts = {tuple(tokens) for tokens in examples["tokens"]}
    count = Counter(token for tokens in texts for token in {_clean(t) for t in tokens})
    return {token: n / len(texts) for token, n in count.items()}


class Evidence:
    """One feature's examples, counted: shares of the summed activation at the peaks."""

    def __init__(self, examples: pd.DataFrame, frequency: dict[str, float]):
        """`frequency` is the share of all texts that hold a token."""
        self.frequency = frequency
        here, following, before, anywhere = (Counter() for _ in range(4))
        self.peaks_with = defaultdict(set)  # word -> the different words on which the feature fires in its texts
        total = 0.0
        for tokens, activations, peak in zip(
            examples["tokens"], examples["activations"], examples["peak"], strict=True
        ):
            words, strength = [_clean(token) for token in tokens], activations[peak]
            total += strength
            here[words[peak]] += strength
            following[words[peak + 1] if peak + 1 < len(words) else "(end)"] += strength
            for word in set(words[:peak]):
                before[word] += strength
            for word in set(words):
                anywhere[word] += strength
                self.peaks_with[word].add(words[peak])
        share = lambda counter: {word: strength / (total or 1.0) for word, strength in counter.most_common()}  # noqa: E731
        self.here, self.following, self.before, self.anywhere = map(share, (here, following, before, anywhere))

    def label(self) -> tuple[str, str]:
        """(label, evidence in words)"""
        word, most = next(iter(self.here.items()))
        said, said_share = next(iter(self.following.items()))
        fires_on = "fires on " + ", ".join(f"{w} {s:.0%}" for w, s in list(self.here.items())[:JOINED])
        if sum(s for w, s in self.here.items() if self._tells(w)) >= MOSTLY:
            if most >= MOSTLY:
                return word, fires_on
            if tying := self._tying():
                texts = ", ".join(f"{w} {self.anywhere[w]:.0%}" for w in tying)
                return " / ".join(tying), f"{fires_on}; its texts have {texts}"
            return " / ".join([w for w in self.here if self._tells(w)][:JOINED]), fires_on
        if said_share >= MOSTLY and self._tells(said):
            return f"say {said}", f"comes before {said} {said_share:.0%}; {fires_on}"
        context = [(s / self.frequency.get(w, 1.0), w) for w, s in self.before.items() if s >= MOSTLY]
        lift, telling = max(context, default=(0.0, ""))
        if lift >= LIFT:
            return f"{telling} … {word}", f"after {telling} {self.before[telling]:.0%}; {fires_on}"
        return word, fires_on

    def _tells(self, word):
        return self.frequency.get(word, 0.0) < COMMON

    def _tying(self):
        """The telling words whose texts have the most different words that the feature fires on, alphabetically."""
        found = [
            (len(self.peaks_with[word]), share, word)
            for word, share in self.anywhere.items()
            if self._tells(word) and share >= LIFT * self.frequency.get(word, 1.0)
        ]
        return sorted(word for tied, _, word in sorted(found)[-JOINED:] if tied >= TIED)


def _clean(token):
    return token.strip() or repr(token)
