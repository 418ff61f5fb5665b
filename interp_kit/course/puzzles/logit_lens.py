"""The logit lens: what the model would say, were it to stop after a layer."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

from .puzzle import Puzzle, normal


class RMSNorm:
    """A model's final norm, of vectors [..., d_model]: x / rms(x) * gain."""

    def __init__(self, gain: Tensor) -> None:
        self.gain = gain

    def __call__(self, x: Tensor) -> Tensor:
        return x / x.pow(2).mean(-1, keepdim=True).sqrt() * self.gain


def solution(stream: Tensor, final_norm: Callable[[Tensor], Tensor], unembed: Tensor) -> Tensor:
    """stream [layer, position, d_model], unembed [token, d_model] -> tokens [layer, position]"""
    tokens = torch.zeros(stream.shape[:2], dtype=torch.long)
    for layer in range(stream.shape[0]):
        for position in range(stream.shape[1]):
            read = final_norm(stream[layer, position])
            logits = [float(row @ read) for row in unembed]
            tokens[layer, position] = logits.index(max(logits))
    return tokens


def _draw(draw: random.Random) -> tuple:
    stream = normal(draw, draw.randint(3, 5), draw.randint(6, 8), 8)
    return stream, RMSNorm(normal(draw, 8).exp()), normal(draw, 20, 8)


LOGIT_LENS = Puzzle(
    "logit_lens",
    "my_logit_lens(stream [layer, position, d_model], final_norm, unembed [token, d_model]) returns the likeliest "
    "token after each layer, [layer, position]: what the final norm makes of the stream, read by the unembedding",
    ("layer", "position"),
    _draw,
    solution,
    {
        "The final norm is missing: the unembedding never reads the stream without it.": (
            lambda stream, norm, unembed: (stream @ unembed.T).argmax(-1)
        ),
        "These are logits: the likeliest token is the place of the largest one.": (
            lambda stream, norm, unembed: norm(stream) @ unembed.T
        ),
        "These are the largest logits, not the tokens that have them: argmax instead of max.": (
            lambda stream, norm, unembed: (norm(stream) @ unembed.T).amax(-1)
        ),
        "The largest was looked for over positions: tokens are the last dimension.": (
            lambda stream, norm, unembed: (norm(stream) @ unembed.T).argmax(1)
        ),
        "These are the least likely tokens.": lambda stream, norm, unembed: (norm(stream) @ unembed.T).argmin(-1),
    },
)
