"""A label rule: which token a feature is named after."""

import random
from collections import Counter
from collections.abc import Sequence

from .puzzle import Puzzle

WORDS = ["Dallas", "Austin", "Texas", "Ohio", "Paris", "France", "the", "of", "in", "is"]
COMMON = ["the", "of", "in", "is"]


def solution(tokens: Sequence[str], fires: Sequence[bool]) -> str:
    """tokens [token], whether the feature fires on each [token] -> the token with the best F1"""
    best, best_f1 = "", -1.0
    for word in sorted(set(tokens)):
        is_word = [token == word for token in tokens]
        both = sum(here and on for here, on in zip(is_word, fires))
        f1 = 2 * both / (sum(is_word) + sum(fires))
        if f1 > best_f1:
            best, best_f1 = word, f1
    return best


def _draw(draw: random.Random) -> tuple:
    """A feature that fires on most occurrences of one rare word, on a frequent word now and then, on the commonest
    never, and once on a word that stands there alone."""
    name, once = draw.sample([word for word in WORDS if word not in COMMON], 2)
    frequent, commonest = draw.sample(COMMON, 2)
    tokens = [name] * draw.randint(5, 7) + [frequent] * draw.randint(40, 50) + [once] + [commonest] * 60
    tokens += draw.choices([word for word in WORDS if word not in (name, once, frequent)], k=40)
    draw.shuffle(tokens)
    missed = draw.choice([i for i, token in enumerate(tokens) if token == name])
    often = draw.sample([i for i, token in enumerate(tokens) if token == frequent], 8)
    fires = [token in (name, once) and i != missed or i in often for i, token in enumerate(tokens)]
    return tokens, fires


def _rate(tokens: Sequence[str], fires: Sequence[bool]) -> dict[str, float]:
    """Of each word, on which share of its occurrences the feature fires."""
    on = Counter(token for token, here in zip(tokens, fires) if here)
    return {word: on[word] / n for word, n in Counter(tokens).items()}


LABEL_RULE = Puzzle(
    "label_rule",
    "my_label(tokens, fires) is given a list of tokens and, for each, whether a feature fires on it (True or False). "
    'It returns the token that the feature should be named after: the one for which "it is this token" predicts "it '
    'fires" with the best F1, 2 * both / (times the token occurs + times the feature fires)',
    (),
    _draw,
    solution,
    {
        "On this token the feature fires most often, but on a frequent token it does so by chance. F1 counts where it "
        "is silent, too.": lambda tokens, fires: Counter(t for t, on in zip(tokens, fires) if on).most_common(1)[0][0],
        "This is the commonest token: whether the feature fires on it was not asked.": (
            lambda tokens, fires: Counter(tokens).most_common(1)[0][0]
        ),
        "On this token the feature always fires, but it explains one firing: precision alone, and F1 wants recall.": (
            lambda tokens, fires: max(sorted(rate := _rate(tokens, fires)), key=lambda word: rate[word])
        ),
        "This is a score: the token that has it is wanted.": lambda tokens, fires: max(_rate(tokens, fires).values()),
    },
)
