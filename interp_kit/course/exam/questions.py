"""What an exam asks of a student's own prompt, and the answers. Each question has a twist that is drawn: code that was
written for another one, in a problem set or by a neighbour, gives another answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from ...graphs import AttributionGraph, NodeId, Steer, attribute, intervene
from ...models import LanguageModel
from ...transcoders import CrossLayerTranscoder
from .world import QUESTION, InventedWorld


@dataclass(frozen=True)
class Asked:
    """One question to one student. answer: what is right. mistakes: what a likely mistake gives, by hint."""

    text: str
    answer: object
    mistakes: dict[str, object]


@dataclass
class Case:
    """One student's exam: a city of the invented world, and the draw of the twists."""

    world: InventedWorld
    model: LanguageModel
    transcoder: CrossLayerTranscoder
    city: str
    draw: random.Random = field(repr=False)

    @property
    def prompt(self) -> str:
        """That the student's graph is of."""
        return QUESTION.format(city=self.city)

    @property
    def capital(self) -> str:
        """The right answer to it."""
        return self.world.capital_of[self.world.state_of[self.city]]

    @cached_property
    def graph(self) -> AttributionGraph:
        """Of the whole prompt."""
        return attribute(self.model, self.transcoder, self.prompt, target=self.token)

    @property
    def token(self) -> int:
        """The id of the capital."""
        return self.model.tokenizer.encode(self.capital, add_special_tokens=False)[0]

    def probability(self, *steers: Steer) -> float:
        """Of the capital, while features are steered."""
        if not steers:
            everything = self.model.next_tokens(self.prompt, self.model.vocab_size)
            return float(everything["probability"].loc[self.token])
        logits = intervene(self.model, self.transcoder, self.prompt, list(steers)).after.logits
        return float(logits[-1].softmax(-1)[self.token])

    def strongest(self, layer: int, sign: int = 1) -> pd.Series:
        """The feature of a layer with the largest contribution of this sign."""
        found = self.graph.features.query("layer == @layer")
        return found.loc[(sign * found["contribution"]).idxmax()]


def error_share(case: Case) -> Asked:
    """Of the influence, by kind of node and from a layer on."""
    first = case.draw.choice([1, 2])
    nodes = case.graph.nodes
    errors, features = (nodes[nodes["kind"] == kind] for kind in ("error", "feature"))

    def share(since: int) -> float:
        late = errors.query("layer >= @since")["influence"].sum()
        return float(late / (errors["influence"].sum() + features["influence"].sum()))

    late = float(errors.query("layer >= @first")["influence"].sum())
    return Asked(
        "Of the influence that features and error nodes hold together, which share is held by the error nodes of "
        f"layer {first} and later? A number between 0 and 1.",
        share(first),
        {
            "All layers are counted.": share(0),
            "This is an influence: divide by what features and error nodes hold together.": late,
            "This counts from the layer after it.": share(first + 1),
        },
    )


def strongest_feature(case: Case) -> Asked:
    """By signed contribution, for or against the answer."""
    layer, sign = case.draw.choice([0, 1, 2]), case.draw.choice([1, -1])
    found = case.graph.features.query("layer == @layer")
    by_influence = str(found.sort_values("influence", ascending=False)["id"].iloc[0])
    which = "for" if sign > 0 else "against"
    right, other = (str(case.strongest(layer, each)["id"]) for each in (sign, -sign))
    largest = str(found.sort_values("activation", ascending=False)["id"].iloc[0])
    return Asked(
        f'Which feature of layer {layer} contributes most **{which}** the answer? Its `id`, a text such as "1_20_3".',
        right,
        {
            "This one speaks for the other side: look at the sign.": other,
            "This one has the most influence, which counts both signs.": by_influence,
            "This one is the most active; what it contributes is asked.": largest,
        },
    )


def after_steering(case: Case) -> Asked:
    """The answer's probability once the strongest feature of a layer is scaled."""
    layer, factor = case.draw.choice([0, 1, 2]), case.draw.choice([-1, 0, 2])
    node = str(case.strongest(layer)["id"])
    wrong = next(each for each in (0, 2, -1) if each != factor)
    return Asked(
        f"Take the feature of layer {layer} that contributes most for the answer, and multiply its activation by "
        f"{factor}. How likely is the answer then? A probability.",
        case.probability(Steer(node, factor=factor)),
        {
            "This is the probability before.": case.probability(),
            f"This is with a factor of {wrong}.": case.probability(Steer(node, factor=wrong)),
        },
    )


