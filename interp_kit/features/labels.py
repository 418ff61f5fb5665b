"""A name for a feature from the evidence of its own examples: no language model needed.

Rules in the order in which people read a feature card; the first whose evidence is strong enough gives the label:

    rule    label             when
    word    Dallas            it fires on one name or word, mostly, and that is informative
    tied    Texas             it fires on several names, and this one occurs together with them in the texts
    words   Waco / Nice / 46  ... and nothing ties them together: the mark of a feature with several meanings
    say     say Austin        the word that follows is mostly one
    class   a number          what it fires on differs, but is all of one kind
    phrase  largest city      a common word, nearly always in the same phrase
    after   capital … is      a word stands before that place far more often than elsewhere
    word    is                none of these: the word it fires on after all

A word is informative when few texts have it. The evidence is kept beside the label, because a label is a summary and
can mislead. A rule can be asked whether it expects a feature to fire on a token, so `ik.score_labels` can test it.
"""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from ..formats.label_table import checked_labels
from ..formats.provenance import about_of
from ..models.arguments import checked
from ..widgets.progress import ProgressBar
from .corpus import Corpus
from .examples import LABEL_GROUPS
from .llm import LLM, MAX_LABEL_TOKENS, N_EXAMPLES_SHOWN, AnswerRefused, label_prompt, one_line
from .rules import WORD_CLASSES, Rule
from .store import FeatureStore, Pairs, rows_of

MAJORITY_SHARE = 0.6  # of the evidence: enough to settle a label
NEAR_CERTAIN_SHARE = 0.8  # of the evidence: one word makes all others unimportant, a class has no exceptions
MIN_CONTEXT_LIFT = 3.0  # a context word is so many times as frequent before the feature's words as in all texts
MIN_STRENGTH = 0.1  # a word at which it is weaker, as a share of its strongest, is not one that it fires on
MIN_COOCCURRENCE = 0.03  # of the texts with a word, for another to be tied to it
MIN_TIED_SHARE = 0.5  # of the words, by strength, that one must be tied to
MIN_TIE_LIFT = 8.0  # and it is so many times as frequent together with them as in all texts
TIE_CONTEXT_WEIGHT = 2.0  # of occurring with the other companions, beside 1 for occurring with the words themselves
TIE_FIRES_BONUS = 1.3  # for a tie that the feature fires on itself
MAX_LABEL_WORDS = 3
NAME = re.compile("[A-Z]")
NO_ANSWER = "no answer: "  # how the evidence of a feature begins that an LLM did not name
COLUMNS = ["layer", "feature", "label", "evidence", "rule", "words", "source"]


@checked
def label_features(store: FeatureStore, llm: LLM | None = None, only: Pairs | None = None) -> pd.DataFrame:
    """A table with a row for each feature that fires: layer, feature, label, evidence (in words), rule and words (what
    the label expects, see the module's table of rules; None without a rule), source.

    Labels are made from the groups "top" and "sample" of the store; the others are kept aside to test them. A feature
    without such an example, as of few texts, gets no label: "", with the reason as its evidence and no source. So does
    one for which an `llm` gave no answer that can be used; a warning counts them.

    llm: an `ik.features.LLM` that is asked in place of the rules; `ik.features.label_prompt` shows what it is asked,
        and `llm.estimate` what that costs.
    only: the (layer, feature) pairs to label, by default all that fire.

    Raises ValueError for a pair that the store does not have, OSError where an LLM's endpoint does not answer.

    >>> labels = ik.label_features(store, only=[(1, 4)])
    >>> labels[["label", "evidence"]]
    """
    fires = store.features["density"].ne(0) if only is None else slice(None)  # NaN: a file that does not say
    rows = rows_of(store.features.loc[fires, ["layer", "feature"]], only)
    corpus = Corpus(() if llm else store.windows(LABEL_GROUPS))
    lines = []
    for row in ProgressBar(rows, desc="labelling", leave=False):
        at = row["layer"], row["feature"]
        mine = store.examples_of(*at)
        usable = mine[mine["group"].isin(LABEL_GROUPS)]
        if usable.empty:
            lines.append((*at, "", _why_none(store, at, mine), None, None, None))
        elif llm:
            lines.append((*at, *_asked(llm, store, at, len(usable))))
        else:
            rule, label, evidence = Evidence(usable, corpus).label()
            lines.append((*at, label, evidence, rule.kind, rule.words, "rule"))
    table = pd.DataFrame(lines, columns=COLUMNS)
    table.attrs["about"] = about_of(store)
    if llm:
        _warn_of_refused(table, llm)
    return table


def _why_none(store: FeatureStore, at: tuple[int, int], examples: pd.DataFrame) -> str:
    """Why a feature cannot be named."""
    if store.row(*at)["density"] == 0:
        return "never fires in these texts"
    return "no example is known" if examples.empty else "fires only in texts that were kept aside for tests: read more"


