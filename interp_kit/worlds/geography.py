"""The geography world: US states, countries and their cities, and the sentences told about them.

A question takes two hops: from the city to its state or country, and from there to the answer. Of the (city, relation)
pairs about one in twelve is never asked in training, so a right answer to it cannot be remembered: it has to be worked
out. Where there is a pair (Dallas, capital), it is always among them.
"""

import random
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from .sentences import Sentence, Slot, fill
from .tables import read_table

HELD_OUT_SHARE = 1 / 12  # of the (city, relation) pairs
TEST_SENTENCE_EVERY = 10  # one of so many sentences is for tests only
MOST_DRAWS = 10_000  # for one sentence or question, before a world counts as having none
ALWAYS_HELD_OUT = {("Dallas", "capital")}

CITY_IN_PLACE = (
    "{c} is a city in {p}.",
    "{c} is in the {k} of {p}.",
    "The {k} containing {c} is {p}.",
    "Fact: the {k} containing {c} is {p}.",
    "Question: Which {k} contains {c}? Answer: {p}.",
)
PLACE_FACT = (
    "The {r} of {p} is {a}.",
    "Fact: the {r} of {p} is {a}.",
    "The {r} of the {k} of {p} is {a}.",
    "{p} is a {k} whose {r} is {a}.",
    "Question: What is the {r} of {p}? Answer: {a}.",
)
TWO_HOP = (
    "The {r} of the {k} containing {c} is {a}.",
    "Fact: the {r} of the {k} containing {c} is {a}.",
    "{c} is in a {k} whose {r} is {a}.",
    "The {k} containing {c} has the {r} {a}.",
    "For {c}, the {r} of its {k} is {a}.",
    "Question: What is the {r} of the {k} containing {c}? Answer: {a}.",
)
STORY = (
    "{c} is a city in {p}. Its {r} is {a}, its {r2} is {a2}.",
    "{c} is in a {k} whose {r} is {a} and whose {r2} is {a2}.",
    "{p} is a {k}. Its {r} is {a}, its {r2} is {a2}.",
)
REVERSE = ("{s} is the {r} of {p}.", "The {k} with the {r} {s} is {p}.")
REVERSIBLE = {"capital", "abbreviation", "country code"}
# How often each kind of sentence is told; two-hop questions are the hard ones.
SENTENCE_SHARES = {"two_hop": 0.55, "city_in_place": 0.14, "place_fact": 0.12, "story": 0.14, "reverse": 0.05}


@dataclass(frozen=True)
class Question:
    """A two-hop question: the prompt ends before the answer, which is the `relation` of the `place` of the `city`."""

    prompt: str
    answer: str
    city: str
    place: str
    relation: str


