import pytest

import interp_kit as ik
from interp_kit.studies.lens_grading import invented_cities


@pytest.fixture(scope="module")
def world():
    return ik.load_world("geography")


def test_invented_cities_are_none(world):
    names = invented_cities(world, 50)
    assert len(set(names)) == 50 and not set(names) & (set(world.place_of) | set(world.facts))
    assert names == invented_cities(world, 50) != invented_cities(world, 50, seed=1)


def test_the_grades_are_what_the_lenses_say(world):
    """Each claim again, by hand, on the same questions."""
    model, transcoder = ik.load_model("pocket"), ik.load_transcoder("pocket")
    features, labels = ik.load_features("pocket"), ik.load_labels("pocket")
    found = ik.studies.grade_lenses(model, world, transcoder, features, labels, n=2)
    answers = {claim: list(column) for (_, claim), column in found.answers.items()}
    questions = world.why_questions(4).query("about == 'city'")
    assert list(found.answers.index) == list(questions["prompt"])
    for i, q in enumerate(questions.itertuples()):
        best = model.next_tokens(q.prompt, 1).iloc[0]
        right = q.target.startswith(best["token"]) and best["probability"] >= 0.5
        assert answers["sure (half or more) of the right answer"][i] == right
        graph = ik.attribute(model, transcoder, q.prompt).annotate(features, labels).prune()
        named = q.place in set(graph.nodes["label"])
        assert answers["a feature named after the place is in it"][i] == named
        first = lambda text: model.tokenizer.encode(text)[0]  # noqa: E731
        values = ik.lenses.explain_tokens(model, q.prompt, first(q.target), first(q.contrast), method="occlusion")
        top = values.tokens[max(range(len(values.values)), key=values.values.__getitem__)].strip()
        # A city's piece is in its name; the words of the templates are not.
        assert answers["occlusion: the city is highest"][i] == (top in q.city and top not in {"a", "is", "in", "of"})
        said = model.complete(f"{q.city} is a city in", max_new_tokens=8, stop=".").strip()
        assert answers["says the right place when asked first"][i] == (said == world.place_of[q.city])
    assert (found.table["n"] == 2).all() and found.table["accuracy"].between(0, 1).all()
    for row in found.table.itertuples():
        assert (row.wrong == "") == (row.accuracy == 1)
    with pytest.raises(ValueError, match="at least one"):
        ik.studies.grade_lenses(model, world, transcoder, features, labels, n=0)
