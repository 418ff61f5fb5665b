"""The error node: the part of what an MLP writes that no feature explains."""

import random

import torch
from torch import Tensor

from .puzzle import Puzzle, normal


def solution(mlp_out: Tensor, activations: Tensor, decoders: Tensor, bias: Tensor) -> Tensor:
    """mlp_out [position, d_model], activations [position, feature], decoders [feature, d_model], bias [d_model] ->
    errors [position, d_model]"""
    errors = torch.zeros_like(mlp_out)
    for position in range(len(mlp_out)):
        rebuilt = bias.clone()
        for feature in range(len(decoders)):
            rebuilt += activations[position, feature] * decoders[feature]
        errors[position] = mlp_out[position] - rebuilt
    return errors


def _draw(draw: random.Random) -> tuple:
    n_positions, n_features = draw.randint(4, 6), draw.randint(9, 12)
    activations = (normal(draw, n_positions, n_features) - 0.8).relu()
    return normal(draw, n_positions, 8), activations, normal(draw, n_features, 8), normal(draw, 8)


ERROR_NODE = Puzzle(
    "error_node",
    "my_errors(mlp_out [position, d_model], activations [position, feature], decoders [feature, d_model], bias "
    "[d_model]) returns the error nodes [position, d_model]: what the MLP writes less what the transcoder rebuilds",
    ("position", "d_model"),
    _draw,
    solution,
    {
        "The decoder's bias is missing: the transcoder adds it to what the features write.": (
            lambda out, a, decoders, bias: out - a @ decoders
        ),
        "The sign is wrong: the error is what has to be added to the rebuilt output to get the MLP's.": (
            lambda out, a, decoders, bias: a @ decoders + bias - out
        ),
        "This is what the transcoder rebuilds: the error is the rest.": lambda out, a, decoders, bias: (
            a @ decoders + bias
        ),
        "These are the errors' sizes: an error node writes a vector, [position, d_model].": (
            lambda out, a, decoders, bias: (out - a @ decoders - bias).norm(dim=-1)
        ),
        "The bias is added instead of taken away: mind the brackets.": (
            lambda out, a, decoders, bias: out - a @ decoders + bias
        ),
    },
)
