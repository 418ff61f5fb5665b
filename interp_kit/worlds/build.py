"""Builds everything in data/ that is made rather than written: `make data`.

    python -m interp_kit.worlds.build [folder]

The pocket model (about 25 minutes on two cores), its transcoder, its feature store and the table that grades its
features. Each step resumes from its checkpoint in build/ and the same seeds give the same files on the same machine.
"""

import json
import sys
from pathlib import Path

from ..features import collect_features, label_features
from ..files import atomic_file, data_folder
from ..models import load_model
from ..transcoders import evaluate_transcoder, load_transcoder, train_transcoder
from ..transcoders.files import save_transcoder
from . import load_world
from .grading import best_concepts, place_table
from .pocket import Recipe, train_pocket, two_hop_accuracy

CHECKPOINTS = Path("build")
TRANSCODER = {"n_features": 2048, "activation": "topk", "k": 5, "steps": 2000}
TEXTS = 30_000  # sentences the transcoder trains on
EXAMPLES = 12_000  # sentences the feature store reads
GRADED = 4_000  # held-out sentences for every number reported


def main(folder: Path) -> None:
    import torch

    world = load_world("geography")
    train_pocket(world, folder / "pocket", Recipe(), CHECKPOINTS / "pocket")
    model = load_model(str(folder / "pocket"))
    model.name = "pocket"
    texts = [s.text for s in world.sentences(TEXTS, "train")]
    run = train_transcoder(model, texts, checkpoint=CHECKPOINTS / "transcoder", **TRANSCODER)
    save_transcoder(run.transcoder, folder / "pocket-transcoder", torch.float16)
    transcoder = load_transcoder(folder / "pocket-transcoder")
    places = place_table(model, transcoder, world, *graded_sentences(world))
    store = collect_features(model, transcoder, texts[:EXAMPLES], n_examples=12)
    store.features["concept"] = best_concepts(places, store.features)
    store.save(folder / "pocket-features")
    labels = label_features(store)
    with atomic_file(folder / "pocket-features" / "labels.csv") as temporary:
        labels.to_csv(temporary, index=False)
    with atomic_file(folder / "pocket-transcoder" / "places.csv") as temporary:
        places.to_csv(temporary, index=False, float_format="%.4f")
    with atomic_file(folder / "pocket-transcoder" / "report.json") as temporary:
        temporary.write_text(json.dumps(report(model, transcoder, world, places), indent=1) + "\n")


def graded_sentences(world):
    """(to choose each place's feature on, to grade it on): no sentence is in both, nor in the training texts."""
    return world.sentences(2 * GRADED, "train", seed=1), world.sentences(GRADED, "test")


def report(model, transcoder, world, places) -> dict:
    """Every number that README and model card quote, as measured on held-out sentences and questions."""
    questions = world.questions(held_out=True)
    right = two_hop_accuracy(model, questions)
    held_out = [s.text for s in world.sentences(GRADED, "test")]
    summary = evaluate_transcoder(model, transcoder, held_out).summary
    return {
        "held-out two-hop questions": len(questions),
        "held-out two-hop accuracy": sum(right) / len(right),
        "transcoder": {name: float(value) for name, value in summary.items()},
        "places with a feature of F1 >= 0.9": float((places["F1"] >= 0.9).mean()),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder())
