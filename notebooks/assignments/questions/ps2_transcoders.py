"""ps2: what a transcoder does. How it reads and writes, and the numbers that say how good it is."""

import random
from collections import Counter
from functools import cache

import torch
from torch import Tensor

import interp_kit as ik
from interp_kit.course import FunctionQuestion, ValueQuestion, variant
from interp_kit.course.puzzles.puzzle import normal
from interp_kit.models.families import mlp_activations

CITIES = [
    "Houston", "Fresno", "Huntsville", "Jacksonville", "Savannah", "Chicago", "Tucson", "Wichita", "Nampa", "Seattle",
    "Omaha", "Milwaukee",
]  # fmt: skip
N_TEXTS = 25


@cache
def model() -> ik.LanguageModel:
    return ik.load_model("pocket")


@cache
def transcoder() -> ik.CrossLayerTranscoder:
    return ik.load_transcoder("pocket")


# ---------------------------------------------------------------------- q1: encode


def encode(x: Tensor, W_enc: Tensor, b_enc: Tensor, threshold: Tensor) -> Tensor:
    """x [position, d_model], W_enc [feature, d_model], b_enc and threshold [feature] -> [position, feature]"""
    activations = torch.zeros(len(x), len(W_enc))
    for position in range(len(x)):
        for feature in range(len(W_enc)):
            pre = W_enc[feature] @ x[position] + b_enc[feature]
            if pre > threshold[feature]:
                activations[position, feature] = pre
    return activations


def draw_encoder(draw: random.Random) -> tuple:
    """Thresholds and biases are as large as pre-activations are, so that each of them decides about some feature."""
    features = draw.randint(7, 9)
    x, W_enc = normal(draw, draw.randint(4, 6), 8), normal(draw, features, 8) / 8**0.5
    return x, W_enc, normal(draw, features) / 2, 0.3 + normal(draw, features).abs() / 2


ENCODE = FunctionQuestion(
    "q1",
    "encode",
    encode,
    {
        "The encoder's bias is missing: it is a part of the pre-activation.": (
            lambda x, W, b, threshold: encode(x, W, 0 * b, threshold)
        ),
        "The threshold is taken away from what passes it. Then every activation is too small: JumpReLU only decides "
        "who passes.": lambda x, W, b, threshold: (x @ W.T + b - threshold).relu(),
        "This is a ReLU: all that is above zero passes. Here each feature has a threshold of its own.": (
            lambda x, W, b, threshold: (x @ W.T + b).relu()
        ),
        "This says which features are on: how strongly they are on is wanted.": (
            lambda x, W, b, threshold: (x @ W.T + b > threshold).float()
        ),
        "The bias comes too late: what is compared with the threshold is the whole pre-activation.": (
            lambda x, W, b, threshold: (x @ W.T + b) * (x @ W.T > threshold)
        ),
        "A feature far below zero is off: compare the pre-activation, not its size.": (
            lambda x, W, b, threshold: (pre := x @ W.T + b) * (pre.abs() > threshold)
        ),
        "This is turned round: [position, feature] is wanted.": (
            lambda x, W, b, threshold: encode(x, W, b, threshold).T
        ),
    },
    draw_encoder,
)


# ---------------------------------------------------------------------- q2: a cross-layer reconstruction


def rebuild(activations: list[Tensor], decoders: list[Tensor], biases: Tensor, layer: int) -> Tensor:
    """activations [source][position, feature], decoders [source][feature, target, d_model] where target j is layer
    source + j, biases [layer, d_model] -> what is rebuilt of the layer's MLP output [position, d_model]"""
    rebuilt = biases[layer].expand(len(activations[0]), -1).clone()
    for source in range(layer + 1):
        rebuilt += activations[source] @ decoders[source][:, layer - source]
    return rebuilt


def draw_decoders(draw: random.Random) -> tuple:
    """So many layers that the layer's own number is a target of each source too, though the wrong one."""
    layer = draw.randint(1, 2)
    layers, positions = 2 * layer + 1 + draw.randint(0, 1), draw.randint(3, 5)
    features = [draw.randint(5, 8) for _ in range(layers)]
    activations = [(normal(draw, positions, n) - 0.5).relu() for n in features]
    decoders = [normal(draw, n, layers - source, 6) for source, n in enumerate(features)]
    return activations, decoders, normal(draw, layers, 6), layer


