"""A name for a feature from the evidence of its own examples: no language model needed.

In the order in which people read a feature card:

    Texas / Houston / Laredo    the words it fires on, if they tell something (one word, if it is mostly that one)
    say Austin                  else the word that follows, if it is mostly one
    capital … is                else a word that stands before the place where it fires far more often than elsewhere
    is                          else the word it fires on after all

A word tells something when few texts have it. The evidence is kept beside the label, because a label is a summary
and can mislead.
"""

from collections import Counter

import pandas as pd

MOSTLY = 0.6  # the share of the evidence, weighted by activation, that settles a label
COMMON = 0.1  # a token that this share of all texts has says little about any one of them
LIFT = 3.0  # a context word must be this many times as frequent in the feature's texts as in all
JOINED = 3


def label_features(store) -> pd.DataFrame:
    """A table with one row for each feature that fires: layer, feature, label, evidence."""
    frequency = token_frequency(store.examples)
    lines = []
    for (layer, feature), examples in store.examples.groupby(["layer", "feature"], sort=False):
        lines.append((layer, feature, *name_of(examples, frequency)))
    return pd.DataFrame(lines, columns=["layer", "feature", "label", "evidence"])


def token_frequency(examples: pd.DataFrame) -> dict[str, float]:
    """The share of the examples' different texts that hold each token."""
    texts = {tuple(tokens) for tokens in examples["tokens"]}
    count = Counter(token for tokens in texts for token in {_clean(t) for t in tokens})
    return {token: n / len(texts) for token, n in count.items()}


def name_of(examples: pd.DataFrame, frequency: dict[str, float]) -> tuple[str, str]:
    """(label, evidence) of one feature's examples; `frequency` is the share of all texts that hold a token."""
    here, following, before, total = Counter(), Counter(), Counter(), 0.0
    for tokens, activations, peak in zip(examples["tokens"], examples["activations"], examples["peak"], strict=True):
        words, strength = [_clean(token) for token in tokens], activations[peak]
        total += strength
        here[words[peak]] += strength
        following[words[peak + 1] if peak + 1 < len(words) else "(end)"] += strength
        for word in set(words[:peak]):
            before[word] += strength
    share = lambda counter, n=JOINED: [(w, s / total) for w, s in counter.most_common(n)]  # noqa: E731
    tells = lambda word: frequency.get(word, 0.0) < COMMON  # noqa: E731
    evidence = "fires on " + ", ".join(f"{word} {s:.0%}" for word, s in share(here))
    (word, most), (said, said_share) = share(here, 1)[0], share(following, 1)[0]
    if sum(s for w, s in share(here, None) if tells(w)) >= MOSTLY:
        return (word if most >= MOSTLY else " / ".join(w for w, _ in share(here) if tells(w))), evidence
    if said_share >= MOSTLY and tells(said):
        return f"say {said}", f"comes before {said} {said_share:.0%}; {evidence}"
    context = [(s / frequency.get(w, 1.0), w, s) for w, s in share(before, None) if s >= MOSTLY]
    lift, telling, s = max(context, default=(0.0, "", 0.0))
    if lift >= LIFT:
        return f"{telling} … {word}", f"after {telling} {s:.0%} ({lift:.0f} times the usual); {evidence}"
    return word, evidence


def _clean(token):
    return token.strip() or repr(token)