def _asked(llm: LLM, store: FeatureStore, at: tuple[int, int], n: int) -> tuple[str, str, None, None, str | None]:
    """What follows layer and feature in a row of the table."""
    try:
        said = llm.ask(label_prompt(store, *at), MAX_LABEL_TOKENS)
        label = one_line(said).strip(" \"'.")
        if not label:
            raise AnswerRefused(f"{said!r} is no name")
    except AnswerRefused as error:
        return "", f"{NO_ANSWER}{error}", None, None, None
    return label, f"{llm.model} read {min(n, N_EXAMPLES_SHOWN)} texts", None, None, "llm"


def _warn_of_refused(table: pd.DataFrame, llm: LLM) -> None:
    refused = table.loc[[text.startswith(NO_ANSWER) for text in table["evidence"]], "evidence"]
    if len(refused):
        warnings.warn(
            f"{llm.model} gave no usable answer for {len(refused):,} of {len(table):,} features, which "
            f"have no label (the first: {refused.iloc[0]}); run it again, and only these are asked",
            stacklevel=3,
        )


def student_labels(labels: Mapping[tuple[int, int], str], store: FeatureStore | None = None) -> pd.DataFrame:
    """Labels that a person gave, such as a browser's `labels`, as a table like that of `label_features`.

    store: the one that they were looked up in; the table then knows its model and transcoder.

    Raises TypeError for what is no dictionary of names by (layer, feature).

    >>> ik.features.student_labels({(1, 4): "cities in Texas"}, store)
    """
    lines = []
    for at, label in labels.items() if isinstance(labels, Mapping) else [(labels, None)]:
        if not (isinstance(at, tuple) and len(at) == 2 and isinstance(label, str)):
            raise TypeError(f"expected {{(layer, feature): name}}, such as browser.labels, got {at!r}: {label!r}")
        lines.append((*at, label, "typed", None, None, "student") if label else (*at, "", "none", None, None, None))
    table = checked_labels(pd.DataFrame(lines, columns=COLUMNS))
    table.attrs["about"] = about_of(store)
    return table