def _rebuilt(activations: list[Tensor], decoders: list[Tensor], bias: Tensor, targets: dict[int, int]) -> Tensor:
    """targets: by source, the row of its decoders."""
    return bias + sum(activations[source] @ decoders[source][:, target] for source, target in targets.items())


REBUILD = FunctionQuestion(
    "q2",
    "rebuild",
    rebuild,
    {
        "Only the layer's own features write here, as in a per-layer transcoder: those of the layers before write to "
        "it too.": lambda a, decoders, biases, layer: _rebuilt(a, decoders, biases[layer], {layer: 0}),
        "The layer's own features are missing: a feature writes to its own layer as well.": (
            lambda a, decoders, biases, layer: _rebuilt(
                a, decoders, biases[layer], {source: layer - source for source in range(layer)}
            )
        ),
        "Targets are counted from the source's own layer on: target 0 of source 2 is layer 2.": (
            lambda a, decoders, biases, layer: _rebuilt(
                a, decoders, biases[layer], {source: layer for source in range(layer + 1)}
            )
        ),
        "This takes what each source writes to its own layer; what it writes to the layer asked about is wanted.": (
            lambda a, decoders, biases, layer: _rebuilt(
                a, decoders, biases[layer], {source: 0 for source in range(layer + 1)}
            )
        ),
        "The bias is missing.": lambda a, decoders, biases, layer: rebuild(a, decoders, biases, layer) - biases[layer],
        "There is one bias, that of the layer written to; here each source brings its own.": (
            lambda a, decoders, biases, layer: rebuild(a, decoders, biases, layer) + biases[:layer].sum(0)
        ),
    },
    draw_decoders,
)


# ---------------------------------------------------------------------- q3: L0


def l0(activations: Tensor, real: Tensor) -> float:
    """activations [text, position, feature], real [text, position] -> features on for a token, on average over all
    real tokens but those at position 0"""
    on, tokens = 0, 0
    for text in range(len(activations)):
        for position in range(1, activations.shape[1]):
            if real[text, position]:
                tokens += 1
                on += int((activations[text, position] > 0).sum())
    return on / tokens


def draw_texts(draw: random.Random) -> tuple:
    """Texts of different lengths. Features are on where padding is, and most of them at the first position."""
    lengths = draw.sample(range(3, 9), 3)
    activations = normal(draw, 3, max(lengths), 12)
    activations += torch.linspace(-1.2, 0, 3)[:, None, None]  # some texts have more on than others
    activations[:, 0] += 1
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return activations.relu(), real


def _l0(activations: Tensor, counted: Tensor) -> Tensor:
    return (activations > 0).sum(-1)[counted].double().mean()


def _but_first(real: Tensor) -> Tensor:
    return real & (torch.arange(real.shape[1]) > 0)


L0 = FunctionQuestion(
    "q3",
    "l0",
    l0,
    {
        "Padding is counted: features fire there too, on nothing that was said.": (
            lambda a, real: _l0(a, _but_first(torch.ones_like(real)))
        ),
        "Position 0 is counted: where the text only begins, this transcoder has no features.": _l0,
        "What fires at position 0 is left out, and yet these tokens are among what you divide by.": lambda a, real: (
            (a > 0).sum(-1)[_but_first(real)].sum() / real.sum()
        ),
        "This adds up how strong features are, which is called L1. L0 counts how many are on.": (
            lambda a, real: a.sum(-1)[_but_first(real)].mean()
        ),
        "This is a mean of means: a token of a short text counts for more there. Divide by all tokens at once.": (
            lambda a, real: torch.stack([_l0(*one) for one in zip(a, _but_first(real))]).mean()
        ),
        "This is a share of the features: their number is wanted.": lambda a, real: (
            _l0(a, _but_first(real)) / a.shape[-1]
        ),
    },
    draw_texts,
)


# ---------------------------------------------------------------------- q4: NMSE


def nmse(y: Tensor, rebuilt: Tensor) -> float:
    """y, rebuilt [layer, token, d_model] -> the mean over layers of: squared error over squared distance from the mean
    output"""
    of_layers = []
    for theirs, ours in zip(y, rebuilt):
        mean = theirs.mean(0)
        error = sum(float((a - b).pow(2).sum()) for a, b in zip(theirs, ours))
        variance = sum(float((a - mean).pow(2).sum()) for a in theirs)
        of_layers.append(error / variance)
    return sum(of_layers) / len(of_layers)


