"""When was each lens wrong? Every lens makes a claim about many questions whose truth is known, and is graded."""

import html
import random
import time
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from ..graphs import attribute
from ..lenses.components.attention import attention_patterns
from ..lenses.components.decomposition import decompose
from ..lenses.components.logit_lens import logit_lens
from ..lenses.tokens.comparison import important
from ..lenses.tokens.token_attribution import explain_tokens
from ..widgets.text_table import text_table

METHODS = ("occlusion", "shapley", "integrated_gradients", "input_x_gradient", "rollout")
SURE = 0.5


@dataclass(repr=False)
class LensGrades:
    """table: a row a claim: lens, claim (what counts as right), right (share of the questions), n, CPU seconds (for one
    question), wrong (a question on which it was). answers: DataFrame [question, claim] of booleans."""

    table: pd.DataFrame
    answers: pd.DataFrame

    def __repr__(self):
        return f"LensGrades({len(self.answers)} questions)\n{self.table.drop(columns='wrong').to_string()}"

    def _repr_html_(self):
        head = html.escape(f"{len(self.answers)} questions that training never asked, about cities")
        return f"<p>{head}</p>{text_table(self.table.reset_index())}"


def grade_lenses(model, world, transcoder, features, labels, n: int = 100, seed: int = 0) -> LensGrades:
    """Grades the lenses on n of `world.why_questions`: why this answer rather than that about another place? The city
    decides, and its place is the step in between.

    The log-probabilities are also asked about as many cities that do not exist, where a model should not be sure.

    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: expected at least one question")
    questions = world.why_questions(2 * n, seed)
    questions = questions[questions["about"] == "city"].reset_index(drop=True)
    invented = invented_cities(world, n, seed)
    claims = _claims(model, transcoder, features, labels, dict(zip(questions["city"], invented)))
    answers, seconds = {}, {}
    with tqdm(total=n * len(claims), desc="lens trial", leave=False) as bar:
        for (lens, claim), check in claims.items():
            start, answers[lens, claim] = time.process_time(), []
            for question in questions.itertuples():
                answers[lens, claim].append(bool(check(question)))
                bar.update()
            seconds[lens, claim] = (time.process_time() - start) / n
    answers = pd.DataFrame(answers, index=questions["prompt"])
    rows = [
        {"lens": at[0], "claim": at[1], "right": right.mean(), "n": n, "CPU seconds": seconds[at],
         "wrong": next((prompt for prompt, yes in right.items() if not yes), "")}
        for at, right in answers.items()
    ]  # fmt: skip
    return LensGrades(pd.DataFrame(rows).set_index("lens"), answers)


def invented_cities(world, n: int, seed: int = 0) -> list[str]:
    """The beginning of one real city's name with the end of another's; none is a city or a place of the world."""
    rng, found = random.Random(f"invented-{seed}"), []
    names = [city for city in world.place_of if city.isalpha() and len(city) > 4]
    while len(found) < n:
        a, b = rng.sample(names, 2)
        name = a[: (len(a) + 1) // 2] + b[len(b) // 2 :]
        if name not in world.place_of and name not in world.facts and name not in found:
            found.append(name)
    return found


def _claims(model, transcoder, features, labels, invented):
    """{(lens, claim): question -> whether it is right}."""

    def first(text):
        return model.tokenizer.encode(text, add_special_tokens=False)[0]

    def pair(q):
        return first(q.target), first(q.contrast)

    def sure(prompt):
        return model.next_tokens(prompt, 1)["probability"].iloc[0] >= SURE

    def at_city(q, position):
        return important(model, q.prompt, [q.city])[position]

    def lens_names_place(q):
        place = model.tokens([first(" " + q.place)])[0]
        return logit_lens(model, q.prompt).tokens.iloc[:, -1].eq(place).any()

    def heads_bring_city(q):
        found = decompose(model, q.prompt, *pair(q))
        heads = found.table["head"].notna().to_numpy()
        return at_city(q, int(found.sources[heads].sum().to_numpy().argmax()))

    def moved_from_city(q):
        return at_city(q, int(attention_patterns(model, q.prompt).strongest(k=1)["position"].iloc[0]))

    def highest_is_city(method):
        def check(q):
            found = explain_tokens(model, q.prompt, *pair(q), method=method)
            values = pd.Series(found.values)
            return at_city(q, slice(-len(values), None))[values.idxmax()]

        return check

    def graph_names_place(q):
        graph = attribute(model, transcoder, q.prompt).annotate(features, labels).prune()
        return (graph.nodes["label"] == q.place).any()

    def says_place(q):
        return model.complete(f"{q.city} is a city in", max_new_tokens=8, stop=".").strip() == q.place

    return {
        ("log-probabilities", "sure (half or more) of the right answer"): lambda q: (
            sure(q.prompt) and model.next_tokens(q.prompt, 1).index[0] == first(q.target)
        ),
        ("log-probabilities", "not sure when the city is invented"): lambda q: (
            not sure(q.prompt.replace(q.city, invented[q.city]))
        ),
        ("logit lens", "names the place after some layer"): lens_names_place,
        ("decomposition", "heads brought most from the city"): heads_bring_city,
        ("attention", "most is moved to the end from the city"): moved_from_city,
        **{("token attribution", f"{m}: the city is highest"): highest_is_city(m) for m in METHODS},
        ("chain of thought", "says the right place when asked first"): says_place,
        ("attribution graph", "a feature named after the place is in it"): graph_names_place,
    }
