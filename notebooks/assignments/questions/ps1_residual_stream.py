"""ps1: the residual stream. What a part of the model writes, reads and moves."""

import random
from functools import cache

import torch
from torch import Tensor

import interp_kit as ik
from interp_kit.course import FunctionQuestion, ValueQuestion, variant
from interp_kit.course.puzzles.puzzle import normal

CITIES = {
    "Dallas": " Austin", "Houston": " Austin", "Oakland": " Sacramento", "Fresno": " Sacramento",
    "Huntsville": " Montgomery", "Miami": " Tallahassee", "Savannah": " Atlanta", "Chicago": " Springfield",
    "Tucson": " Phoenix", "Wichita": " Topeka", "Hilo": " Honolulu", "Nampa": " Boise",
}  # fmt: skip
OTHER = "Lowell"  # patched from: Boston is its answer
RIVAL = " Boston"


@cache
def model() -> ik.LanguageModel:
    return ik.load_model("pocket")


def prompt(city: str) -> str:
    return f"The capital of the state containing {city} is"


# ---------------------------------------------------------------------- q1: the stream is a sum


def streams(embedding: Tensor, attention: Tensor, mlp: Tensor) -> Tensor:
    """embedding [d_model], attention and mlp [layer, d_model] -> the stream that each layer is given, and at the end
    the last one's result [layer + 1, d_model]"""
    found = [embedding]
    for from_attention, from_mlp in zip(attention, mlp):
        found.append(found[-1] + from_attention + from_mlp)
    return torch.stack(found)


def draw_streams(draw: random.Random) -> tuple:
    layers = draw.randint(2, 5)
    return normal(draw, 8), normal(draw, layers, 8), normal(draw, layers, 8)


STREAMS = FunctionQuestion(
    "q1",
    "streams",
    streams,
    {
        "The embedding is missing: it is the stream that layer 0 is given.": (
            lambda e, a, m: torch.cat([0 * e[None], (a + m).cumsum(0)])
        ),
        "This is what each layer writes; the stream is the sum of all that was written before.": (
            lambda e, a, m: torch.cat([e[None], a + m])
        ),
        "Each row has one layer too many: a layer is given what the layers before it wrote.": (
            lambda e, a, m: torch.cat([e + (a + m).cumsum(0), (e + (a + m).sum(0))[None]])
        ),
        "Only the MLPs' part is there: attention writes into the same stream.": (
            lambda e, a, m: torch.cat([e[None], e + m.cumsum(0)])
        ),
    },
    draw_streams,
)


# ---------------------------------------------------------------------- q2: the norm


def rms_norm(stream: Tensor, gain: Tensor, eps: float) -> Tensor:
    """stream [position, d_model], gain [d_model] -> [position, d_model]"""
    rows = [row / (row.pow(2).mean() + eps).sqrt() * gain for row in stream]
    return torch.stack(rows)


def draw_norm(draw: random.Random) -> tuple:
    stream = normal(draw, draw.randint(2, 5), 8) * 0.1 + 0.05
    return stream, normal(draw, 8).exp(), 0.01


NORM = FunctionQuestion(
    "q2",
    "rms_norm",
    rms_norm,
    {
        "The mean is taken over all positions: each position has a norm of its own.": (
            lambda x, gain, eps: x / (x.pow(2).mean() + eps).sqrt() * gain
        ),
        "This subtracts the mean, as LayerNorm does; RMSNorm does not.": (
            lambda x, gain, eps: rms_norm(x - x.mean(-1, keepdim=True), gain, eps)
        ),
        "eps is missing.": lambda x, gain, eps: x / x.pow(2).mean(-1, True).sqrt() * gain,
        "eps stands outside of the root; it is added to the mean of the squares.": (
            lambda x, gain, eps: x / (x.pow(2).mean(-1, True).sqrt() + eps) * gain
        ),
        "The gain is missing.": lambda x, gain, eps: rms_norm(x, torch.ones_like(gain), eps),
        "This divides by the length, the root of the sum of squares; the norm takes their mean.": (
            lambda x, gain, eps: x / (x.pow(2).sum(-1, True) + eps).sqrt() * gain
        ),
    },
    draw_norm,
)


# ---------------------------------------------------------------------- q3: direct contributions


def contributions(parts: Tensor, gain: Tensor, towards: Tensor) -> Tensor:
    """parts [part, d_model], all that was written into the stream at the last position; gain [d_model]; towards
    [d_model], the unembedding's row of a token -> what each adds to the logit [part]"""
    rms = parts.sum(0).pow(2).mean().sqrt()
    return torch.stack([(part / rms * gain) @ towards for part in parts])


def draw_parts(draw: random.Random) -> tuple:
    return normal(draw, draw.randint(3, 6), 8), normal(draw, 8).exp(), normal(draw, 8)


CONTRIBUTIONS = FunctionQuestion(
    "q3",
    "contributions",
    contributions,
    {
        "Each part is divided by its own size; the norm divides by that of the whole stream.": (
            lambda parts, gain, towards: (parts / parts.pow(2).mean(-1, True).sqrt() * gain) @ towards
        ),
        "The norm is missing: the unembedding reads the stream behind it.": lambda parts, gain, towards: (
            parts @ towards
        ),
        "The norm's gain is missing.": (
            lambda parts, gain, towards: contributions(parts, torch.ones_like(gain), towards)
        ),
        "These are shares of the logit; what each adds is wanted, so that the sum is the logit.": (
            lambda parts, gain, towards: (found := contributions(parts, gain, towards)) / found.sum()
        ),
    },
    draw_parts,
)


