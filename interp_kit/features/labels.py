"""A name for a feature from the evidence of its own examples: no language model needed.

In the order in which people read a feature card: the token it fires on, if that is mostly one; the token it comes
before ("say Austin"), if that is mostly one; else the tokens it fires on most, joined. The evidence is kept beside
the label, because a label is a summary and can mislead.
"""

from collections import Counter

import pandas as pd

MOSTLY = 0.6  # the share of the evidence, weighted by activation, that makes one token the label
JOINED = 3


def label_features(store) -> pd.DataFrame:
    """A table with one row for each feature that fires: layer, feature, label, evidence."""
    lines = []
    for (layer, feature), examples in store.examples.groupby(["layer", "feature"], sort=False):
        label, evidence = name_of(examples)
        lines.append((layer, feature, label, evidence))
    return pd.DataFrame(lines, columns=["layer", "feature", "label", "evidence"])


def name_of(examples: pd.DataFrame) -> tuple[str, str]:
    """(label, evidence) of one feature's examples."""
    here, following = Counter(), Counter()
    for e in examples.itertuples():
        strength = e.activations[e.peak]
        here[_clean(e.tokens[e.peak])] += strength
        after = e.tokens[e.peak + 1] if e.peak + 1 < len(e.tokens) else "(end)"
        following[_clean(after)] += strength
    total = sum(here.values())
    shares = [(token, strength / total) for token, strength in here.most_common(JOINED)]
    said, said_share = following.most_common(1)[0]
    said_share /= total
    fires_on = "fires on " + ", ".join(f"{token} {share:.0%}" for token, share in shares)
    if shares[0][1] >= MOSTLY and shares[0][1] >= said_share:
        return shares[0][0], fires_on
    if said_share >= MOSTLY:
        return f"say {said}", f"comes before {said} {said_share:.0%}; {fires_on}"
    return " / ".join(token for token, _ in shares), fires_on


def _clean(token):
    return token.strip() or repr(token)
