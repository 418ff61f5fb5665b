"""Which words mattered? Every method of token attribution on the same questions, tested with a mask that none of them
used.

    python benchmarks/explanations.py [pocket | smollm2 ...]

pocket: 120 questions that training never asked, "why this answer rather than that one?", where the world knows which
words decide. smollm2: 16 capitals that it knows, each against another country's, where the country decides; without
the two packages, whose versions of the prompt would take most of the time.
"""

import argparse

import pandas as pd
import torch

import interp_kit as ik
from interp_kit.lenses.words.comparison import FIRST

PROMPT = "The capital of {} is"


def pocket_questions() -> pd.DataFrame:
    return ik.load_world("geography").why_questions(120)


def capitals(model, n=16) -> pd.DataFrame:
    """Countries whose capital the model knows (first token), with the capital of the next such country for contrast."""
    world, known = ik.load_world("geography"), []
    for place in world.places:
        capital = " " + world.facts[place]["capital"]
        first = model.tokenizer.encode(capital, add_special_tokens=False)[0]
        if world.kind_of[place] == "country" and model.next_tokens(PROMPT.format(place), 1).index[0] == first:
            known.append((place, capital))
    chosen = known[:: max(1, len(known) // n)][:n]
    others = chosen[1:] + chosen[:1]
    rows = [(PROMPT.format(p), c, other, [p]) for (p, c), (_, other) in zip(chosen, others)]
    return pd.DataFrame(rows, columns=["prompt", "target", "contrast", "matters"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["pocket", "smollm2"])
    torch.set_num_threads(1)
    for name in parser.parse_args().models:
        model = ik.load_model(name)
        questions = pocket_questions() if name == "pocket" else capitals(model)
        methods = (*FIRST, "shap", "lime") if name == "pocket" else FIRST
        found = ik.compare_explanations(model, questions, methods)
        print(f"\n{name}: {found}\n\nagreement\n{found.agreement.round(2).to_string()}", flush=True)
        if "about" in questions:
            about = found.rows["question"].map(questions["about"])
            print("\ntruth by what decides")
            print(found.rows.groupby(["method", about], sort=False)["truth"].mean().unstack().round(3).to_string())


if __name__ == "__main__":
    main()
