"""Problems say what is true, and what a wrong step leads to."""

import random
import re

import pytest

import interp_kit as ik
from interp_kit.worlds.geography import STORY


@pytest.fixture(scope="module")
def world():
    return ik.load_world()


def test_stories_are_told_as_training_told_them(world):
    for story in ik.lenses.stories(world, 100):
        facts = world.facts[story.place]
        said = [f"{step.lead} {text}{step.stop}" for step, text in zip(story.steps, (story.place, facts[story.told]))]
        whole = story.prompt + "".join(said) + story.ask(2)
        form = {"c": story.city, "p": story.place, "k": story.kind, "r": story.told, "a": facts[story.told]}
        assert STORY[0].format(r2=story.relation, a2=story.truth, **form).startswith(whole)
        form |= {"r": story.relation, "a": story.truth}
        assert STORY[1].format(r2="", a2="", **form).startswith(story.prompt + story.ask(0))


def test_the_truth_of_stories(world):
    draw = random.Random(0)
    for story in ik.lenses.stories(world, 100):
        assert (story.city, story.relation) in world.held_out and (story.city, story.told) not in world.held_out
        assert story.truth == world.facts[world.place_of[story.city]][story.relation]
        places = [other.place for other in story.others]
        assert len(set(places)) == len(places) == 8 and story.place not in places
        for city, place, told, answer in story.others:
            assert world.place_of[city] == place and world.facts[place][story.relation] == answer != story.truth
            assert world.facts[place][story.told] == told != world.facts[story.place][story.told]
        answer_at = {f" a city in {other.place}.": other.answer for other in story.others}
        first, second = (story.mistake(i, "", draw) for i in range(2))
        assert answer_at[first.text] == first.implies
        assert second.implies in {o.answer for o in story.others if second.text == f" Its {story.told} is {o.told},"}
        hint, answer = story.hinted
        assert hint == f"{story.city} is in the {story.kind} of {places[0]}. {story.prompt}"
        assert answer == story.others[0].answer
        assert story.verbalises(f" a city in {places[0]}.") and not story.verbalises(f" a city in {story.place}.")


def test_stories_are_chosen_by_seed(world):
    assert (
        ik.lenses.stories(world, 20, seed=1)
        == ik.lenses.stories(world, 20, seed=1)
        != ik.lenses.stories(world, 20, seed=2)
    )
    seen = ik.lenses.stories(world, 20, held_out=False)
    assert not any((story.city, story.relation) in world.held_out for story in seen)
    with pytest.raises(ValueError, match="fewer than 9999"):
        ik.lenses.stories(world, 9999)


def test_the_truth_of_sums():
    problems = ik.lenses.sums(200)
    assert len({problem.prompt for problem in problems}) == 200 and problems == ik.lenses.sums(200)
    assert ik.lenses.sums(3, seed=1) != ik.lenses.sums(3)
    for problem in problems:
        numbers = [int(n) for n in re.findall(r"\d", problem.prompt.rpartition("Question: ")[2])]
        assert len(numbers) == 3 and problem.truth == str(sum(numbers)) and sum(numbers) <= 9
        assert problem.last == numbers[2] and problem.prompt.count("Answer: ") == 3
        assert problem.hinted[1] != problem.truth and f"the answer is {problem.hinted[1]}, but" in problem.hinted[0]
    with pytest.raises(ValueError, match="at most 1,000"):
        ik.lenses.sums(1_001)


def test_mistakes_in_sums():
    problem, draw = ik.lenses.sums(1)[0], random.Random(0)
    for _ in range(20):
        first = problem.mistake(0, "3 + 4 = 7\n", draw)
        wrong = int(re.fullmatch(r"3 \+ 4 = (\d)\n", first.text)[1])
        assert wrong != 7 and first.implies == str(wrong + problem.last)
        last = problem.mistake(1, "7 + 2 = 9\n", draw)
        assert last.text == f"7 + 2 = {last.implies}\n" and last.implies != "9"
    assert problem.mistake(0, "I do not know\n", draw) is None and problem.reworded(0, "I do not know\n", draw) is None
    assert problem.reworded(0, "3 + 4 = 7\n", draw) == "3 plus 4 makes 7\n"


def test_what_a_problem_does_not_say():
    problem = ik.lenses.Problem("the", (ik.lenses.Step("", "."),), ("",))
    for method, test in (("mistake", "mistakes"), ("reworded", "paraphrase")):
        with pytest.raises(ValueError, match=f"define Problem.{method}, or leave the test '{test}' out"):
            getattr(problem, method)(0, "", random.Random(0))
    with pytest.raises(ValueError, match="needs steps"):
        ik.lenses.Problem("the", (), ("",))
    assert problem.verbalises("as you said") and not problem.verbalises("3 + 4 = 7")


def test_a_mistake_is_another_step_and_no_sum_is_above_nine():
    import random

    story = ik.lenses.stories(ik.load_world(), 1)[0]
    own = f"{story.steps[0].lead} {story.others[0].place}{story.steps[0].stop}"
    assert all(story.mistake(0, own, random.Random(i)).text != own for i in range(40))
    for problem in ik.lenses.sums(10):
        a, b, c = (int(digit) for digit in re.findall(r"\d", problem.prompt.splitlines()[-1]))
        for i in range(20):
            implied = problem.mistake(0, f"{a} + {b} = {a + b}\n", random.Random(i)).implies
            assert 1 <= int(implied) <= 9 and int(implied) != a + b + c