def draw_outputs(draw: random.Random) -> tuple:
    """The mean output is large, layers are of different sizes, and so are tokens; as in a model."""
    layers, tokens = draw.randint(2, 4), draw.randint(6, 9)
    y = normal(draw, layers, tokens, 5) * normal(draw, layers, tokens, 1).exp() + 2 * normal(draw, layers, 1, 5)
    error = normal(draw, layers, tokens, 5) * (0.2 + 0.3 * torch.arange(layers)[:, None, None])
    size = 3.0 ** torch.arange(layers)[:, None, None]
    return y * size, (y + error) * size


def _squares(x: Tensor) -> Tensor:
    return x.double().pow(2).sum((1, 2))


def _around_mean(y: Tensor) -> Tensor:
    return _squares(y - y.mean(1, keepdim=True))


NMSE = FunctionQuestion(
    "q4",
    "nmse",
    nmse,
    {
        "The mean output is not taken away: then a transcoder that writes the same for each token gets a good score.": (
            lambda y, rebuilt: (_squares(y - rebuilt) / _squares(y)).mean()
        ),
        "All layers are added up before you divide, so the one with the largest outputs decides alone.": (
            lambda y, rebuilt: _squares(y - rebuilt).sum() / _around_mean(y).sum()
        ),
        "The mean is one number here: each of a layer's dimensions has its own.": lambda y, rebuilt: (
            _squares(y - rebuilt) / _squares(y - y.mean((1, 2), keepdim=True))
        ).mean(),
        "This divides token by token. Add up the errors of all tokens first, and then divide.": lambda y, rebuilt: (
            (y - rebuilt).pow(2).sum(-1) / (y - y.mean(1, keepdim=True)).pow(2).sum(-1)
        ).mean(),
        "This divides by the variance of what was rebuilt; that of what the MLPs write is the yardstick.": (
            lambda y, rebuilt: (_squares(y - rebuilt) / _around_mean(rebuilt)).mean()
        ),
        "This is a ratio of lengths: without the root.": lambda y, rebuilt: (
            (_squares(y - rebuilt) / _around_mean(y)).sqrt().mean()
        ),
        "This is the share that is explained; what is missed is asked.": lambda y, rebuilt: 1 - nmse(y, rebuilt),
    },
    draw_outputs,
)


# ---------------------------------------------------------------------- q5: polysemantic


def concepts_needed(activations: Tensor, concepts: list[str], share: float) -> int:
    """activations [token] of a neuron, concepts [token] -> how many concepts, the largest first, make up the share of
    the activation on its stronger side"""
    if -activations.min() > activations.max():
        activations = -activations
    sums = Counter()
    for activation, concept in zip(activations.tolist(), concepts):
        sums[concept] += max(activation, 0.0)
    needed, covered = 0, 0.0
    for _, of_concept in sums.most_common():
        if covered >= share * sums.total():
            break
        needed, covered = needed + 1, covered + of_concept
    return needed


def draw_neuron(draw: random.Random) -> tuple:
    """Some concepts come up often, others seldom and strongly; every other neuron is strongest below zero."""
    names = draw.sample(["Texas", "Ohio", "Maine", "capital", "of", "the", "is", "Egypt", "code", "city"], 8)
    counts = draw.sample(range(1, 9), 8)
    sizes = [draw.uniform(0.1, 1) ** 3 * 4 for _ in names]
    concepts = [name for name, n in zip(names, counts) for _ in range(n)]
    draw.shuffle(concepts)
    activations = torch.tensor([sizes[names.index(c)] for c in concepts]) * (0.5 + normal(draw, len(concepts)))
    if (-activations.min() > activations.max()) != (draw.random() < 0.5):
        activations = -activations
    return activations, concepts, draw.choice([0.5, 0.8, 0.9])


def _sides(activations: Tensor) -> tuple[Tensor, Tensor]:
    """The stronger side, and the weaker one."""
    a, b = activations.relu(), (-activations).relu()
    return (a, b) if a.max() >= b.max() else (b, a)


def _by_concept(activations: Tensor, concepts: list[str]) -> dict[str, list[float]]:
    return {c: [float(a) for a, of in zip(activations, concepts) if of == c] for c in concepts}


def _cover(sums: list[float], share: float) -> int:
    ordered = torch.tensor(sorted(sums, reverse=True), dtype=torch.float64)
    return int((ordered.cumsum(0) < share * ordered.sum()).sum()) + 1


