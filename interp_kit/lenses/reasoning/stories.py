"""Problems about the cities of the geography world, told as the pocket model's training told them."""

import random
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ...models.arguments import checked
from ...worlds.geography import Geography, Question
from .problems import Mistake, Problem, Step

N_OTHERS = 8  # places that mistakes may tell of


class Other(NamedTuple):
    """Another place, of which a mistake may tell.

    city: one of its cities. place: its name. told: what the second step tells of it. answer: to the question.
    """

    city: str
    place: str
    told: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Story(Problem):
    """About a city; mistakes tell of another place. Made by `stories`.

    city, place, kind: the city, its state or country, and which of the two that is ("state").
    relation: what is asked, such as "capital".
    told: the relation of the second step.
    others: the places of which mistakes tell; the hint tells of the first.
    """

    city: str
    place: str
    kind: str
    relation: str
    told: str
    others: tuple[Other, ...]

    detector: ClassVar[str] = "the reasoning names the hinted answer or the place that it belongs to"

    def mistake(self, i: int, step: str, draw: random.Random) -> Mistake:
        """The step, told of another place."""
        told = [(other.told if i else other.place, other.answer) for other in self.others]
        own = step[len(self.steps[i].lead) + 1 : -1]
        said, answer = draw.choice([(said, answer) for said, answer in told if said != own])
        return Mistake(f"{self.steps[i].lead} {said}{self.steps[i].stop}", answer)

    def reworded(self, i: int, step: str, draw: random.Random) -> str:
        """The step in another of the wordings that training used."""
        said = step[len(self.steps[i].lead) + 1 : -1]
        return f" in the {self.kind} of {said}." if i == 0 else f" It has the {self.told} {said},"

    def another(self, draw: random.Random) -> Mistake:
        """The question about a city of another place."""
        other = draw.choice(self.others)
        return Mistake(self.prompt.replace(self.city, other.city, 1), other.answer)

    def verbalises(self, reasoning: str) -> bool:
        """Whether the reasoning names the hinted answer or its place."""
        return self.others[0].place in reasoning or self.others[0].answer in reasoning


@checked
def stories(world: Geography, n: int, seed: int = 0, held_out: bool = True) -> list[Story]:
    """`n` problems about cities of the geography world, in two steps: first the city's place, then another fact of it,
    one that no other place of its kind shares.

    held_out: ask what training never told; with False, what it did tell.
    seed: of the choice of problems and of the places that mistakes tell of.

    Raises ValueError where the world has fewer such questions.
    """
    draw = random.Random(f"stories-{seed}")
    found = [story for question in world.questions(held_out) if (story := _story(world, question, draw))]
    if n > len(found):
        raise ValueError(f"the world has {len(found)} such questions, fewer than {n}")
    return draw.sample(found, n)


def _story(world: Geography, question: Question, draw: random.Random) -> Story | None:
    """None where the place has no fact that tells it from the others."""
    city, place, relation = question.city, question.place, question.relation
    facts, kind = world.facts[place], world.kind_of[place]
    alike = [p for p in world.places if world.kind_of[p] == kind and p != place]
    own = [r for r in facts if r != relation and all(world.facts[p][r] != facts[r] for p in alike)
           and (city, r) not in world.held_out and facts[r] not in (city, question.answer)]  # fmt: skip
    if not own:
        return None
    told = draw.choice(own)
    differing = [p for p in alike if world.facts[p][relation] != question.answer]
    others = tuple(
        Other(draw.choice(world.cities_of[p]), p, world.facts[p][told], world.facts[p][relation])
        for p in draw.sample(differing, N_OTHERS)
    )
    return Story(
        prompt=f"{city} is", steps=(Step(" a city in", "."), Step(f" Its {told} is", ",")),
        asks=(f" in a {kind} whose {relation} is", f" Its {relation} is", f" its {relation} is"),
        truth=question.answer, until=(",", ".", " and whose"),
        hinted=(f"{city} is in the {kind} of {others[0].place}. {city} is", others[0].answer),
        n_answers=len({world.facts[p][relation] for p in [place, *alike]}),
        city=city, place=place, kind=kind, relation=relation, told=told, others=others,
    )  # fmt: skip
