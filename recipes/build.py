"""Builds everything in data/ that is made rather than written: `make data`.

    python -m recipes.build [folder]      writes to data/, or to the folder

The pocket model (about 17 minutes on two cores), its transcoder, its feature store with labels, and the table of
which concepts are recovered. Each training resumes from its checkpoint in build/, and the same seeds give the same
files on the same machine. The fact tables (`recipes.tables`) and what belongs to SmolLM2 (`recipes.smollm2`) are made
apart.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from interp_kit.features import (
    Dictionary,
    FeatureStore,
    Neurons,
    RandomDirections,
    collect_features,
    label_features,
    score_labels,
)
from interp_kit.graphs import attribute
from interp_kit.models import LanguageModel, load_model
from interp_kit.storage.atomic import always, atomic_file
from interp_kit.storage.shipped import data_folder
from interp_kit.studies.recovery import Recovery, recover_concepts
from interp_kit.studies.two_hop import two_hop_accuracy
from interp_kit.transcoders import CrossLayerTranscoder, evaluate_transcoder, load_transcoder, train_transcoder
from interp_kit.transcoders.folder import save_transcoder
from interp_kit.widgets import graph_svg
from interp_kit.worlds import Geography, Sentence, load_world
from interp_kit.worlds.truth import says
from recipes.cards import model_card, transcoder_card
from recipes.pocket import Recipe, train_pocket

CHECKPOINTS = Path("build")
PROMPT = "The capital of the state containing Dallas is"
TRANSCODER = {"n_features": 2560, "activation": "batchtopk", "k": 6, "steps": 1500}
N_TRAINING = 30_000  # sentences the transcoder trains on
N_DENSITY = 12_000  # of them, to find the features that never fire
N_EXAMPLES = 16  # kept a feature and group
MIN_DENSITY = 3e-5  # a feature that fires more rarely, per token, is dropped as dead
N_CHOOSING, N_GRADING = 8_000, 8_000  # sentences to choose each concept's feature on; to grade it on, beside held-out
N_EVALUATION = 10_000  # and those for the transcoder; many, since a city is rare and so is its feature


def main(folder: Path) -> None:
    """Everything, into `folder`."""
    world, recipe = load_world("geography"), Recipe()
    train_pocket(world, folder / "pocket", recipe, CHECKPOINTS / "pocket")
    model = load_model(folder / "pocket")
    model.name = "pocket"
    texts = [s.text for s in world.sentences(N_TRAINING, "train")]
    run = train_transcoder(model, texts, checkpoint=CHECKPOINTS / "transcoder", **TRANSCODER)
    clt = without_dead(model, run.transcoder, texts[:N_DENSITY])
    save_transcoder(clt, folder / "pocket-transcoder", torch.float16)
    transcoder = load_transcoder(folder / "pocket-transcoder")
    recovery = recover_concepts(model, dictionaries(model, transcoder, texts), *graded_sentences(world))
    store = collect_features(model, transcoder, texts, n_examples=N_EXAMPLES).join(truth(recovery))
    labels = score_labels(store, label_features(store))
    store.save(folder / "pocket-features", labels)
    write(folder / "pocket" / "tour.svg", picture(model, transcoder, store, labels))
    numbers = report(model, transcoder, world, recovery) | {"labels": named_rightly(store, labels)}
    write(folder / "pocket" / "README.md", model_card(model, world, recipe, numbers))
    write(folder / "pocket-transcoder" / "README.md", transcoder_card(transcoder, world, numbers, MIN_DENSITY))
    write(folder / "pocket-transcoder" / "concepts.csv", recovery.table.to_csv(index=False, float_format="%.4f"))
    write(folder / "pocket-transcoder" / "report.json", json.dumps(numbers, indent=1) + "\n")


def without_dead(model: LanguageModel, transcoder: CrossLayerTranscoder, texts: list[str]) -> CrossLayerTranscoder:
    """The transcoder with the features that fire on the texts it was trained on."""
    density = evaluate_transcoder(model, transcoder, texts).density
    return transcoder.keep_features([(d > MIN_DENSITY).nonzero()[:, 0] for d in density])


def dictionaries(
    model: LanguageModel, transcoder: CrossLayerTranscoder, texts: list[str]
) -> dict[str, Dictionary | CrossLayerTranscoder]:
    """What the transcoder's features are compared with: a per-layer transcoder trained alike, the model's neurons, and
    as many random directions."""
    run = train_transcoder(model, texts, kind="per-layer", checkpoint=CHECKPOINTS / "per-layer", **TRANSCODER)
    return {
        "cross-layer": transcoder,
        "per-layer": without_dead(model, run.transcoder, texts[:N_DENSITY]),
        "neurons": Neurons(model),
        "random": RandomDirections(model, transcoder.n_features),
    }


def truth(recovery: Recovery) -> pd.DataFrame:
    """For every feature that detects a concept (F1 >= 0.8): which, and how well."""
    mine = recovery.detectors[recovery.detectors["dictionary"] == "cross-layer"]
    return mine[["layer", "feature", "concept", "F1"]]


def named_rightly(store: FeatureStore, labels: pd.DataFrame) -> dict[str, float]:
    """Of the features that detect a concept, the share whose label, made without an LLM, names it."""
    both = labels.merge(store.features.dropna(subset="concept")[["layer", "feature", "concept"]])
    rightly = sum(says(label, concept) for label, concept in zip(both["label"], both["concept"]))
    return {"features that detect a concept": len(both), "labelled with its name": rightly / len(both)}


def picture(model: LanguageModel, transcoder: CrossLayerTranscoder, store: FeatureStore, labels: pd.DataFrame) -> str:
    """The README's picture: the graph of the question that everybody asks."""
    graph = attribute(model, transcoder, PROMPT).annotate(store, labels)
    return graph_svg(graph.prune(0.7).view_data(), threshold=0.7)


