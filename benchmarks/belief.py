"""Which edges should one believe? The belief in edges, graded by interventions that it was not made from.

    python benchmarks/belief.py            a quarter of an hour: 100 questions of pocket, 30 prompts of SmolLM2
    python benchmarks/belief.py tune       how the table in interp_kit/graphs/belief.py was made: other questions,
    prompts

The strongest features of each graph are switched off in the real model. An edge is confirmed where its target moves the
right way, half to twice as much as the graph predicts. Beside each class of edges stand edges of the same graphs
between the same layers, at random and of equal size; intervals: graphs are drawn anew. Consensus is over twelve pairs
of pruning thresholds, and for pocket over another wording of the question.
"""

import random
import sys

import numpy as np
import pandas as pd

import interp_kit as ik
from interp_kit.graphs import belief
from interp_kit.graphs.influence import shares
from interp_kit.graphs.validation import confirmed
from interp_kit.worlds.geography import TWO_HOP

N_SOURCES = {"pocket": 40, "smollm2": 20}  # features that are switched off in each graph
SETS = {"pocket": "data/pocket-transcoder", "smollm2": "data/smollm2-transcoder", "smollm2, span 6": "data/smollm2-clt"}


def prompts_of(name, tune):
    """Prompts, each with its paraphrases: one of pocket's questions, none of SmolLM2's prompts."""
    if name == "pocket":
        asked = [
            ik.load_world().questions(held_out=not tune, template=template) for template in (TWO_HOP[0], TWO_HOP[3])
        ]
        pairs = [[question.prompt for question in pair] for pair in zip(*asked)]
        return random.Random(1 if tune else 0).sample(pairs, 60 if tune else 100)
    prompts = pd.read_csv("data/worlds/prompts.csv")["prompt"].tolist()
    graded = random.Random(0).sample(prompts, 30)
    return [[prompt] for prompt in prompts if (prompt not in graded) == tune]


def graphs_of(name, tune=False):
    """Model, transcoder, and for each prompt its graph and those of its paraphrases, which explain the same token."""
    model, transcoder = ik.load_model(name.split(",")[0]), ik.load_transcoder(SETS[name])

    def graphs():
        for prompt, *others in prompts_of(name, tune):
            target = int(model.next_tokens(prompt, 1).index[0])
            yield [ik.attribute(model, transcoder, text, target if others else None) for text in (prompt, *others)]

    return model, transcoder, graphs()


def tune():
    """The share of edges that are confirmed, by the rows and columns of the table; the mean of the two models."""
    tables = []
    for name in ("pocket", "smollm2"):
        model, transcoder, graphs = graphs_of(name, tune=True)
        hits, totals = np.zeros((2, len(belief.CONFIRMED), len(belief.SHARES) + 1))
        for graph, *_ in graphs:
            strongest = graph.features.nlargest(N_SOURCES[name], "influence")["id"].tolist()
            effects = ik.validate(graph, model, transcoder, nodes=strongest).effects
            effects = effects[effects["direct"] != 0]
            rows = np.flatnonzero(np.isin(graph.kinds, ("feature", "logit")))
            at = {node: i for i, node in enumerate(graph.nodes["id"].to_numpy()[rows])}
            ends = effects["target"].map(at), effects["source"].map(at)
            column = np.digitize(shares(graph.adjacency)[np.ix_(rows, rows)][ends], belief.SHARES)
            around = belief.disagreement(graph.adjacency[np.ix_(rows, rows)], belief.over_all_paths(graph, rows))
            place = around[ends], column
            np.add.at(totals, place, 1)
            np.add.at(hits, place, confirmed(effects).to_numpy(float))
        tables.append(hits / np.where(totals > 0, totals, np.nan))
        print(name, "edges", totals.astype(int).tolist(), "\n", tables[-1].round(2), flush=True)
    print("mean of those that have such edges\n", np.nanmean(tables, 0).round(2))


def grade():
    pd.set_option("display.width", 220, "display.max_columns", 20)
    for name in SETS:
        model, transcoder, graphs = graphs_of(name)
        graded = ik.graphs.grade_edges(
            model, transcoder, (graph.believe(*others) for graph, *others in graphs), N_SOURCES[name.split(",")[0]]
        )
        print(f"\n{name}: {graded.edges['graph'].nunique()} prompts, {len(graded.edges):,} edges")
        for table in (graded.by_belief, graded.by_consensus):
            print(table.round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    tune() if sys.argv[1:] == ["tune"] else grade()
