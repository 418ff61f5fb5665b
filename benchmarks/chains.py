"""How far can a chain of features be followed? What paths of each length carry, and whether the model agrees.

    python benchmarks/chains.py SET ...       ten minutes a set of SmolLM2, two of pocket; by default all sets

Sets of pocket are trained first (into build/chains, three minutes each). 30 prompts a set. In each the strongest
features of the pruned graph are switched off in the real model, one after another, and what happens to its nodes above
is compared with what the whole graph predicts; a pair counts under the length, in edges, of the paths that carry the
most of its prediction.

`amplification` is the factor, from hop to hop, of the sum of the features' absolute effects on what is explained.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import interp_kit as ik
from interp_kit.statistics import spearman
from interp_kit.text.rows import TextRows
from interp_kit.transcoders import CrossLayerTranscoder
from interp_kit.transcoders.baselines import LeastSquares
from interp_kit.transcoders.folder import save_transcoder
from interp_kit.transcoders.training.stream import ActivationStream

BUILD = Path("build/chains")
N_PROMPTS, MAX_NODES, MAX_SOURCES = 30, 100, 40  # features and errors of each graph; features switched off
RESAMPLES, N_FITTED = 200, 8_000  # tokens that a skip connection is fitted on
TRAINING = dict(n_features=1024, activation="batchtopk", k=8, steps=700)
SETS = {  # model, folder or how to train
    "pocket, cross-layer (shipped)": ("pocket", "data/pocket-transcoder"),
    "pocket, cross-layer": ("pocket", dict(kind="cross-layer")),
    "pocket, span 3": ("pocket", dict(span=3)),
    "pocket, per-layer": ("pocket", dict(kind="per-layer")),
    "pocket, per-layer with skip": ("pocket", dict(kind="per-layer", skip=True)),
    "SmolLM2, per-layer (shipped)": ("smollm2", "data/smollm2-transcoder"),
    "SmolLM2, span 6": ("smollm2", "data/smollm2-clt"),
}


def transcoder_of(name, model, source):
    if isinstance(source, str):
        return ik.load_transcoder(source)
    folder = BUILD / name.replace(", ", "-").replace(" ", "-")
    if not folder.exists():
        settings = dict(source)
        skip = settings.pop("skip", False)
        texts = [s.text for s in ik.load_world().sentences(20_000, "train")]
        run = ik.train_transcoder(model, texts, checkpoint=f"{folder}-run", **(TRAINING | settings))
        save_transcoder(with_skip(model, run.transcoder, texts[:2000]) if skip else run.transcoder, folder)
    return ik.load_transcoder(folder)


def with_skip(model, transcoder, texts):
    """The transcoder with the linear map of each MLP's input that explains the most of what it leaves (least
    squares)."""
    stream = ActivationStream(model.hf, TextRows(model, texts), transcoder.config, 2 * N_FITTED, 4e9)
    batch = next(stream.batches())
    left = batch.y - transcoder.decode(transcoder.encode_tokens(batch.x))
    halves = [LeastSquares(model.n_layers, model.d_model) for _ in range(2)]
    for sums, part in zip(halves, (slice(0, N_FITTED), slice(N_FITTED, None))):
        sums.add(batch.x[:, part], left[:, part])
    skip, bias, _ = halves[0].fit(halves[1])
    out = CrossLayerTranscoder(replace(transcoder.config, skip=True)).requires_grad_(False)
    out.load_state_dict(transcoder.state_dict() | {"W_skip": skip.float(), "b_dec": transcoder.b_dec + bias.float()})
    return out


def prompts_of(model):
    if model.name == "pocket":
        prompts = [question.prompt for question in ik.load_world().questions(held_out=True)]
    else:
        prompts = pd.read_csv("data/worlds/prompts.csv")["prompt"].tolist()
    return random.Random(0).sample(prompts, N_PROMPTS)


def measured(model, transcoder, prompt):
    """What `Validation.effects` says of the prompt's strongest nodes, and the graph's `by_hops`. Which nodes, is
    decided on the pruned graph; what is predicted, on the whole."""
    graph = ik.attribute(model, transcoder, prompt)
    drawn = graph.prune(max_nodes=MAX_NODES)
    strongest = drawn.features.nlargest(MAX_SOURCES, "influence")["id"].tolist()
    effects = ik.validate(graph, model, transcoder, nodes=strongest).effects
    effects = effects[(effects["hops"] > 0) & effects["target"].isin(drawn.nodes["id"])]
    effects = effects.assign(prompt=prompt, logit=effects["target"].isin(graph.logits["id"]))
    return effects, graph.by_hops.assign(ratio=graph.conditioning["ratio"])


def agreements(effects):
    """By hops: pairs, Spearman over all of them, and its 95 % interval when prompts are drawn anew."""
    rng, rows = np.random.default_rng(0), []
    for hops, pairs in effects.groupby("hops"):
        prompts = [part for _, part in pairs.groupby("prompt")]
        drawn = [
            pd.concat([prompts[i] for i in rng.integers(len(prompts), size=len(prompts))]) for _ in range(RESAMPLES)
        ]
        low, high = np.quantile([spearman(d["predicted"], d["measured"]) for d in drawn], [0.025, 0.975])
        rows.append((hops, len(pairs), spearman(pairs["predicted"], pairs["measured"]), low, high))
    return pd.DataFrame(rows, columns=["hops", "pairs", "spearman", "low", "high"])


def carried(chains):
    """Over the prompts the medians of `by_hops`, and the growth of `features` from hop to hop."""
    table = pd.concat(chains).groupby("hops")[["inputs", "net", "features"]].median().reset_index()
    return table.assign(amplification=table["features"] / table["features"].shift())


def main(names):
    for name in names:
        model_name, source = SETS[name]
        model = ik.load_model(model_name)
        transcoder = transcoder_of(name, model, source)
        found = [measured(model, transcoder, prompt) for prompt in prompts_of(model)]
        effects = pd.concat([pairs for pairs, _ in found], ignore_index=True)
        to_answer = effects[effects["logit"]]
        table = agreements(effects).merge(carried([chain for _, chain in found]), on="hops", how="outer")
        table = table.merge(
            agreements(to_answer)[["hops", "spearman"]], on="hops", how="left", suffixes=("", " to logits")
        )
        BUILD.mkdir(parents=True, exist_ok=True)
        table.assign(set=name).to_csv(BUILD / f"{name}.csv", index=False)
        ratio = np.median([chain["ratio"].iloc[0] for _, chain in found])
        print(f"\n{name}: {len(found)} prompts, conditioning {ratio:.3g} (median), {len(effects):,} pairs")
        print(table.round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET", help=", ".join(map(repr, SETS)))
    main(parser.parse_args().sets)
