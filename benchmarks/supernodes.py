"""Do automatic supernodes find the concepts? On pocket, whose features' concepts are known.

    python benchmarks/supernodes.py         two minutes

100 held-out questions, each graph pruned to 90 % of the influence. Truth: features of one concept at one position.
Scored by the adjusted Rand index over the features whose concept is known (1: the same groups, 0: as good as by
chance), for `graph.group("auto")` with and without the transcoder, grouping by equal label, by position alone, and at
random. The least likeness that makes a group was chosen on questions that the model was trained on.
"""

import random

import numpy as np
import pandas as pd

import interp_kit as ik
from interp_kit.statistics import adjusted_rand, bootstrap_interval

N_QUESTIONS = 100


def group_of(graph, by):
    """For each feature the number of its group; those alone have groups of their own."""
    numbers = {node: i for i, node in enumerate(graph.features["id"])}
    group = np.arange(len(numbers))
    for ids in by.values():
        group[[numbers[i] for i in ids]] = numbers[ids[0]]
    return group


def main():
    model, transcoder = ik.load_model("pocket"), ik.load_transcoder("pocket")
    features, labels = ik.load_features("pocket"), ik.load_labels("pocket")
    concept = features.features.dropna(subset=["concept"]).set_index(["layer", "feature"])["concept"]
    questions = ik.load_world().questions(held_out=True)
    random.Random(0).shuffle(questions)
    rng, rows, boxes = np.random.default_rng(0), [], []
    for question in questions[:N_QUESTIONS]:
        whole = ik.attribute(model, transcoder, question.prompt).annotate(features, labels)
        graph = whole.prune(0.9)
        nodes = graph.features
        truth = [
            (concept.get(place[:2]), place[2]) for place in zip(nodes["layer"], nodes["feature"], nodes["position"])
        ]
        known = np.array([name is not None for name, _ in truth])
        grouped = graph.group("auto", transcoder)
        by = {
            "auto": group_of(graph, grouped.supernodes),
            "auto, without the transcoder": group_of(graph, graph.group("auto").supernodes),
            "equal label": pd.factorize(pd.Series(list(zip(nodes["label"], nodes["position"]))))[0],
            "position": nodes["position"].to_numpy(),
        }
        by["at random, groups of auto's sizes"] = rng.permutation(by["auto"])
        wanted = pd.factorize(pd.Series(truth))[0][known]
        if len(set(wanted)) > 1:
            rows.append({name: adjusted_rand(wanted, group[known]) for name, group in by.items()})
        boxes.append(
            (
                len(nodes),
                len(set(by["auto"])),
                grouped.scores["replacement"],
                whole.group(grouped.supernodes).grouped_scores["replacement"],
            )
        )
    table = pd.DataFrame(rows)
    print(f"{len(table)} questions with features of more than one concept")
    for name in table:
        low, high = bootstrap_interval(table[name])
        print(f"{name:40} ARI {table[name].mean():.3f} ({low:.3f} to {high:.3f})")
    print(
        "means: features {:.1f}, boxes {:.1f}, replacement score {:.3f}, of supernodes alone {:.3f}".format(
            *np.mean(boxes, 0)
        )
    )


if __name__ == "__main__":
    main()