class Evidence:
    """One feature's examples, counted: each different word it fires on weighs as much as the feature is on there, so
    that a name which the texts repeat does not drown the others.

    strength: {word: its activation there, as a share of the largest}, strongest first.
    following, before: {word: the share of the activation that falls right before it, and after it in the same text}.
    """

    def __init__(self, examples: pd.DataFrame, corpus: Corpus) -> None:
        self.corpus, total = corpus, 0.0
        here, following, before = _counts(), _counts(), _counts()
        self.runs: list[tuple[str, list[str], float]] = []  # (word it fires on, the pieces before that, strength)
        for tokens, active, peak in zip(examples["tokens"], examples["activations"], examples["peak"], strict=True):
            words, strength = corpus.words(tuple(tokens)), abs(float(active[peak]))
            at, read = words.of_token[peak], words.read[peak]
            total += strength
            here[read] = max(here[read], strength)
            self.runs.append((read, words.pieces[:at], strength))
            for word in words.pieces[at + 1 : at + 2]:
                following[word] += strength
            for word in set(words.pieces[:at]):
                before[word] += strength
        self.strength = _shares(here, max(here.values(), default=0))
        self.following, self.before = _shares(following, total), _shares(before, total)

    def label(self) -> tuple[Rule, str, str]:
        """(rule, label, evidence in words)"""
        words, everything = list(self.strength), sum(self.strength.values())
        fires_on = "fires on " + ", ".join(f"{w} {self.strength[w]:.2f}" for w in words[: 2 * MAX_LABEL_WORDS])
        informative = [word for word in words if self.corpus.is_informative(word)]
        if sum(self.strength[w] for w in informative) >= MAJORITY_SHARE * everything:
            return self._informative(informative, everything, fires_on)
        said, share = next(iter(self.following.items()), ("", 0))
        if share >= MAJORITY_SHARE and self.corpus.is_informative(said):
            return Rule("say", (said,)), f"say {said}", f"comes before {said} {share:.0%}; {fires_on}"
        kind = self._class(everything) if len(words) > MAX_LABEL_WORDS else None
        if kind:
            return Rule("class", (kind,)), kind, fires_on
        phrase = self._phrase(words[0]) if self.strength[words[0]] >= MAJORITY_SHARE * everything else ()
        if len(phrase) > 1:
            return Rule("phrase", phrase), " ".join(phrase), fires_on
        often = [(share, word) for word, share in self.before.items() if share >= MAJORITY_SHARE]
        lifts = ((share / self.corpus.document_frequency(word), word) for share, word in often)
        lift, word = max(lifts, default=(0, ""))
        if lift < MIN_CONTEXT_LIFT:
            return Rule("word", (words[0],)), words[0], fires_on
        evidence = f"after {word} {self.before[word]:.0%}; {fires_on}"
        return Rule("after", (word, words[0])), f"{word} … {words[0]}", evidence

    def _informative(self, informative: Sequence[str], everything: float, fires_on: str) -> tuple[Rule, str, str]:
        first = informative[0]
        squares = sum(s * s for s in self.strength.values())  # weak firings are many and say little
        if self.strength[first] ** 2 >= NEAR_CERTAIN_SHARE * squares:
            return self._word(first, fires_on)
        strong = tuple(word for word in informative if self.strength[word] >= MIN_STRENGTH)
        if tie := self._tie(informative):
            share = self._mean_cooccurrence(tie, informative)
            return Rule("tied", (*strong, tie)), tie, f"{fires_on}; {tie} goes along with them in {share:.0%} of texts"
        if self.strength[first] >= MAJORITY_SHARE * everything:
            return self._word(first, fires_on)
        return Rule("words", strong), " / ".join(informative[:MAX_LABEL_WORDS]), fires_on

    def _word(self, word: str, fires_on: str) -> tuple[Rule, str, str]:
        phrase = self._phrase(word) if word.islower() else (word,)  # a name needs no more
        return Rule("phrase" if len(phrase) > 1 else "word", phrase), " ".join(phrase), fires_on

    def _phrase(self, word: str) -> tuple[str, ...]:
        """`word` and what stands right before it nearly always and, at the beginning, is rare elsewhere."""
        phrase, runs = [word], [(before, strength) for read, before, strength in self.runs if read == word]
        least = NEAR_CERTAIN_SHARE * sum(strength for _, strength in runs)
        while len(phrase) < MAX_LABEL_WORDS:
            n, earlier = len(phrase), _counts()
            for before, strength in runs:
                if len(before) >= n:
                    earlier[before[-n]] += strength
            best, found = max(earlier.items(), key=lambda item: item[1], default=("", 0))
            if found < least:
                break
            runs = [(before, strength) for before, strength in runs if len(before) >= n and before[-n] == best]
            phrase.insert(0, best)
        while len(phrase) > 1 and MIN_CONTEXT_LIFT * self.corpus.document_frequency(phrase[0]) > 1:
            del phrase[0]
        return tuple(phrase)

    def _mean_cooccurrence(self, word: str, informative: Sequence[str]) -> float:
        """How surely a text with one of the others has `word` too, on average."""
        others = {w: self.strength[w] for w in informative if w != word}
        along = sum(s * self.corpus.cooccurrence(w).get(word, 0) for w, s in others.items())
        return along / (sum(others.values()) or 1)

    def _class(self, everything: float) -> str | None:
        for name, pattern in WORD_CLASSES.items():
            inside = sum(s for word, s in self.strength.items() if re.fullmatch(pattern, word))
            if inside >= NEAR_CERTAIN_SHARE * everything:
                return name
        return None

    def _tie(self, informative: Sequence[str]) -> str | None:
        """The word that occurs together with most of the informative ones, and they with it: of a state's cities, the
        state.

        Of several such words it is the one that occurs with the other companions as well: a state is named with its
        cities, its capital and its abbreviation, the capital hardly ever with the abbreviation. One that the feature
        fires on itself is preferred.
        """
        cooccurrence, total = self.corpus.cooccurrence, sum(self.strength[w] for w in informative)
        if sum(self.strength[w] for w in informative if NAME.match(w)) < MAJORITY_SHARE * total:
            return None  # of other words it is chance, or the topic, that ties them
        direct, covered, together = _counts(), _counts(), Counter()
        for word in informative:
            for other, share in cooccurrence(word).items():
                direct[other] += self.strength[word] * share
                covered[other] += self.strength[word] * (share >= MIN_COOCCURRENCE)
                together[other] += share >= MIN_COOCCURRENCE and self.strength[word] >= MIN_STRENGTH
        tied = set()
        for word, weight in direct.items():
            rest = total - self.strength.get(word, 0)  # of the other words
            covers = rest > 0 and covered[word] >= MIN_TIED_SHARE * rest and together[word] > 1
            often = weight >= MIN_TIE_LIFT * self.corpus.document_frequency(word) * rest
            if NAME.match(word) and covers and often:
                tied.add(word)
        around = {tie: sum(weight * cooccurrence(word).get(tie, 0) for word, weight in direct.items()) for tie in tied}
        most_direct, most_around = max(direct.values(), default=1), max(around.values(), default=0) or 1

        def score(word: str) -> float:
            bonus = TIE_FIRES_BONUS if self.strength.get(word, 0) >= MIN_STRENGTH else 1
            return (direct[word] / most_direct + TIE_CONTEXT_WEIGHT * around[word] / most_around) * bonus

        return max(tied, key=lambda word: (score(word), word), default=None)


def _counts() -> defaultdict[str, float]:
    """{word: a sum}, 0 for a new word."""
    return defaultdict(float)


def _shares(counts: Mapping[str, float], whole: float) -> dict[str, float]:
    """{word: its share of the whole}, the largest first."""
    return {word: counts[word] / (whole or 1) for word in sorted(counts, key=counts.__getitem__, reverse=True)}
