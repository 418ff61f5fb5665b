"""ps5: testing a claim. What an intervention changes, what to compare it with, and what follows from it."""

import random
from functools import cache
from itertools import product

import torch
from torch import Tensor

import interp_kit as ik
from interp_kit.course import FunctionQuestion, ValueQuestion, variant
from interp_kit.course.puzzles.puzzle import normal

STATES = {
    "Houston": ("Texas", " Austin"), "Seattle": ("Washington", " Olympia"), "Billings": ("Montana", " Helena"),
    "Gillette": ("Wyoming", " Cheyenne"), "Cranston": ("Rhode Island", " Providence"),
    "Anchorage": ("Alaska", " Juneau"), "Hammond": ("Indiana", " Indianapolis"), "Mesa": ("Arizona", " Phoenix"),
    "Chicago": ("Illinois", " Springfield"), "Bennington": ("Vermont", " Montpelier"),
    "Eugene": ("Oregon", " Salem"), "Miami": ("Florida", " Tallahassee"),
    "Philadelphia": ("Pennsylvania", " Harrisburg"), "Macon": ("Georgia", " Atlanta"),
}  # fmt: skip
OTHER, OTHER_STATE, OTHER_CAPITAL = "Fresno", "California", " Sacramento"
Z = 1.96


# ---------------------------------------------------------------------- q1: what steering adds


def steered(activations: Tensor, decoders: Tensor, factor: float, position: int) -> Tensor:
    """activations [position] of a feature, decoders [layer, d_model], one row for each layer that it writes to -> what
    multiplying it by `factor` at one position adds to what the MLPs write [layer, position, d_model]"""
    added = torch.zeros(len(decoders), len(activations), decoders.shape[1])
    for layer, row in enumerate(decoders):
        before = activations[position] * row
        after = factor * activations[position] * row
        added[layer, position] = after - before
    return added


def draw_steering(draw: random.Random) -> tuple:
    """Active at all positions, and at the steered one with another strength than 1."""
    activations = normal(draw, draw.randint(3, 5)).abs() + 1.5
    position = draw.randrange(1, len(activations))
    return activations, normal(draw, draw.randint(2, 4), 6), draw.choice([-2.0, -1.0, 0.0, 0.25, 2.0, 3.0]), position


def everywhere(activations: Tensor, decoders: Tensor, amount: float) -> Tensor:
    return amount * activations[None, :, None] * decoders[:, None]


def steered_in_first_layer(activations: Tensor, decoders: Tensor, factor: float, position: int) -> Tensor:
    added = steered(activations, decoders, factor, position)
    added[1:] = 0
    return added


STEERED = FunctionQuestion(
    "q1",
    "steered",
    steered,
    {
        "This is all that the feature would write then. A part of it is written already: add what is missing.": (
            lambda activations, decoders, factor, position: steered(activations, decoders, factor + 1, position)
        ),
        "How strongly the feature is on at this position is missing.": (
            lambda activations, decoders, factor, position: steered(
                torch.ones_like(activations), decoders, factor, position
            )
        ),
        "This changes all positions; one is to be steered.": (
            lambda activations, decoders, factor, position: everywhere(activations, decoders, factor - 1)
        ),
        "The sign is turned: a factor of 0 should take away what the feature writes.": (
            lambda activations, decoders, factor, position: -steered(activations, decoders, factor, position)
        ),
        "Only the first layer is changed: the feature writes into others as well.": steered_in_first_layer,
    },
    draw_steering,
)


# ---------------------------------------------------------------------- q2: controls


def matched(layers: list[int], activations: list[float], group: list[int]) -> list[int]:
    """layers and activations [feature] of the features at one position; group, the indices of those to be tested ->
    for each of the group, in order, the index of its control: of the same layer, not in the group, not taken yet, and
    with the nearest activation"""
    taken = []
    for member in group:
        best = None
        for other in range(len(layers)):
            if layers[other] != layers[member] or other in group or other in taken:
                continue
            if best is None or abs(activations[other] - activations[member]) < abs(
                activations[best] - activations[member]
            ):
                best = other
        taken.append(best)
    return taken


