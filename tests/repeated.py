"""One of everything that draws at random or adds up numbers, in its own process: repeated.py FOLDER THREADS DEVICE.

Writes to FOLDER what came out, as arrays (results.npz) and files; test_determinism.py compares two such folders.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import interp_kit as ik

PROMPT = "The capital of the state containing Dallas is"


def results(folder: Path, device: str) -> dict[str, np.ndarray]:
    """By name of the function, the numbers that it gave."""
    model, transcoder = ik.load_model("pocket"), ik.load_transcoder("pocket")
    model.hf.to(device)
    texts = [sentence.text for sentence in ik.load_world().sentences(300, "train", seed=3)]
    run = ik.train_transcoder(model, texts, 64, steps=15, batch=256, seed=5, progress=False)
    run.transcoder.save(folder / "transcoder")
    store = ik.collect_features(model, transcoder, texts[:60], seed=2)
    labels = ik.label_features(store)
    store.save(folder / "store", labels)
    scores = ik.score_labels(store, labels, seed=1)
    graph = ik.attribute(model, transcoder, PROMPT)
    graph.prune().to_html(folder / "graph.html")
    graph.save(folder / "graph.json")
    off = ik.intervene(model, transcoder, PROMPT, ik.Steer(graph.features["id"].iloc[0], factor=0))
    found = {
        "train_transcoder": run.transcoder.W_enc,
        "evaluate_transcoder": ik.evaluate_transcoder(model, transcoder, texts[:20]).summary,
        "attribute": graph.adjacency,
        "intervene": off.table.select_dtypes("number"),
        "validate": ik.validate(graph.prune(0.3), model, transcoder).effects.select_dtypes("number"),
        "score_labels": scores.select_dtypes("number"),
        "explain_tokens": ik.lenses.explain_tokens(model, PROMPT, method="shapley", seed=7).values,
        "calibration": ik.lenses.calibration(model, texts[:20]).table.select_dtypes("number"),
        "logits": model.logits(PROMPT),
    }
    found = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in found.items()}
    return {name: np.asarray(value, dtype=float) for name, value in found.items()}


if __name__ == "__main__":
    folder, threads, device = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    np.savez(folder / "results.npz", **results(folder, device))