CONCEPTS = FunctionQuestion(
    "q5",
    "concepts_needed",
    concepts_needed,
    {
        "Both sides are counted: below zero a neuron writes the opposite, so that is another thing. Take the side on "
        "which it gets strongest.": lambda a, concepts, share: concepts_needed(a.abs(), concepts, share),
        "This is always the side above zero: some neurons are strongest below it.": (
            lambda a, concepts, share: concepts_needed(a.relu(), concepts, share)
        ),
        "These are means: a concept that comes up often covers more than a rare one, so add up.": lambda a, c, share: (
            _cover([sum(of) / len(of) for of in _by_concept(_sides(a)[0], c).values()], share)
        ),
        "A concept covers as much as it has tokens here; how strong the neuron is counts.": lambda a, c, share: _cover(
            [sum(x > 0 for x in of) for of in _by_concept(_sides(a)[0], c).values()], share
        ),
        "These are all concepts on which it fires: those needed for the share are asked.": lambda a, c, share: (
            concepts_needed(a, c, 1.0)
        ),
        "One is missing: the concept with which the share is reached counts too.": lambda a, c, share: (
            concepts_needed(a, c, share) - 1
        ),
        "This is how many tokens it takes; those of one concept belong together.": lambda a, c, share: _cover(
            _sides(a)[0].tolist(), share
        ),
    },
    draw_neuron,
)


# ---------------------------------------------------------------------- q6: silent on your texts


@cache
def evaluation(city: str | None) -> tuple[float, Tensor, list[float]]:
    """Of texts about the city's state, or about all places: the share of features that never fire, each feature's
    density, and the share in each layer."""
    world = ik.load_world("geography")
    sentences = world.sentences(6000, "train")
    if city:
        place = f"place:{world.place_of[city]}"
        sentences = [s for s in sentences if any(place in about for _, _, about in s.spans)]
    found = ik.evaluate_transcoder(model(), transcoder(), [s.text for s in sentences[:N_TEXTS]], baselines=False)
    return float(found.summary["dead"]), found.density, found.layers["dead"].tolist()


SILENT = ValueQuestion(
    "q6",
    "silent",
    lambda city: evaluation(city)[0],
    {
        "This is the mean of the layers' shares, and layers differ in how many features they have.": (
            lambda city: torch.tensor(evaluation(city)[2]).mean()
        ),
        "Rows that only fill up the table are counted: layer 0 has 2,381 features, and the others have fewer.": (
            lambda city: (evaluation(city)[1] == 0).double().mean()
        ),
        "This is the share that does fire.": lambda city: 1 - evaluation(city)[0],
        "This is how many features are silent: their share of all is asked.": lambda city: round(
            evaluation(city)[0] * sum(transcoder().n_features_per_layer)
        ),
        "These are the texts about all places: take those about your state.": lambda city: evaluation(None)[0],
    },
    lambda student: (variant(student, "city", CITIES),),
)


# ---------------------------------------------------------------------- q7: the error at one place


@cache
def squares(city: str) -> tuple[Tensor, Tensor]:
    """Of the error and of what the MLPs write: squared lengths [layer, position]."""
    ids = model().encode(f"The capital of the state containing {city} is")[None]
    read, written = mlp_activations(model().hf, ids, "mlp.hook_in", transcoder().layers)
    read, written = read[:, 0], written[:, 0]
    error = written - transcoder().decode(transcoder().encode(read))
    return error.pow(2).sum(-1), written.pow(2).sum(-1)


def shares(city: str) -> Tensor:
    error, written = squares(city)
    return error / written


WORST = ValueQuestion(
    "q7",
    "worst",
    lambda city: float(shares(city)[:, -1].max()),
    {
        "This is a ratio of lengths; squares are asked, as in NMSE.": lambda city: shares(city)[:, -1].max().sqrt(),
        "This is at the city's word: the last word is asked.": lambda city: shares(city)[:, -2].max(),
        "This is the mean over layers: the layer with the largest share is asked.": (
            lambda city: shares(city)[:, -1].mean()
        ),
        "All positions are added up: what is missed at the last word alone is asked.": lambda city: (
            (sums := [each[:, 1:].sum(-1) for each in squares(city)])[0] / sums[1]
        ).max(),
        "This is the size of the error: divide it by that of what the MLP writes.": lambda city: squares(city)[0][
            :, -1
        ].max(),
        "This is the layer: the share in it is asked.": lambda city: int(shares(city)[:, -1].argmax()),
    },
    lambda student: (variant(student, "city", CITIES),),
)

QUESTIONS = [ENCODE, REBUILD, L0, NMSE, CONCEPTS, SILENT, WORST]
