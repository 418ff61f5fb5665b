"""When was each lens wrong? Every lens makes a claim about many questions whose truth is known, and is graded."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, SupportsIndex

import numpy as np
import pandas as pd

from ..features import FeatureStore
from ..features.store import check_set
from ..graphs import attribute
from ..lenses import JacobianLens, LogitLens, attention_patterns, decompose, explain_tokens, logit_lens
from ..lenses.tokens.methods import Method
from ..lenses.tokens.words import first_token, word_mask
from ..models import LanguageModel
from ..models.arguments import checked
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from ..widgets.text_table import text_table
from ..worlds.geography import Geography

METHODS: tuple[Method, ...] = ("occlusion", "shapley", "integrated_gradients", "input_x_gradient", "rollout")
SURE = 0.5  # of the likeliest token


@dataclass(repr=False)
class LensGrades:
    """What `grade_lenses` found.

    table: a row a claim, by `lens`: claim (what counts as correct), accuracy (share of the questions), n, CPU seconds
        (for one question), wrong (the prompt of a question on which it was, or "").
    answers: [question, (lens, claim)], whether it was correct.
    """

    table: pd.DataFrame
    answers: pd.DataFrame

    def __repr__(self) -> str:
        return printable(f"LensGrades({len(self.answers)} questions)\n{self.table.drop(columns='wrong').to_string()}")

    def _repr_html_(self) -> str:
        head = f"{len(self.answers)} questions that training never asked, about cities"
        return literal(f"<p>{head}</p>{text_table(self.table.reset_index())}")


@checked
def grade_lenses(
    model: LanguageModel,
    world: Geography,
    transcoder: CrossLayerTranscoder,
    features: FeatureStore,
    labels: pd.DataFrame,
    n: int = 100,
    seed: int = 0,
    jacobian: JacobianLens | None = None,
) -> LensGrades:
    """Grades the lenses on n of `world.why_questions`: why this answer rather than that about another place? The city
    decides, and its place is the step in between.

    The log-probabilities are also asked about as many cities that do not exist, where a model should not be sure.
    transcoder, features, labels: for the attribution graphs and their names. seed: of the choice of questions.
    jacobian: of `ik.lenses.fit_jacobian_lens`, to be graded too.

        ik.studies.grade_lenses(model, world, transcoder, features, labels, n=4)

    Raises ValueError for n below 1, and for a transcoder, features or labels that belong to another model.
    """
    check_set(model, transcoder, features, labels)
    if n < 1:
        raise ValueError(f"n={n}: expected at least one question")
    table = world.why_questions(2 * n, seed)
    table = table.loc[table["about"] == "city", list(Question._fields)]
    questions = [Question(*row) for row in table.itertuples(index=False, name=None)]
    prompts, cities = list(table["prompt"]), list(table["city"])
    invented = dict(zip(cities, invented_cities(world, n, seed)))
    claims = _Grader(model, transcoder, features, labels, invented, jacobian).claims()
    answers, rows = {}, []
    with ProgressBar(total=n * len(claims), desc="grading lenses", leave=False) as bar:
        for (lens, claim), is_correct in claims.items():
            start, correct = time.process_time(), []
            for question in questions:
                correct.append(bool(is_correct(question)))
                bar.update()
            seconds = (time.process_time() - start) / n
            wrong = "" if all(correct) else prompts[correct.index(False)]
            answers[lens, claim] = correct
            rows.append((lens, claim, np.mean(correct), n, seconds, wrong))
    columns = ["lens", "claim", "accuracy", "n", "CPU seconds", "wrong"]
    grades = pd.DataFrame(rows, columns=columns).set_index("lens")
    return LensGrades(grades, pd.DataFrame(answers, index=pd.Index(prompts, name="prompt")))


def invented_cities(world: Geography, n: int, seed: int = 0) -> list[str]:
    """The beginning of one real city's name with the end of another's; none is a city or a place of the world."""
    rng = random.Random(f"invented-{seed}")
    found: list[str] = []
    names = [city for city in world.place_of if city.isalpha() and len(city) > 4]
    while len(found) < n:
        a, b = rng.sample(names, 2)
        name = a[: (len(a) + 1) // 2] + b[len(b) // 2 :]
        if name not in world.place_of and name not in world.facts and name not in found:
            found.append(name)
    return found


class Question(NamedTuple):
    """One of `world.why_questions`: why target rather than contrast?

    The city decides, and its place is the step in between.
    """

    prompt: str
    target: str
    contrast: str
    city: str
    place: str


@dataclass
class _Grader:
    """What each lens is asked about a question. Every method says whether its lens is right.

    invented: for each city one that does not exist.
    """

    model: LanguageModel
    transcoder: CrossLayerTranscoder
    features: FeatureStore
    labels: pd.DataFrame
    invented: dict[str, str]
    jacobian: JacobianLens | None

    def claims(self) -> dict[tuple[str, str], Callable[[Question], bool]]:
        """{(lens, what counts as correct): the method that tells}"""
        at_end, at_city = "names the place after some layer", "names the place after some layer, at the city"
        jacobian = {
            ("Jacobian lens", at_end): partial(self.jacobian_lens_names_place, -1),
            ("Jacobian lens", at_city): partial(self.jacobian_lens_names_place, None),
        }
        return {
            ("log-probabilities", "sure (half or more) of the right answer"): self.sure_of_answer,
            ("log-probabilities", "not sure when the city is invented"): self.unsure_of_invented_city,
            ("logit lens", at_end): partial(self.logit_lens_names_place, -1),
            ("logit lens", at_city): partial(self.logit_lens_names_place, None),
            **(jacobian if self.jacobian is not None else {}),
            ("decomposition", "heads brought most from the city"): self.heads_bring_city,
            ("attention", "most is moved to the end from the city"): self.attention_moves_city,
            **{("token attribution", f"{m}: the city is highest"): partial(self.city_is_highest, m) for m in METHODS},
            ("chain of thought", "says the right place when asked first"): self.says_place,
            ("attribution graph", "a feature named after the place is in it"): self.graph_names_place,
        }

    def sure_of_answer(self, question: Question) -> bool:
        best = self.model.next_tokens(question.prompt, 1)
        return best.index[0] == first_token(self.model, question.target) and best["probability"].iloc[0] >= SURE

    def unsure_of_invented_city(self, question: Question) -> bool:
        prompt = question.prompt.replace(question.city, self.invented[question.city])
        return self.model.next_tokens(prompt, 1)["probability"].iloc[0] < SURE

    def logit_lens_names_place(self, position: int | None, question: Question) -> bool:
        return self._names_place(logit_lens(self.model, question.prompt), position, question)

    def jacobian_lens_names_place(self, position: int | None, question: Question) -> bool:
        assert self.jacobian is not None  # it is not among the claims then
        return self._names_place(self.jacobian.read(self.model, question.prompt), position, question)

    def _names_place(self, lens: LogitLens, position: int | None, question: Question) -> bool:
        """At a position; None stands for the city's last token."""
        if position is None:
            position = int(np.flatnonzero(word_mask(self.model, question.prompt, [question.city]))[-1])
        place = self.model.tokens([first_token(self.model, " " + question.place)])[0]
        return place in set(lens.tokens.iloc[:, position])

    def heads_bring_city(self, question: Question) -> bool:
        found = decompose(self.model, question.prompt, *self._asked(question))
        return self._is_city(question, found.heads_by_source().to_numpy().argmax())

    def attention_moves_city(self, question: Question) -> bool:
        strongest = attention_patterns(self.model, question.prompt).strongest(k=1)
        return self._is_city(question, strongest["position"].iloc[0])

    def city_is_highest(self, method: Method, question: Question) -> bool:
        values = explain_tokens(self.model, question.prompt, *self._asked(question), method=method).values
        return self._is_city(question, np.argmax(values) - len(values))  # the first positions may have no value

    def says_place(self, question: Question) -> bool:
        said = self.model.complete(f"{question.city} is a city in", max_new_tokens=8, stop=".")
        return said.strip() == question.place

    def graph_names_place(self, question: Question) -> bool:
        graph = attribute(self.model, self.transcoder, question.prompt).annotate(self.features, self.labels)
        return question.place in set(graph.prune().nodes["label"])

    def _asked(self, question: Question) -> tuple[int, int]:
        """The first tokens of the two answers."""
        return first_token(self.model, question.target), first_token(self.model, question.contrast)

    def _is_city(self, question: Question, position: SupportsIndex) -> bool:
        """Whether the token at a position is the city's, or a part of it."""
        return bool(word_mask(self.model, question.prompt, [question.city])[position])
