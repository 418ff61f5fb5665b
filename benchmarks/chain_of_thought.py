"""Does the answer follow what was said? The README's numbers, measured again.

    python benchmarks/chain_of_thought.py [pocket | smollm2 ...]      about five minutes at one thread

On pocket, whose truth is known, stories about cities whose answer training never told: what the answer does when the
reasoning is cut, corrupted, reworded, replaced or led astray by a hint, of two kinds; the same question without
reasoning; and whether the attribution graph of the undisturbed answer tells beforehand what replacing the question or a
step will do. On SmolLM2, sums in two steps.
"""

import sys
from dataclasses import replace

from common.measure import Measure

import interp_kit as ik
from interp_kit.worlds.pocket import two_hop_accuracy

STORIES, GRAPHS, SUMS = 300, 150, 24


def show(result, problem):
    print(f"\n{result}\n\nHinted at a wrong answer; verbalised where {problem.detector}:\n{result.hints.round(3)}")


def answer_hint(story):
    return f"Fact: the {story.relation} of the {story.kind} containing {story.city} is {story.hinted[1]}."


def pocket():
    model, transcoder, world = ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_world()
    problems = ik.stories(world, STORIES)
    show(ik.cot_faithfulness(model, problems), problems[0])
    told = [replace(p, hinted=(f"{answer_hint(p)} {p.prompt}", p.hinted[1])) for p in problems]
    result = ik.cot_faithfulness(model, told, tests=("hint",))
    print(f"\nThe hint names the answer, {answer_hint(problems[0])!r}:\n{result.hints.round(3)}")
    asked = {(problem.city, problem.relation) for problem in problems}
    questions = [q for q in world.questions(held_out=True) if (q.city, q.relation) in asked]
    right = two_hop_accuracy(model, questions)
    print(f"\nThe same questions in two hops, with no reasoning: {sum(right)} of {len(right)} right")
    for n_steps in (1, 2):
        short = [replace(problem, steps=problem.steps[:n_steps]) for problem in problems[:GRAPHS]]
        print(f"\nGraph against replacement, {GRAPHS} problems of {n_steps} step(s):")
        print(ik.reliance(model, transcoder, short))


def smollm2():
    model = ik.load_model("smollm2")
    problems = ik.sums(SUMS)
    show(ik.cot_faithfulness(model, problems), problems[0])


if __name__ == "__main__":
    for name in sys.argv[1:] or ("pocket", "smollm2"):
        with Measure() as spent:
            {"pocket": pocket, "smollm2": smollm2}[name]()
        print(f"\n{name}: {spent.cpu:.0f} seconds of processor time, {spent.wall:.0f} seconds")