def draw_features(draw: random.Random) -> tuple:
    """Two members of one layer are nearly alike, so that they would like the same control, or each other."""
    features = []  # layer, activation, whether it is a member
    for layer in draw.sample(range(6), 3):
        base = draw.uniform(2, 4)
        members = [base, base + 0.02] if len(features) == 0 else [base]
        others = [base + draw.choice([-1, 1]) * draw.uniform(0.1, 1.8) for _ in range(draw.randint(4, 6))]
        features += [(layer, a, True) for a in members] + [(layer, a, False) for a in others]
    draw.shuffle(features)
    group = [index for index, feature in enumerate(features) if feature[2]]
    draw.shuffle(group)
    return [feature[0] for feature in features], [round(feature[1], 4) for feature in features], group


def nearest(layers: list[int], activations: list[float], group: list[int], how: str) -> list[int]:
    """The controls of one who forgets something."""
    taken = []
    for member in group:
        found = [
            other
            for other in range(len(layers))
            if (how == "any layer" or layers[other] == layers[member])
            and (other not in group if how != "members" else other != member)
            and (how == "repeats" or other not in taken)
        ]
        distance = [
            -activations[other]
            if how == "strongest"
            else activations[other] - activations[member]
            if how == "no abs"
            else abs(activations[other] - activations[member])
            for other in found
        ]
        taken.append(found[distance.index(min(distance))])
    return taken


MATCHED = FunctionQuestion(
    "q2",
    "matched",
    matched,
    {
        "Some controls are of another layer, where features write into fewer or more layers: compare like with like.": (
            lambda layers, activations, group: nearest(layers, activations, group, "any layer")
        ),
        "One feature is the control of two: as many should go off as in the group.": (
            lambda layers, activations, group: nearest(layers, activations, group, "repeats")
        ),
        "A member of the group is its neighbour's control: a control must not be what is tested.": (
            lambda layers, activations, group: nearest(layers, activations, group, "members")
        ),
        "These are the strongest of the layer; wanted are those that are about as strong as the members.": (
            lambda layers, activations, group: nearest(layers, activations, group, "strongest")
        ),
        "These are the weakest: a difference below zero is no small distance.": (
            lambda layers, activations, group: nearest(layers, activations, group, "no abs")
        ),
    },
    draw_features,
)


# ---------------------------------------------------------------------- q3: how often by chance?


def p_value(effect: float, controls: list[float]) -> float:
    """By how much the answer fell with the group off, and with each of the controls off -> how often one of the
    controls, or the group itself, does as much"""
    as_much = 1  # the group itself
    for control in controls:
        if control >= effect:
            as_much += 1
    return as_much / (len(controls) + 1)


def draw_effects(draw: random.Random) -> tuple:
    """Of one digit, so that some tie; some controls raise the answer by as much as the group lowers it."""
    effect = round(draw.uniform(0.8, 1.6), 1)
    controls = [round(draw.gauss(0, 1), 1) for _ in range(draw.randint(8, 25))]
    return effect, [*controls, effect, -effect - 0.3] if draw.random() < 0.6 else controls


P_VALUE = FunctionQuestion(
    "q3",
    "p_value",
    p_value,
    {
        "The group itself is not counted: with few controls this can be 0, which no experiment can show.": (
            lambda effect, controls: sum(c >= effect for c in controls) / len(controls)
        ),
        "A control that does exactly as much counts too.": (
            lambda effect, controls: (1 + sum(c > effect for c in controls)) / (1 + len(controls))
        ),
        "The group is counted above the line, and not below it.": (
            lambda effect, controls: (1 + sum(c >= effect for c in controls)) / len(controls)
        ),
        "The claim has a direction: a control that raises the answer does not do the same.": (
            lambda effect, controls: (1 + sum(abs(c) >= effect for c in controls)) / (1 + len(controls))
        ),
        "These are the controls that do less; how many do as much?": (
            lambda effect, controls: (1 + sum(c <= effect for c in controls)) / (1 + len(controls))
        ),
    },
    draw_effects,
)


# ---------------------------------------------------------------------- q4: necessary, sufficient, backed up