def control(case: Case) -> Asked:
    """What an ablation does beside those of the other features of the same place."""
    layer = case.draw.choice([0, 1, 2])
    mine = case.strongest(layer)
    place = case.graph.features.query("layer == @layer and position == @mine.position and id != @mine.id")
    before = case.probability()
    changes = [before - case.probability(Steer(str(node), factor=0)) for node in place["id"]]
    own = before - case.probability(Steer(str(mine["id"]), factor=0))
    return Asked(
        f"Switch off, one at a time, each *other* feature of the graph in layer {layer} at the position of the one "
        "that contributes most for the answer. By how much does the answer's probability fall on average? (A rise "
        "counts as a negative fall.)",
        float(sum(changes) / len(changes)),
        {
            "This is what the feature itself does.": own,
            "The feature itself is among them: the control is the others.": (sum(changes) + own) / (len(changes) + 1),
            "These are absolute changes; a rise counts as negative.": sum(map(abs, changes)) / len(changes),
        },
    )


def fires_where(case: Case) -> Asked:
    """For which other cities a feature fires at the same place."""
    layer = case.draw.choice([0, 1, 2])
    node = NodeId.parse(str(case.strongest(layer)["id"]))
    others = sorted(case.draw.sample([city for city in case.world.state_of if city != case.city], 12))

    def fires(city: str) -> bool:
        inside = attribute(case.model, case.transcoder, QUESTION.format(city=city)).features
        same = (inside["layer"] == node.layer) & (inside["feature"] == node.feature)
        return bool((same & (inside["position"] == node.position)).any())

    found = {city for city in others if fires(city)}
    return Asked(
        f"Take once more the feature of layer {layer} that contributes most for the answer. In the prompts about these "
        f"cities, in which is it active at the same position? A set of names. {', '.join(others)}",
        found,
        {
            "These are the cities where it is silent.": set(others) - found,
            "Look at each prompt by itself: it is not active in all of them.": set(others),
        },
    )


def largest_edge(case: Case) -> Asked:
    """Into a feature, by share of its absolute inputs."""
    layer = case.draw.choice([1, 2, 3])
    node = str(case.strongest(layer)["id"])
    edges = case.graph.edges[case.graph.edges["target"] == node]
    kinds = case.graph.nodes.set_index("id")["kind"]
    inputs = edges[edges["source"].map(kinds) == "feature"]
    ranks = inputs.loc[inputs["weight"].abs().sort_values(ascending=False).index]
    which = case.draw.choice([0, 1])
    return Asked(
        f"Take the feature of layer {layer} that contributes most for the answer. Among the **features** that feed it, "
        f"which has the {'largest' if which == 0 else 'second largest'} share of its inputs? Its `id`.",
        str(ranks["source"].iloc[which]),
        {
            "This is the one next to it in rank.": str(ranks["source"].iloc[1 - which]),
            "This is no feature: tokens and error nodes feed it as well.": str(edges["source"].iloc[0])
            if kinds[edges["source"].iloc[0]] != "feature"
            else None,
        },
    )


QUESTIONS: tuple[Callable[[Case], Asked], ...] = (
    error_share, strongest_feature, after_steering, control, fires_where, largest_edge,
)  # fmt: skip


def oral(case: Case) -> list[tuple[str, str]]:
    """Three questions for a conversation about the student's own graph, with what the model answers."""
    feature = case.strongest(case.draw.choice([0, 1, 2]))
    token, before = case.graph.tokens[int(feature["position"])], case.probability()
    after = case.probability(Steer(str(feature["id"]), factor=0))
    errors = case.graph.errors.sort_values("influence", ascending=False)
    worst, total = errors.iloc[0], case.graph.nodes.query("kind in ('error', 'feature')")["influence"].sum()
    paths = case.graph.paths(k=1)
    return [
        (
            f"Your graph says that feature {feature['id']} at {token!r} contributes {feature['contribution']:+.2f}. "
            "What do you expect if it is switched off, and why could it come out otherwise?",
            f"The answer's probability goes from {before:.2f} to {after:.2f}.",
        ),
        (
            f"The largest error node is in layer {int(worst['layer'])} at {worst['token']!r}. Which sentence about "
            "your graph would you no longer say because of it?",
            f"It holds {worst['influence'] / total:.0%} of the influence of features and errors.",
        ),
        (
            "Tell the strongest path of your graph as a sentence about places. Which step would you test first, and "
            "how?",
            f"The path: {paths.iloc[0].to_dict() if len(paths) else 'there is none'}. {case.city} lies in "
            f"{case.world.state_of[case.city]}, whose capital is {case.capital}.",
        ),
    ]
