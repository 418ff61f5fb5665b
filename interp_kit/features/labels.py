"""A name for a feature from the evidence of its own examples: no language model needed.

Rules in the order in which people read a feature card; the first whose evidence is strong enough gives the label:

    rule    label             when
    word    Dallas            it fires on one name or word, mostly, and that tells something
    tied    Texas             it fires on several names, and this one goes along with them in the texts
    words   Waco / Nice / 46  ... and nothing ties them together: the mark of a feature with several meanings
    say     say Austin        the word that follows is mostly one
    class   a number          what it fires on differs, but is all of one kind
    phrase  largest city      a common word, nearly always in the same phrase
    after   capital … is      a word stands before that place far more often than elsewhere
    word    is                none of these: the word it fires on after all

A word tells something when few texts have it. The evidence is kept beside the label, because a label is a summary and
can mislead. A rule can be asked whether it expects a feature to fire on a token, so `ik.score_labels` can test it.
"""

import re
from collections import Counter
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from .corpus import Corpus, Words
from .llm import LABEL_TOKENS, label_prompt
from .store import TO_LABEL

MOSTLY = 0.6  # the share of the evidence that settles a label
SURELY = 0.8  # that one word makes all others unimportant; and that a class has no exceptions
LIFT = 3.0  # a context word must be this many times as frequent before the feature's words as in all texts
SEEN = 0.1  # a word at which it is at least this share of its highest is one that it fires on
GOES_ALONG = 0.03  # of the texts with a word, for another to be tied to it
TIED = 0.5  # the share of the words, by strength, that one must be tied to
TIES = 8.0  # and how many times as frequent it must be along with them as in all texts
JOINED = 3
CLASSES = {
    "a number": r"\d[\d.,]*",
    "a line break": r"'.*\\n.*'",
    "punctuation": r"[^\w\s']+",
    "capitals": r"[A-Z]{2,}",
    "a name": r"[A-Z].*",
}
NAME = re.compile("[A-Z]")


@dataclass(frozen=True)
class Rule:
    """When a label expects its feature to fire: on one of `words`, before it ("say"), on a word of the class
    ("class"), on the last of them where the others stand right before it ("phrase"), or on the second where the first
    came before ("after")."""

    kind: str
    words: tuple[str, ...]

    def expects(self, words: Words, token: int) -> bool:
        """Whether it should fire on that token of a text."""
        at, read = words.of_token[token], words.read[token]
        if self.kind == "say":
            following = words.pieces[at + 1 : at + 2]
            return [w.lower() for w in following] == [w.lower() for w in self.words]
        if self.kind == "class":
            return re.fullmatch(CLASSES[self.words[0]], read) is not None
        if self.kind == "phrase":
            *before, last = self.words
            return read == last and words.pieces[max(0, at - len(before)) : at] == before
        if self.kind == "after":
            return read == self.words[1] and self.words[0] in words.pieces[:at]
        return read.lower() in {w.lower() for w in self.words}


COLUMNS = ["layer", "feature", "label", "evidence", "rule", "words", "source"]


def label_features(store, llm=None, only=None) -> pd.DataFrame:
    """A table with a row for each feature that fires: layer, feature, label, evidence (in words), rule and words (what
    the label expects, see `Rule`; None without a rule), source.

    Labels are made from the groups "top" and "sample" of the store; the others are kept aside to test them.

    llm: an `ik.features.LLM` that is asked in place of the rules; `ik.features.label_prompt` shows what it is
        asked, and `llm.estimate`
        what that costs.
    only: the (layer, feature) pairs to label, by default all that fire.
    """
    live = store.features[store.features["density"] > 0]
    pairs = list(zip(live["layer"].tolist(), live["feature"].tolist()))
    if only is not None:
        wanted = {(int(layer), int(feature)) for layer, feature in only}
        pairs = [at for at in pairs if at in wanted]
    corpus = None if llm else Corpus(store.texts(TO_LABEL))
    lines = []
    for at in tqdm(pairs, desc="labelling", leave=False):
        mine = store.of(*at)
        mine = mine[mine["group"].isin(TO_LABEL)]
        if mine.empty:  # all of its texts were kept aside
            continue
        if llm:
            label = llm.ask(label_prompt(store, *at), LABEL_TOKENS).strip(" \n\"'.")
            lines.append((*at, label, f"{llm.model} read {len(mine)} texts", None, None, "llm"))
        else:
            rule, label, evidence = Evidence(mine, corpus).label()
            lines.append((*at, label, evidence, rule.kind, rule.words, "rule"))
    return pd.DataFrame(lines, columns=COLUMNS)


def student_labels(labels: dict[tuple[int, int], str]) -> pd.DataFrame:
    """Labels that a person gave, such as a browser's `labels`, as a table like that of `label_features`."""
    lines = [(*at, label, "typed", None, None, "student") for at, label in labels.items()]
    return pd.DataFrame(lines, columns=COLUMNS)