def roles(off: Tensor, kept: Tensor) -> Tensor:
    """off [run, group]: which groups were off in each run, all combinations once; kept [run]: whether the answer stayed
    -> of each group, whether it is necessary, sufficient, and has a backup [group, 3]"""
    n_groups = off.shape[1]

    def stays(groups_off: set[int]) -> bool:
        for run, stayed in zip(off, kept):
            if {group for group in range(n_groups) if run[group]} == groups_off:
                return bool(stayed)
        raise ValueError("no such run")

    necessary = [not stays({group}) for group in range(n_groups)]
    sufficient = [stays(set(range(n_groups)) - {group}) for group in range(n_groups)]
    backed_up = []
    for group in range(n_groups):
        others = [other for other in range(n_groups) if other != group and not necessary[other]]
        backed_up.append(not necessary[group] and any(not stays({group, other}) for other in others))
    return torch.tensor([necessary, sufficient, backed_up]).T


def draw_runs(draw: random.Random) -> tuple:
    """The answer stays where all groups of one way are on. Some groups have no part in it."""
    a, b, c = draw.sample(range(4), 3)
    with_backup, with_necessary = [[[a], [b]], [[a], [b, c]]], [[[a, b], [a, c]], [[a, b]], [[a]]]
    ways = draw.choice(with_backup if draw.random() < 0.7 else with_necessary)
    runs = list(product([False, True], repeat=4))
    draw.shuffle(runs)
    kept = [any(not any(run[group] for group in way) for way in ways) for run in runs]
    return torch.tensor(runs), torch.tensor(kept)


def lost_at_all(off: Tensor, kept: Tensor) -> Tensor:
    """Whether the answer is lost in some run in which the group is off."""
    return (off & ~kept[:, None]).any(0)


def lost_in_company(off: Tensor, kept: Tensor) -> Tensor:
    """Whether the answer is lost in a run in which the group and one other are off."""
    return (off & (~kept & (off.sum(1) == 2))[:, None]).any(0)


def with_column(table: Tensor, column: int, values: Tensor) -> Tensor:
    table = table.clone()
    table[:, column] = values
    return table


ROLES = FunctionQuestion(
    "q4",
    "roles",
    roles,
    {
        "Necessary and sufficient are exchanged.": lambda off, kept: roles(off, kept)[:, [1, 0, 2]],
        "Sufficient: look at the run in which this group is the only one that is on.": (
            lambda off, kept: with_column(found := roles(off, kept), 1, ~found[:, 0])
        ),
        "Necessary: look at the run in which it alone is off; where more are off, the others may be the cause.": (
            lambda off, kept: with_column(roles(off, kept), 0, lost_at_all(off, kept))
        ),
        "That one alone is not missed shows no backup: the group may have nothing to do with the answer.": (
            lambda off, kept: with_column(found := roles(off, kept), 2, ~found[:, 0])
        ),
        "With a necessary group off, the answer is lost anyway: such a pair shows no backup.": (
            lambda off, kept: with_column(found := roles(off, kept), 2, ~found[:, 0] & lost_in_company(off, kept))
        ),
    },
    draw_runs,
)


# ---------------------------------------------------------------------- q5, q6: your own city, on pocket


@cache
def pocket() -> tuple:
    return ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_features("pocket"), ik.load_labels("pocket")


def prompt(city: str) -> str:
    return f"The capital of the state containing {city} is"


@cache
def graph(city: str) -> ik.AttributionGraph:
    model, transcoder, features, labels = pocket()
    return ik.attribute(model, transcoder, prompt(city)).annotate(features, labels)


def named(city: str, state: str) -> list[str]:
    """The features with the state in their label, most influential first."""
    found = graph(city).find(state)
    return found.loc[found["kind"] == "feature", "id"].tolist()


def after(city: str, token: str, steers: ik.Steer | list[ik.Steer], **settings) -> float:
    model, transcoder, *_ = pocket()
    table = ik.intervene(model, transcoder, prompt(city), steers, k=model.vocab_size, **settings).table
    return float(table.set_index("token").loc[token, "after"])


def together(city: str, factor: float = 0, most: int | None = None, **settings) -> float:
    state, capital = STATES[city]
    return after(city, capital, ik.Steer(named(city, state)[:most], factor=factor), **settings)


