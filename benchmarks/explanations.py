"""Which words mattered? Every method of token attribution on the same questions, tested with a mask that none of them
used.

    python benchmarks/explanations.py [pocket | smollm2 | speed ...]

pocket: 120 questions that training never asked, "why this answer rather than that one?", where the world knows which
words decide. smollm2: 16 capitals that it knows, each against another country's, where the country decides; without
the two packages, whose versions of the prompt would take most of the time. speed: one prompt of SmolLM2, the same
values by captum's own class for language models, which reads one version of the prompt at a time, and ours, which
reads many.
"""

import argparse
import time

import pandas as pd
import torch

import interp_kit as ik
from interp_kit.lenses.tokens.comparison import DEFAULT_METHODS

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


def speed():
    """CPU time of captum's LLMAttribution over ours, and by how much the values differ, relative to the largest."""
    from captum.attr import FeatureAblation, LLMAttribution, ShapleyValueSampling, TextTokenInput

    model, rows = ik.load_model("smollm2"), []
    prompt, target = "Fact: the capital of the state containing Chicago is", " Chicago"
    first = int(model.encode(prompt)[0])  # captum is given the special token that we put first, and keeps it too
    tokens = TextTokenInput(
        model.decode(model.encode(prompt)), model.tokenizer, baselines=model.token_id(" "), skip_tokens=[first]
    )
    answer = torch.tensor([model.token_id(target)])
    methods = {
        "occlusion": (FeatureAblation, {}, {}),
        "shapley": (ShapleyValueSampling, {"n_samples": 10}, {"samples": 10}),
    }
    for name, (method, their_options, our_options) in methods.items():
        captums = LLMAttribution(method(model.hf), model.tokenizer)
        torch.manual_seed(0)
        theirs, their_time = timed(lambda c=captums, o=their_options: c.attribute(tokens, target=answer, **o))
        ours, our_time = timed(
            lambda m=name, o=our_options: ik.lenses.explain_tokens(model, prompt, target, method=m, seed=0, **o)
        )
        expected = theirs.seq_attr.float()
        off = float((torch.tensor(ours.values) - expected).abs().max() / expected.abs().max())
        rows.append((name, their_time / our_time, ours.forwards, off))
    columns = ["method", "captum's CPU time / ours", "forwards", "values differ by"]
    print(f"\n{pd.DataFrame(rows, columns=columns).to_string(index=False)}")


def timed(work):
    start = time.process_time()
    return work(), time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["pocket", "smollm2", "speed"])
    torch.set_num_threads(1)
    for name in parser.parse_args().models:
        if name == "speed":
            speed()
            continue
        model = ik.load_model(name)
        questions = pocket_questions() if name == "pocket" else capitals(model)
        methods = (*DEFAULT_METHODS, "shap", "lime") if name == "pocket" else DEFAULT_METHODS
        found = ik.lenses.compare_explanations(model, questions, methods)
        print(f"\n{name}: {found}\n\nagreement\n{found.agreement.round(2).to_string()}", flush=True)
        if "about" in questions:
            about = found.rows["question"].map(questions["about"])
            print("\ntruth by what decides")
            print(found.rows.groupby(["method", about], sort=False)["truth"].mean().unstack().round(3).to_string())


if __name__ == "__main__":
    main()