def write(path: Path, text: str) -> None:
    """All of the file, or none."""
    with atomic_file(path, always) as temporary:
        temporary.write_text(text, encoding="utf-8")


def graded_sentences(world: Geography) -> tuple[list[Sentence], list[Sentence]]:
    """(to choose each concept's feature on, to grade it on). None of those graded on is among the others or was read by
    the transcoder. Held-out sentences alone would not do: they lack a third of the cities, and a feature that fires on
    one of those as well would pass for a detector of the other."""
    chosen = world.sentences(N_CHOOSING, "train", seed=1)
    seen = {sentence.text for sentence in chosen + world.sentences(N_TRAINING, "train")}
    fresh = (sentence for sentence in world.sentences(4 * N_GRADING, "train", seed=2) if sentence.text not in seen)
    held_out = {sentence.text: sentence for sentence in world.sentences(N_GRADING, "test")}
    return chosen, [*islice(fresh, N_GRADING), *held_out.values()]


def report(model: LanguageModel, transcoder: CrossLayerTranscoder, world: Geography, recovery: Recovery) -> dict:
    """Every number that README and model card quote, as measured on held-out sentences and questions."""
    table = recovery.table
    places = table[(table["dictionary"] == "cross-layer") & (table["kind"] == "place")]
    questions = world.questions(held_out=True)
    right = two_hop_accuracy(model, questions)
    held_out = [s.text for s in world.sentences(N_EVALUATION, "test")]
    summary = evaluate_transcoder(model, transcoder, held_out).summary
    return {
        "held-out two-hop questions": len(questions),
        "held-out two-hop accuracy": sum(right) / len(right),
        "transcoder": {name: float(value) for name, value in summary.items()},
        "places with a feature of F1 >= 0.9": float((places["F1"] >= 0.9).mean()),
        "recovered": recovery.summary["recovered"].unstack("kind").to_dict("index"),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder())
