"""Trains the transcoder of SmolLM2 that ships in data/, hours on two cores, resumable; then looks its features up.

    python -m recipes.prose sample build/smollm2/sampled.jsonl 400000
    python -m recipes.prose collect build/smollm2/prose.jsonl
    python -m recipes.smollm2 [folder]      writes to data/, or to the folder

The first two write the text that it trains on.
"""

import json
import random
import sys
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from interp_kit.features import FeatureStore, collect_features, label_features, score_labels
from interp_kit.graphs import attribute
from interp_kit.models import LanguageModel, load_model
from interp_kit.storage.shipped import data_folder
from interp_kit.transcoders import CrossLayerTranscoder, evaluate_transcoder, load_transcoder, train_transcoder
from interp_kit.transcoders.folder import save_transcoder
from interp_kit.worlds import load_world
from recipes.build import write
from recipes.cards import smollm2_features_card, smollm2_transcoder_card
from recipes.prose import held_out

TEXT = Path("build/smollm2")
CHECKPOINT = TEXT / "transcoder"
OWN_REPEATS = 5  # times that the model's own writing, scarce and dear, is read for once of the prose
# 1,248 features a layer are what 45 MB hold in int8.
TRANSCODER = {"n_features": 1248, "activation": "batchtopk", "kind": "per-layer", "k": 16}
TRAINING = {"steps": 4000, "batch": 1024, "learning_rate": 2e-3, "memory": "2GB"}
N_EVALUATION = 200  # held-out texts that the numbers are measured on
N_LOOKED_UP = {"own": 250, "prose": 250, "world": 2000}  # texts in which features are looked up ...
N_EXAMPLES = 6  # ... and examples kept of each group: more would not fit beside the transcoder


def read_texts() -> dict[str, list[str]]:
    """What the model wrote ("own"), and the "prose" of packages."""
    files = {"own": TEXT / "sampled.jsonl", "prose": TEXT / "prose.jsonl"}
    return {name: [json.loads(line)["text"] for line in path.open(encoding="utf-8")] for name, path in files.items()}


def main(folder: Path) -> None:
    """Transcoder, features and labels, with their cards, into `folder`."""
    model, texts = load_model("smollm2"), read_texts()
    kept = {name: [text for text in some if not held_out(text)] for name, some in texts.items()}
    run = train_transcoder(
        model, kept["own"] * OWN_REPEATS + kept["prose"], checkpoint=CHECKPOINT, **TRANSCODER, **TRAINING
    )
    place = folder / "smollm2-transcoder"
    save_transcoder(run.transcoder, place, torch.int8)
    transcoder = load_transcoder(place)  # the numbers are of what ships, int8 and all
    test = [text for some in texts.values() for text in some if held_out(text)]
    test = random.Random("held-out").sample(test, N_EVALUATION)
    numbers = {"trained": int(run.history["tokens"].iloc[-1]), "own": len(kept["own"]), "prose": len(kept["prose"])}
    numbers |= {"times": OWN_REPEATS} | report(model, transcoder, test)
    for name, text in (
        ("report.json", json.dumps(numbers, indent=1) + "\n"),
        ("README.md", smollm2_transcoder_card(transcoder, numbers)),
        ("training.csv", run.history.to_csv(index=False, float_format="%.4f")),
    ):
        write(place / name, text)
    store = feature_store(model, transcoder, kept)
    labels = score_labels(store, label_features(store))
    store.save(folder / "smollm2-features", labels)
    write(folder / "smollm2-features" / "README.md", smollm2_features_card(store, labels, N_LOOKED_UP, N_EXAMPLES))


def feature_store(model: LanguageModel, transcoder: CrossLayerTranscoder, texts: dict[str, list[str]]) -> FeatureStore:
    """The features in some texts of each kind, and in sentences on places, which the lessons ask about."""
    texts = texts | {"world": [sentence.text for sentence in load_world().sentences(N_LOOKED_UP["world"], "train")]}
    draw = random.Random("features")
    some = [text for name, n in N_LOOKED_UP.items() for text in draw.sample(texts[name], n)]
    return collect_features(model, transcoder, some, n_examples=N_EXAMPLES)


def report(model: LanguageModel, transcoder: CrossLayerTranscoder, texts: list[str]) -> dict:
    """Every number of the card: on held-out texts, and on the graphs of the prompts in data/worlds/prompts.csv."""
    evaluation = evaluate_transcoder(model, transcoder, texts)
    prompts = pd.read_csv(data_folder() / "worlds" / "prompts.csv")["prompt"]
    scores = pd.DataFrame([attribute(model, transcoder, prompt).scores for prompt in tqdm(prompts, desc="graphs")])
    summary = evaluation.summary
    return {
        **{name: float(summary[name]) for name in ("L0", "dead", "loss")},
        "tokens": int(summary["tokens"]),
        "baselines": evaluation.baselines.to_dict("index"),
        "layers": evaluation.layers.reset_index().to_dict("records"),
        "graphs": {
            "n_prompts": len(prompts),
            "replacement": float(scores["replacement"].mean()),
            "completeness": float(scores["completeness"].mean()),
        },
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder())
