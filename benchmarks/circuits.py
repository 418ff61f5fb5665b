"""Circuits that others find, graded beside those of attribution graphs, on pocket's tasks, where the truth is known.

    python benchmarks/circuits.py         five minutes

Each task asks for a relation (capital, currency, ...) of a city's place; the corrupted prompt asks it about a city of
another place, in as many tokens. Faithfulness by the share that is kept, MIB's CPR (larger is better) and CMD (smaller
is better). Components: edges between heads and MLPs by EAP and EAP-IG. Features: by the graph's contributions and
influence, by attribution patching, by activation. Both beside an order at random; intervals: questions are drawn anew.
"""

import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import interp_kit as ik
from interp_kit.statistics import bootstrap_interval
from interp_kit.studies.component_circuits import FRACTIONS, Components, areas, edge_faithfulness, edge_scores
from interp_kit.studies.feature_circuits import RANKINGS, feature_faithfulness
from interp_kit.studies.middle_hop import answer_token

BUILD = Path("build/circuits")
N_PAIRS = 60


def pairs_of(model, world):
    """Held-out questions in twos: one relation, two places, as many tokens, answers that begin differently."""
    alike = defaultdict(list)
    for question in world.questions(held_out=True):
        alike[question.relation, len(model.encode(question.prompt))].append(question)
    rng, pairs = random.Random(0), []
    for questions in alike.values():
        rng.shuffle(questions)
        pairs += [
            (a, b) for a, b in zip(questions[::2], questions[1::2]) if answer_token(model, a) != answer_token(model, b)
        ]
    rng.shuffle(pairs)
    return pairs[:N_PAIRS]


def of_components(model, a, b, method):
    target, contrast = answer_token(model, a), answer_token(model, b)
    components, other = (Components(model, model.encode(question.prompt)) for question in (a, b))
    clean, corrupt = components.embedded, other.embedded
    metric = torch.zeros(model.hf.config.vocab_size)
    metric[target], metric[contrast] = 1, -1
    return edge_faithfulness(
        components, clean, corrupt, metric, edge_scores(components, clean, corrupt, metric, method)
    )


def main():
    model, transcoder, world = ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_world()
    pairs, rows = pairs_of(model, world), []
    print(f"{len(pairs)} pairs of {len({a.relation for a, _ in pairs})} tasks", flush=True)
    runs = [("components", method) for method in ("EAP", "EAP-IG", "random")] + [("features", r) for r in RANKINGS]
    for what, method in runs:
        found = []
        for a, b in pairs:
            if what == "components":
                found.append(of_components(model, a, b, method))
            else:
                answers = answer_token(model, a), answer_token(model, b)
                found.append(feature_faithfulness(model, transcoder, a.prompt, b.prompt, *answers, method))
        each = [areas(one) for one in found]
        low, high = bootstrap_interval([one["CPR"] for one in each])
        means = {f"{share:g}": value for share, value in zip(FRACTIONS, np.mean(found, 0))}
        rows.append(
            {"circuit of": what, "by": method, **areas(np.array(found)), "CPR low": low, "CPR high": high} | means
        )
        BUILD.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(BUILD / "faithfulness.csv", index=False)
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    main()
