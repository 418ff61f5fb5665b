"""TopK: of each token's features, only the strongest stay on."""

import random

import torch
from torch import Tensor

from .puzzle import Puzzle, normal


def solution(pre: Tensor, k: int) -> Tensor:
    """pre [token, feature] -> activations [token, feature]"""
    activations = torch.zeros_like(pre)
    for token in range(len(pre)):
        strongest = sorted(range(pre.shape[1]), key=lambda feature: -float(pre[token, feature]))[:k]
        for feature in strongest:
            activations[token, feature] = max(float(pre[token, feature]), 0.0)
    return activations


def _draw(draw: random.Random) -> tuple:
    # Below zero more often than above, so that a token may have fewer than k features above it.
    return normal(draw, draw.randint(4, 6), draw.randint(7, 9)) - 0.6, draw.randint(2, 3)


def _kept(pre: Tensor, k: int, dim: int = -1) -> Tensor:
    top = pre.topk(k, dim=dim)
    return torch.zeros_like(pre).scatter(dim, top.indices, top.values)


TOPK = Puzzle(
    "topk",
    "my_topk(pre [token, feature], k) returns activations [token, feature]: each token's k largest pre-activations, "
    "as far as they are above zero, and 0 everywhere else",
    ("token", "feature"),
    _draw,
    solution,
    {
        "Some activations are below zero: a feature is on or off, so what is below zero becomes 0.": _kept,
        "These are the k largest of each feature, over the tokens: take those of each token, the last dimension.": (
            lambda pre, k: _kept(pre, k, dim=0).relu()
        ),
        "This is which features stay on: their activations are wanted, not ones.": (
            lambda pre, k: (_kept(pre, k).relu() > 0).float()
        ),
        "All features above zero are on: only the k strongest of each token may stay.": lambda pre, k: pre.relu(),
        "The strongest are by absolute value here: a feature far below zero is off.": (
            lambda pre, k: _kept(pre.abs(), k).where(pre > 0, 0.0)
        ),
        "These are the values alone: each should stand at its feature's place, [token, feature].": (
            lambda pre, k: pre.topk(k, dim=-1).values.relu()
        ),
    },
)