class Evidence:
    """One feature's examples, counted: each different word it fires on weighs as much as the feature is on there, so
    that a name which the texts repeat does not drown the others."""

    def __init__(self, examples: pd.DataFrame, corpus: Corpus):
        self.corpus, self.total = corpus, 0.0
        here, following, before = Counter(), Counter(), Counter()
        self.runs = []  # (word it fires on, the pieces before that, strength)
        for tokens, active, peak in zip(examples["tokens"], examples["activations"], examples["peak"], strict=True):
            words, strength = corpus.words(tuple(tokens)), abs(float(active[peak]))
            at, self.total = words.of_token[peak], self.total + strength
            here[words.read[peak]] = max(here[words.read[peak]], strength)
            self.runs.append((words.read[peak], words.pieces[:at], strength))
            for word in words.pieces[at + 1 : at + 2]:
                following[word] += strength
            for word in set(words.pieces[:at]):
                before[word] += strength
        highest = max(here.values(), default=0) or 1.0
        self.strength = {word: value / highest for word, value in here.most_common()}  # share of the highest
        self.following = {word: value / (self.total or 1) for word, value in following.most_common()}
        self.before = {word: value / (self.total or 1) for word, value in before.most_common()}

    def label(self) -> tuple[Rule, str, str]:
        """(rule, label, evidence in words)"""
        words, everything = list(self.strength), sum(self.strength.values())
        fires_on = "fires on " + ", ".join(f"{w} {self.strength[w]:.2f}" for w in words[: 2 * JOINED])
        telling = [word for word in words if self.corpus.tells(word)]
        if sum(self.strength[w] for w in telling) >= MOSTLY * everything:
            return self._telling(telling, everything, fires_on)
        said, share = next(iter(self.following.items()), ("", 0))
        if share >= MOSTLY and self.corpus.tells(said):
            return Rule("say", (said,)), f"say {said}", f"comes before {said} {share:.0%}; {fires_on}"
        if len(words) > JOINED and (kind := self._class(everything)):
            return Rule("class", (kind,)), kind, fires_on
        if self.strength[words[0]] >= MOSTLY * everything and len(phrase := self._phrase(words[0])) > 1:
            return Rule("phrase", phrase), " ".join(phrase), fires_on
        lift, word = max(
            ((s / self.corpus.share(w), w) for w, s in self.before.items() if s >= MOSTLY), default=(0, "")
        )
        if lift >= LIFT:
            evidence = f"after {word} {self.before[word]:.0%}; {fires_on}"
            return Rule("after", (word, words[0])), f"{word} … {words[0]}", evidence
        return Rule("word", (words[0],)), words[0], fires_on

    def _telling(self, telling, everything, fires_on):
        first = telling[0]
        squares = sum(s * s for s in self.strength.values())  # weak firings are many and say little
        if self.strength[first] ** 2 >= SURELY * squares:
            return self._word(first, fires_on)
        seen = tuple(word for word in telling if self.strength[word] >= SEEN)
        if tie := self._tie(telling):
            share = self._goes_along(tie, telling)
            return Rule("tied", (*seen, tie)), tie, f"{fires_on}; {tie} goes along with them in {share:.0%} of texts"
        if self.strength[first] >= MOSTLY * everything:
            return self._word(first, fires_on)
        return Rule("words", seen), " / ".join(telling[:JOINED]), fires_on

    def _word(self, word, fires_on):
        phrase = self._phrase(word) if word.islower() else (word,)  # a name needs no more
        return Rule("phrase" if len(phrase) > 1 else "word", phrase), " ".join(phrase), fires_on

    def _phrase(self, word):
        """`word` and what stands right before it nearly always and, at the beginning, is rare elsewhere."""
        phrase, runs = [word], [(before, strength) for read, before, strength in self.runs if read == word]
        least = SURELY * sum(strength for _, strength in runs)
        while len(phrase) < JOINED:
            earlier = Counter()
            for before, strength in runs:
                earlier.update({piece: strength for piece in before[-len(phrase) :][:1] if len(before) >= len(phrase)})
            best, found = max(earlier.items(), key=lambda item: item[1], default=("", 0))
            if found < least:
                break
            runs = [(b, s) for b, s in runs if len(b) >= len(phrase) and b[-len(phrase)] == best]
            phrase.insert(0, best)
        while len(phrase) > 1 and LIFT * self.corpus.share(phrase[0]) > 1:
            del phrase[0]
        return tuple(phrase)

    def _goes_along(self, word, telling):
        """How surely a text with one of the others has `word` too, on average."""
        others = {w: self.strength[w] for w in telling if w != word}
        return sum(s * self.corpus.along_with(w).get(word, 0) for w, s in others.items()) / (sum(others.values()) or 1)

    def _class(self, everything):
        for name, pattern in CLASSES.items():
            if sum(s for w, s in self.strength.items() if re.fullmatch(pattern, w)) >= SURELY * everything:
                return name
        return None

    def _tie(self, telling):
        """The word that goes along with most of the telling ones, and they with it: of a state's cities, the state.

        Of several such words it is the one that goes along with the other companions as well: a state is named with
        its cities, its capital and its abbreviation, the capital hardly ever with the abbreviation. One that the
        feature fires on itself is preferred.
        """
        along, total = self.corpus.along_with, sum(self.strength[w] for w in telling)
        if sum(self.strength[w] for w in telling if NAME.match(w)) < MOSTLY * total:
            return None  # of other words it is chance, or the topic, that ties them
        direct, covered, together = Counter(), Counter(), Counter()
        for word in telling:
            for other, share in along(word).items():
                direct[other] += self.strength[word] * share
                covered[other] += self.strength[word] * (share >= GOES_ALONG)
                together[other] += share >= GOES_ALONG and self.strength[word] >= SEEN
        tied = {
            word: direct[word]
            for word in direct
            if NAME.match(word)
            and covered[word] >= TIED * (rest := total - self.strength.get(word, 0)) > 0
            and together[word] > 1
            and direct[word] >= TIES * self.corpus.share(word) * rest
        }
        around = Counter()
        for word, weight in direct.items():
            for other, share in along(word).items():
                if other in tied:
                    around[other] += weight * share
        highest, most = max(direct.values(), default=1), max(around.values(), default=1)

        def score(word):
            fires = self.strength.get(word, 0) >= SEEN
            return (tied[word] / highest + 2 * around[word] / most) * (1.3 if fires else 1), word

        return max(tied, key=score, default=None)