# ---------------------------------------------------------------------- q4: when it is decided


def decided(likeliest: list[str], answer: str) -> int:
    """likeliest [layer], the lens's token behind each layer -> the first layer from which on it is the answer to the
    end; -1 where it is not at the end"""
    for layer in range(len(likeliest)):
        if all(token == answer for token in likeliest[layer:]):
            return layer
    return -1


def draw_likeliest(draw: random.Random) -> tuple:
    """The answer comes up early, goes again, and in one case of three does not stay. Never two of it at the end: then
    the last layer would be the one that is one too late."""
    answer = draw.choice(list(CITIES.values()))
    others = [" Boston", " IN", " BE", " Texas"]
    tokens = [draw.choice(others), answer, *draw.choices(others, k=draw.randint(1, 3))]
    tokens += [answer] * draw.choice([1, 3, 4]) if draw.random() < 2 / 3 else [draw.choice(others)]
    return tokens, answer


DECIDED = FunctionQuestion(
    "q4",
    "decided",
    decided,
    {
        "This is the first layer at which the answer is the likeliest, though it is lost again later.": (
            lambda tokens, answer: tokens.index(answer)
        ),
        "This is the last layer.": lambda tokens, answer: len(tokens) - 1 if tokens[-1] == answer else -1,
        "This is one layer too late: layers are counted from 0.": (
            lambda tokens, answer: (found := decided(tokens, answer)) + (found >= 0)
        ),
        "Where the answer is not there at the end, -1 is wanted.": (
            lambda tokens, answer: max(decided(tokens, answer), 0)
        ),
    },
    draw_likeliest,
)


# ---------------------------------------------------------------------- q5: what attention moves


def moved_from(pattern: Tensor, values: Tensor) -> list[int]:
    """pattern [head, query, key], values [head, key, d_head] -> from which position each head brings most to the last
    query: its pattern times the length of what stands there [head]"""
    found = []
    for looks, here in zip(pattern[:, -1], values):
        found.append(int((looks * here.norm(dim=-1)).argmax()))
    return found


def draw_attention(draw: random.Random) -> tuple:
    """Heads look most at the first position, where next to nothing stands, as some heads of a real model do."""
    heads, positions = draw.randint(3, 5), draw.randint(5, 7)
    scores = normal(draw, heads, positions, positions).masked_fill(
        torch.ones(positions, positions).triu(1).bool(), -torch.inf
    )
    scores[:, 1:, 0] += 2
    values = normal(draw, heads, positions, 4)
    values[:, 0] *= 0.01
    return scores.softmax(-1), values


MOVED = FunctionQuestion(
    "q5",
    "moved_from",
    moved_from,
    {
        "This is where each head looks most. A value of next to no length brings nothing, however it is looked at.": (
            lambda pattern, values: pattern[:, -1].argmax(-1)
        ),
        "This is where the longest value stands, looked at or not.": lambda pattern, values: values.norm(dim=-1).argmax(
            -1
        ),
        "This is of the first query; the last position is asked.": (
            lambda pattern, values: (pattern[:, 0] * values.norm(dim=-1)).argmax(-1)
        ),
    },
    draw_attention,
)


# ---------------------------------------------------------------------- q6, q7: your own city, on pocket


def sources(city: str, rival: str | None = RIVAL):
    return ik.lenses.decompose(model(), prompt(city), CITIES[city], contrast=rival).sources


def written_by(city: str, kind: str, rival: str | None = RIVAL) -> float:
    table = sources(city, rival)
    return float(table.loc[[name for name in table.index if name.startswith(kind)]].to_numpy().sum())


HEADS = ValueQuestion(
    "q6",
    "from_heads",
    lambda city: written_by(city, "head"),
    {
        "This is what the MLPs wrote.": lambda city: written_by(city, "MLP"),
        "This is towards the answer alone; what is written towards Boston is to be taken off.": (
            lambda city: written_by(city, "head", None)
        ),
        "This is the whole logit difference.": lambda city: float(sources(city).to_numpy().sum()),
        "This is one head's part; all heads together are asked.": lambda city: float(
            sources(city).filter(like="head", axis=0).sum(axis=1).max()
        ),
    },
    lambda student: (variant(student, "city", list(CITIES)),),
)


def restored(city: str, what: str = "residual"):
    return ik.lenses.patch_activations(model(), prompt(city), prompt(OTHER), what).table


ARRIVED = ValueQuestion(
    "q7",
    "arrived",
    lambda city: float(restored(city).iloc[4, -1]),
    {
        "This is what still stands at the city's word; what has come to the last word is asked.": (
            lambda city: float(restored(city).iloc[4, -2])
        ),
        "This is the stream before layer 3: layers are counted from 0.": lambda city: float(restored(city).iloc[3, -1]),
        "This is the stream behind layer 4: row 4 is the stream before it.": (
            lambda city: float(restored(city).iloc[5, -1])
        ),
        "This is what attention of layer 4 writes; the whole stream is asked.": (
            lambda city: float(restored(city, "attention").iloc[4, -1])
        ),
    },
    lambda student: (variant(student, "city", list(CITIES)),),
)

QUESTIONS = [STREAMS, NORM, CONTRIBUTIONS, DECIDED, MOVED, HEADS, ARRIVED]