TOGETHER = ValueQuestion(
    "q5",
    "together",
    together,
    {
        "This is with the most influential feature alone off; all of them should go together.": (
            lambda city: together(city, most=1)
        ),
        "This is by how much it fell; what is left is asked.": lambda city: together(city, factor=1) - together(city),
        "This is with MLPs and norms held still, the graph's own world; here the model may react.": (
            lambda city: together(city, constrained_layers=range(pocket()[0].n_layers))
        ),
        "This is the probability before anything was changed.": lambda city: together(city, factor=1),
        "These features are pushed the other way (a factor of -1); off is another factor.": (
            lambda city: together(city, factor=-1)
        ),
    },
    lambda student: (variant(student, "ps5 city", list(STATES)),),
)


def swapped(city: str, strength: float = 1.0, token: str = OTHER_CAPITAL) -> float:
    off, on = named(city, STATES[city][0]), named(OTHER, OTHER_STATE)
    return after(city, token, ik.swap(graph(city), off, graph(OTHER), on, strength))


def only_on(city: str) -> float:
    on = named(OTHER, OTHER_STATE)
    return after(city, OTHER_CAPITAL, ik.swap(graph(city), [], graph(OTHER), on))


def backwards(city: str) -> float:
    off, on = named(OTHER, OTHER_STATE), named(city, STATES[city][0])
    return after(OTHER, STATES[city][1], ik.swap(graph(OTHER), off, graph(city), on))


SWAPPED = ValueQuestion(
    "q6",
    "swapped",
    swapped,
    {
        "California comes in at twice its strength here; once is asked.": lambda city: swapped(city, 2.0),
        "California came in, and your city's state was not switched off.": only_on,
        "Your city's state is off, and nothing came in its place.": lambda city: swapped(city, 0.0),
        "This is the probability of your own capital after the swap; that of Sacramento is asked.": (
            lambda city: swapped(city, token=STATES[city][1])
        ),
        "This is the swap the other way round: your state put into the prompt about Fresno.": backwards,
    },
    lambda student: (variant(student, "ps5 city", list(STATES)),),
)


# ---------------------------------------------------------------------- q7: how sure after n prompts?


def wilson(hits: int, n: int) -> tuple[float, float]:
    """In how many of n prompts it worked -> the lowest and the highest rate that fit this (95 %, Wilson's interval)"""
    centre = (hits + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * (hits * (n - hits) / n + Z**2 / 4) ** 0.5
    return centre - half, centre + half


def draw_hits(draw: random.Random) -> tuple:
    """Also none and all of them."""
    n = draw.randint(8, 40)
    return draw.choice([0, n, draw.randint(1, n - 1), draw.randint(1, n - 1)]), n


def around_share(hits: int, n: int) -> tuple[float, float]:
    """The textbook's interval, which is a point at 0 and at n hits."""
    share = hits / n
    half = Z * (share * (1 - share) / n) ** 0.5
    return share - half, share + half


def wilson_at(hits: int, n: int, z: float) -> tuple[float, float]:
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * (hits * (n - hits) / n + z**2 / 4) ** 0.5
    return centre - half, centre + half


def not_moved(hits: int, n: int) -> tuple[float, float]:
    low, high = wilson(hits, n)
    return hits / n - (high - low) / 2, hits / n + (high - low) / 2


WILSON = FunctionQuestion(
    "q7",
    "wilson",
    wilson,
    {
        "This is share plus or minus 1.96 standard errors, with the share put in for the rate: with no hit it has no"
        " width.": around_share,
        "z is that of another level: 95 % between two ends takes 1.96.": lambda hits, n: wilson_at(hits, n, 1.645),
        "The middle is the share itself; Wilson's lies nearer to one half.": not_moved,
        "These are numbers of prompts; shares of n are asked.": lambda hits, n: tuple(n * x for x in wilson(hits, n)),
        "The order of the two ends is turned: the lower one first.": lambda hits, n: wilson(hits, n)[::-1],
    },
    draw_hits,
)

QUESTIONS = [STEERED, MATCHED, P_VALUE, ROLES, TOGETHER, SWAPPED, WILSON]
