"""JumpReLU's gradient: how a threshold learns, though the step at it has no slope."""

import random

import torch
from torch import Tensor

from .puzzle import Puzzle, normal


def solution(pre: Tensor, threshold: Tensor, width: float, upstream: Tensor) -> Tensor:
    """pre, upstream [token, feature], threshold [feature] -> gradient of the thresholds [feature]"""
    gradient = torch.zeros_like(threshold)
    for token in range(len(pre)):
        for feature in range(len(threshold)):
            if abs(float(pre[token, feature] - threshold[feature])) < width / 2:  # near the step
                gradient[feature] -= threshold[feature] / width * upstream[token, feature]
    return gradient


def _draw(draw: random.Random) -> tuple:
    n_tokens, n_features = draw.randint(12, 16), draw.randint(5, 7)
    threshold = 0.5 + normal(draw, n_features).abs() / 2
    pre = threshold + 0.6 * normal(draw, n_tokens, n_features)
    return pre, threshold, 0.3 + draw.random() / 2, normal(draw, n_tokens, n_features)


def _of(pre: Tensor, threshold: Tensor, width: float, upstream: Tensor, reach: float = 0.5) -> Tensor:
    return -threshold / width * ((pre - threshold).abs() < reach * width) * upstream  # of each token


JUMPRELU_GRADIENT = Puzzle(
    "jumprelu_gradient",
    "my_gradient(pre [token, feature], threshold [feature], width, upstream [token, feature]) returns the gradient of "
    "the thresholds [feature]. Where a pre-activation lies within width / 2 of its threshold, the activation changes "
    "by -threshold / width for each unit that the threshold moves; elsewhere by nothing. upstream is the loss's "
    "gradient by the activations",
    ("feature",),
    _draw,
    solution,
    {
        "The sign is wrong: a higher threshold switches features off.": lambda *given: -_of(*given).sum(0),
        "A threshold is one for all tokens: add up what each of them says, [feature].": _of,
        "This is a mean over tokens: gradients add up.": lambda *given: _of(*given).mean(0),
        "The window is twice as wide as it should be: within width / 2 to either side.": (
            lambda *given: _of(*given, reach=1.0).sum(0)
        ),
        "The jump's height is missing: at the step an activation falls from threshold to 0, so the slope is "
        "threshold / width.": lambda pre, threshold, width, upstream: (
            _of(pre, threshold, width, upstream) / threshold
        ).sum(0),
        "upstream is missing: by the chain rule it multiplies what each activation changes by.": (
            lambda pre, threshold, width, upstream: _of(pre, threshold, width, torch.ones_like(upstream)).sum(0)
        ),
    },
)