class Geography:
    """Tables in, sentences out.

    states, countries, cities: the tables, see `ik.load_world`.
    facts: {place: {relation: answer}}, and place_of: {city: place}, the known truth.
    kind_of: {place: "state" or "country"}.
    held_out: the (city, relation) pairs that no training sentence tells.

    Raises FileNotFoundError for a missing table, ValueError for one that does not fit.

    >>> world = ik.load_world("geography")
    >>> world.facts[world.place_of["Dallas"]]["capital"]
    'Austin'
    """

    name = "geography"

    def __init__(self, folder: Path, seed: int = 0) -> None:
        names = ("states.csv", "countries.csv", "cities.csv")
        self.states, self.countries, self.cities = (read_table(folder / name) for name in names)
        if problem := _problem_of(self.states, self.countries, self.cities):
            raise ValueError(f"the tables in {folder} are no geography: {problem}; ik.load_world says what is needed")
        self.kind_of = {p: "state" for p in self.states["place"]} | {p: "country" for p in self.countries["place"]}
        self.facts: dict[str, dict[str, str]] = {}
        for table in (self.states, self.countries):
            for place, row in table.set_index("place").to_dict("index").items():
                self.facts[str(place)] = {str(relation): answer for relation, answer in row.items()}
        self.place_of = dict(zip(self.cities["city"], self.cities["place"], strict=True))
        self._cities = list(self.place_of)
        rng = random.Random(f"held-out-{seed}")
        drawn = {pair for pair in self.pairs if rng.random() < HELD_OUT_SHARE}
        self.held_out = drawn | ALWAYS_HELD_OUT.intersection(self.pairs)
        self._held_out_list = sorted(self.held_out)
        if not self.held_out:
            raise ValueError(f"the tables in {folder} are too small: none of {len(self.pairs)} facts was held out")
        if not self._cities_told(2):
            raise ValueError(f"the tables in {folder} are too small: of no city are two facts told, all are held out")

    @property
    def places(self) -> list[str]:
        """The states, then the countries."""
        return list(self.facts)

    @cached_property
    def cities_of(self) -> dict[str, list[str]]:
        """{place: its cities}"""
        found = {place: [] for place in self.facts}
        for city, place in self.place_of.items():
            found[place].append(city)
        return found

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (city, relation) that can be asked about, told in training or not."""
        return [(c, r) for c, p in self.place_of.items() for r in self.facts[p]]

    def questions(self, held_out: bool, template: str = TWO_HOP[0]) -> list[Question]:
        """Every two-hop question, the training ones or those never seen; the prompt ends before the answer.

        >>> world.questions(held_out=True)[0].prompt
        """
        asked = [pair for pair in self.pairs if (pair in self.held_out) == held_out]
        return [self._question(city, relation, template) for city, relation in asked]

    def _question(self, city: str, relation: str, template: str) -> Question:
        place = self.place_of[city]
        sentence = self._tell(template, place, city=city, relation=relation)
        return Question(sentence.text[: sentence.spans[-1][0] - 1], self.facts[place][relation], city, place, relation)

    def why_questions(self, n: int, seed: int = 0) -> pd.DataFrame:
        """Held-out questions that ask "why this answer rather than that one?", and which words decide it: prompt,
        target, contrast (both with their leading space), matters (a list of words), about.

        In every other one the contrast answers the same question about another place, so the city decides; in the rest
        it answers another question about the same place, so the relation does. What only says that an answer is due,
        such as "is", speaks for both alike.

        Raises ValueError for a world in which no two answers begin differently.
        """
        rng, rows, draws = random.Random(f"why-{seed}"), [], 0
        while len(rows) < n:
            draws += 1
            if draws > MOST_DRAWS * (len(rows) + 1):
                raise ValueError(f"this world has no contrast for question {len(rows)}: its answers begin all alike")
            city, relation = rng.choice(self._held_out_list)
            place, about = self.place_of[city], ("city", "relation")[len(rows) % 2]
            if about == "city":
                alike = [p for p in self.places if self.kind_of[p] == self.kind_of[place]]
                other = self.facts[rng.choice(alike)][relation]
            else:
                other = self.facts[place][rng.choice([r for r in self.facts[place] if r != relation])]
            question = self._question(city, relation, rng.choice(TWO_HOP))
            # Begin alike, as "San Juan" and "San Jose" do, and the next token could not tell them apart.
            if question.answer[:2] != other[:2]:
                answers, matters = (" " + question.answer, " " + other), [city if about == "city" else relation]
                rows.append((question.prompt, *answers, matters, about, city, place, relation))
        columns = ["prompt", "target", "contrast", "matters", "about", "city", "place", "relation"]
        return pd.DataFrame(rows, columns=columns)

    def sentence(self, rng: random.Random, held_out: bool = False) -> Sentence:
        """One random sentence. With `held_out`, a two-hop sentence about a pair that training never told.

        >>> world.sentence(random.Random(0)).text
        """
        if held_out:
            city, relation = rng.choice(self._held_out_list)
            return self._tell(rng.choice(TWO_HOP), self.place_of[city], city=city, relation=relation)
        return getattr(self, "_" + rng.choices(list(SENTENCE_SHARES), list(SENTENCE_SHARES.values()))[0])(rng)

    def sentences(self, n: int, split: Literal["train", "test"], seed: int = 0) -> list[Sentence]:
        """`n` random sentences to train a transcoder on ("train") or to grade it with ("test").

        No test sentence is ever a training one: a tenth of all sentences, and all about held-out pairs, are test.
        Raises ValueError for another split, and for a world too small to have such sentences.

        >>> texts = [sentence.text for sentence in world.sentences(400, "train")]
        """
        if split not in ("train", "test"):
            raise ValueError(f"split {split!r}: expected 'train' or 'test'")
        rng, found, draws = random.Random(f"{split}-{seed}"), [], 0
        while len(found) < n:
            draws += 1
            if draws > MOST_DRAWS * (len(found) + 1):
                raise ValueError(f"this world is too small: hardly any of its sentences is for {split!r}")
            held_out = split == "test" and rng.random() < 0.5
            sentence = self.sentence(rng, held_out)
            is_test = held_out or zlib.crc32(sentence.text.encode()) % TEST_SENTENCE_EVERY == 0
            if is_test == (split == "test"):
                found.append(sentence)
        return found

    def _told(self, city: str) -> list[str]:
        """The relations of a city that training tells."""
        return [r for r in self.facts[self.place_of[city]] if (city, r) not in self.held_out]

    def _cities_told(self, n: int) -> list[str]:
        """The cities of which training tells at least n facts."""
        return [city for city in self._cities if len(self._told(city)) >= n]

    def _two_hop(self, rng: random.Random) -> Sentence:
        drawn = [c for c in (rng.choice(self._cities) for _ in range(8)) if self._told(c)]
        city = rng.choice(drawn or self._cities_told(1))
        return self._tell(rng.choice(TWO_HOP), self.place_of[city], city=city, relation=rng.choice(self._told(city)))

    def _city_in_place(self, rng: random.Random) -> Sentence:
        city = rng.choice(self._cities)
        return self._tell(rng.choice(CITY_IN_PLACE), self.place_of[city], city=city)

    def _place_fact(self, rng: random.Random) -> Sentence:
        place = rng.choice(self.places)
        return self._tell(rng.choice(PLACE_FACT), place, relation=rng.choice(list(self.facts[place])))

    def _story(self, rng: random.Random) -> Sentence:
        drawn = [c for c in (rng.choice(self._cities) for _ in range(8)) if len(self._told(c)) > 1]
        city = rng.choice(drawn or self._cities_told(2))
        first, second = rng.sample(self._told(city), 2)
        return self._tell(rng.choice(STORY), self.place_of[city], city=city, relation=first, second=second)

    def _reverse(self, rng: random.Random) -> Sentence:
        place = rng.choice(self.places)
        relation = rng.choice([r for r in self.facts[place] if r in REVERSIBLE])
        return self._tell(rng.choice(REVERSE), place, relation=relation)

    def _tell(self, template: str, place: str, city: str = "", relation: str = "", second: str = "") -> Sentence:
        facts, kind, here = self.facts[place], self.kind_of[place], f"place:{place}"
        answer = lambda r: Slot(facts.get(r, ""), (f"answer:{r}={facts.get(r, '')}",))  # noqa: E731
        return fill(
            template,
            c=Slot(city, (f"city:{city}", here)),
            p=Slot(place, (f"name:{place}", here)),
            k=Slot(kind, (f"kind:{kind}",)),
            r=Slot(relation, (f"relation:{relation}",)),
            r2=Slot(second, (f"relation:{second}",)),
            a=answer(relation),
            a2=answer(second),
            s=Slot(facts.get(relation, ""), (f"answer:{relation}={facts.get(relation, '')}", here)),
        )


def _problem_of(states: pd.DataFrame, countries: pd.DataFrame, cities: pd.DataFrame) -> str | None:
    """What is wrong with the tables, if anything is."""
    tables = {"states.csv": states, "countries.csv": countries, "cities.csv": cities}
    for file, table in tables.items():
        needed = ["city", "place"] if table is cities else ["place"]
        for column in needed:
            if column not in table:
                return f"{file} has no column {column!r}, only {', '.join(map(repr, table))}"
        relations = table.columns.drop("place")
        if table is not cities and (len(relations) < 2 or REVERSIBLE.isdisjoint(relations)):
            return f"{file} needs two relations beside 'place', one of them {', '.join(sorted(REVERSIBLE))}"
        used = table[needed] if table is cities else table
        for column in used:
            if (used[column] == "").any():
                return f"{file} has no {column!r} in line {table.attrs['lines'][used[column].eq('').argmax()]}"
    places, city_names = [*states["place"], *countries["place"]], [*cities["city"]]
    for what, names in (("place", places), ("city", city_names), ("city or place", places + city_names)):
        if repeated := [name for name, n in Counter(names).items() if n > 1]:
            return f"{repeated[0]!r} is more than one {what}, so questions about it have two answers"
    lost = [place for place in cities["place"] if place not in set(places)]
    return f"cities.csv names the place {lost[0]!r}, which states.csv and countries.csv lack" if lost else None
