"""An edge by hand: how much a feature adds to a feature of a later layer, straight through the residual stream."""

import random

import torch
from torch import Tensor

from .puzzle import Puzzle, normal


def solution(activations: Tensor, decoders: Tensor, encoders: Tensor, gain: Tensor, rms: float) -> Tensor:
    """activations [source], decoders [source, d_model], encoders [target, d_model], gain [d_model] -> edges [target,
    source]"""
    edges = torch.zeros(len(encoders), len(decoders))
    for target, encoder in enumerate(encoders):
        for source, decoder in enumerate(decoders):
            written = activations[source] * decoder  # into the stream
            edges[target, source] = encoder @ (written / rms * gain)  # behind the norm, which is frozen
    return edges


def _draw(draw: random.Random) -> tuple:
    n = draw.randint(3, 5)
    decoders, encoders = normal(draw, n, 8), normal(draw, n + 1 if draw.random() < 0.5 else n, 8)
    return normal(draw, n).abs(), decoders, encoders, normal(draw, 8).exp(), 1.5 + draw.random()


def _unit(written: Tensor) -> Tensor:
    return written / written.pow(2).mean(-1, keepdim=True).sqrt()


EDGE = Puzzle(
    "edge",
    "my_edges(activations [source], decoders [source, d_model], encoders [target, d_model], gain [d_model], rms) "
    "returns the direct effect of each feature on each feature of the next layer at the same position, with no "
    "attention in between, [target, source]. A source writes its activation times its decoder into the stream; the "
    "norm, frozen, divides by rms and multiplies by gain; a target's encoder reads that",
    ("target", "source"),
    _draw,
    solution,
    {
        "The activations are missing: a source writes its activation times its decoder.": (
            lambda a, decoders, encoders, gain, rms: (encoders * gain / rms) @ decoders.T
        ),
        "The norm is missing: the encoder reads what is divided by rms and multiplied by gain.": (
            lambda a, decoders, encoders, gain, rms: encoders @ (a[:, None] * decoders).T
        ),
        "The norm's gain is missing.": (
            lambda a, decoders, encoders, gain, rms: encoders @ (a[:, None] * decoders / rms).T
        ),
        "The division by rms is missing.": (
            lambda a, decoders, encoders, gain, rms: encoders @ (a[:, None] * decoders * gain).T
        ),
        "Each source was divided by its own size: the norm divides by the rms of the whole stream, which is given.": (
            lambda a, decoders, encoders, gain, rms: encoders @ (_unit(a[:, None] * decoders) * gain).T
        ),
    },
)
