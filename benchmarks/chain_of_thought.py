"""Does the answer follow what was said? The README's numbers, measured again.

    python benchmarks/chain_of_thought.py [pocket | smollm2 ...]      about five minutes of one thread

On pocket, whose truth is known, stories about cities whose answer training never told: what the answer does when the
reasoning is cut, corrupted, reworded, replaced or led astray by a hint, of two kinds; the same question without
reasoning; and whether the attribution graph of the undisturbed answer tells beforehand what replacing the question or a
step will do, beside where the last position looks and the gradient at the embeddings. On SmolLM2, sums in two steps.
"""

import sys
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from common.measure import Measure

import interp_kit as ik
from interp_kit.lenses import Reliance
from interp_kit.studies.two_hop import two_hop_accuracy

STORIES, GRAPHS, SUMS = 300, 150, 24


def show(result, problem):
    print(f"\n{result}\n\nHinted at a wrong answer; verbalised where {problem.detector}:\n{result.hints.round(3)}")


def answer_hint(story):
    return f"Fact: the {story.relation} of the {story.kind} containing {story.city} is {story.hinted[1]}."


def attention(model, prompt):
    """Where the last position looks: [position], the mean over layers and heads."""
    with torch.no_grad():
        out = model.hf(model.encode(prompt)[None], output_attentions=True, use_cache=False)
    return torch.stack(out.attentions)[:, 0, :, -1].mean((0, 1))


def gradient(model, prompt):
    """[position], the norm of the gradient of the likeliest token's log-probability at the embeddings, as shares."""
    inputs = model.hf.get_input_embeddings()(model.encode(prompt))[None].requires_grad_(True)
    answer = model.hf(inputs_embeds=inputs, use_cache=False).logits[0, -1].log_softmax(-1).max()
    size = torch.autograd.grad(answer, inputs)[0][0].norm(dim=-1)
    return size / size.sum()


CONTROLS = {"attention": attention, "gradient": gradient}


def with_shares(found, share):
    """The same replacements with other shares."""
    of = {prompt: share(prompt) for prompt in found.table["prompt"].unique()}
    shares = [float(of[row.prompt][row.start : row.stop].sum()) for row in found.table.itertuples()]
    return Reliance(found.table.assign(share=shares))


def numbers(found):
    return found.pairs.iloc[0][["spearman", "auc"]].to_dict() | found.agreement[["strongest", "commonest"]].to_dict()


def pocket():
    model, transcoder, world = ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_world()
    problems = ik.lenses.stories(world, STORIES)
    show(ik.lenses.cot_faithfulness(model, problems), problems[0])
    told = [replace(p, hinted=(f"{answer_hint(p)} {p.prompt}", p.hinted[1])) for p in problems]
    result = ik.lenses.cot_faithfulness(model, told, tests=("hint",))
    print(f"\nThe hint names the answer, {answer_hint(problems[0])!r}:\n{result.hints.round(3)}")
    asked = {(problem.city, problem.relation) for problem in problems}
    questions = [q for q in world.questions(held_out=True) if (q.city, q.relation) in asked]
    right = two_hop_accuracy(model, questions)
    print(f"\nThe same questions in two hops, with no reasoning: {sum(right)} of {len(right)} right")
    for n_steps in (1, 2):
        short = [replace(problem, steps=problem.steps[:n_steps]) for problem in problems[:GRAPHS]]
        print(f"\nGraph against replacement, {GRAPHS} problems of {n_steps} step(s):")
        found = ik.lenses.reliance(model, transcoder, short)
        print(found)
        controls = {name: with_shares(found, partial(share, model)) for name, share in CONTROLS.items()}
        rows = {"graph": found} | controls
        print("\nQuestion or step 1? The graph, and what is cheaper:")
        print(pd.DataFrame({name: numbers(result) for name, result in rows.items()}).T.round(2))


def smollm2():
    model = ik.load_model("smollm2")
    problems = ik.lenses.sums(SUMS)
    show(ik.lenses.cot_faithfulness(model, problems), problems[0])


if __name__ == "__main__":
    for name in sys.argv[1:] or ("pocket", "smollm2"):
        with Measure() as spent:
            {"pocket": pocket, "smollm2": smollm2}[name]()
        print(f"\n{name}: {spent.cpu:.0f} seconds of processor time, {spent.wall:.0f} seconds")
