"""Do transcoders skip the middle hop? Of what a city contributes to the answer, how much passes features of its place.

    python benchmarks/middle_hop.py [SET ...]      two to five minutes a set; those that do not ship are trained first

On pocket's held-out two-hop questions. Beside it what the model itself does: the stream at the city replaced by the
mean over other cities of the same place, or of other places (`ik.studies.hop_in_model`). The sets differ in what
might help: a span that reaches less far, per-layer features, which reach nowhere, and fewer features on.
"""

import argparse
import random
from pathlib import Path

import pandas as pd
from chains import SETS as TRAINED
from chains import transcoder_of

import interp_kit as ik
from interp_kit.statistics import bootstrap_interval
from interp_kit.studies.recovery import recover_concepts
from recipes.build import graded_sentences

BUILD = Path("build/middle_hop")
N_QUESTIONS, N_SENTENCES = 100, 4000
POCKET = {name: source for name, (model, source) in TRAINED.items() if model == "pocket"}
SETS = POCKET | {
    "pocket, span 2": dict(span=2),
    "pocket, cross-layer, k 4": dict(kind="cross-layer", k=4),
    "pocket, cross-layer, k 16": dict(kind="cross-layer", k=16),
    "pocket, per-layer, k 4": dict(kind="per-layer", k=4),
    "pocket, per-layer, k 16": dict(kind="per-layer", k=16),
}


def main(names):
    model, world = ik.load_model("pocket"), ik.load_world()
    questions = world.questions(held_out=True)
    random.Random(0).shuffle(questions)
    questions = questions[:N_QUESTIONS]
    print("The model: share of the place's mean, by layer (median)")
    print(ik.studies.hop_in_model(model, world, questions).groupby("layer")["share"].median().round(3).to_string())
    choosing, grading = (sentences[:N_SENTENCES] for sentences in graded_sentences(world))
    held_out = [s.text for s in world.sentences(2000, "test")]
    for name in names:
        transcoder = transcoder_of(name, model, SETS[name])
        recovery = recover_concepts(model, {name: transcoder}, choosing, grading, kinds=("place",))
        hops = ik.studies.middle_hop(model, transcoder, world, questions, recovery.detectors)
        quality = ik.evaluate_transcoder(model, transcoder, held_out, baselines=False).summary
        low, high = bootstrap_interval(hops["share"])
        row = {
            "set": name, "L0": quality["L0"], "NMSE": quality["NMSE"], "top-1": quality["top-1"],
            "places found": (recovery.table["F1"] >= 0.8).mean(), "features of the place": hops["features"].mean(),
            "share": hops["share"].median(), "mean": hops["share"].mean(), "low": low, "high": high,
        }  # fmt: skip
        file = BUILD / "shares.csv"  # of all sets so far
        known = pd.read_csv(file).query("set != @name") if file.exists() else pd.DataFrame()
        BUILD.mkdir(parents=True, exist_ok=True)
        pd.concat([known, pd.DataFrame([row])]).to_csv(file, index=False)
        print(pd.DataFrame([row]).round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET", help=", ".join(map(repr, SETS)))
    main(parser.parse_args().sets)
