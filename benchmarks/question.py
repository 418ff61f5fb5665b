"""What a question costs from the model to the picture, step by step, and which step costs most.

    python benchmarks/question.py              two minutes on two cores
    python benchmarks/question.py OTHER        beside another checkout of this project, in turns

The questions of `make demo`, for the pocket model and SmolLM2: attribute, annotate, prune, find paths, write the page.
Seconds of CPU, and the same as a multiple of a product of two 2,048 square matrices (`products`), measured in the same
process; peak: megabytes that the process held. On the pocket model each step is done five times and the median counts.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from common.measure import Measure
from common.peers import run

import interp_kit as ik

PROMPTS = {"pocket": "The capital of the state containing Dallas is", "smollm2": "What is the capital of Texas?"}
START = "The capital of Texas is"  # of SmolLM2's answer, up to the word that is asked for
TIMES = {"pocket": 5, "smollm2": 1}
SIZE = 2048  # of the square product


def product() -> float:
    """Seconds of CPU that the product takes."""
    a = torch.randn(SIZE, SIZE)
    a @ a
    with Measure() as measure:
        for _ in range(5):
            a @ a
    return measure.cpu / 5


def steps(name: str) -> dict:
    """CPU seconds of each step, the product's, and the peak of the process."""
    torch.set_num_threads(2)
    found, peak = {}, 0.0

    def step(what, do):
        nonlocal peak
        cpu = []
        for _ in range(TIMES[name] if what not in ("load", "features and labels") else 1):
            with Measure() as measure:
                result = do()
            cpu.append(measure.cpu)
            peak = max(peak, measure.peak)
        found[what] = statistics.median(cpu)
        return result

    model, transcoder = step("load", lambda: (ik.load_model(name), ik.load_transcoder(name)))
    prompt = model.chat(PROMPTS[name]) + START if name == "smollm2" else PROMPTS[name]
    graph = step("attribute", lambda: ik.attribute(model, transcoder, prompt))
    store, labels = step("features and labels", lambda: (ik.load_features(name), ik.load_labels(name)))
    named = step("annotate", lambda: graph.annotate(store, labels))
    pruned = step("prune", lambda: named.prune())
    step("paths", lambda: pruned.paths())
    with tempfile.TemporaryDirectory() as folder:
        step("page", lambda: named.to_html(Path(folder) / "graph.html"))
    return {"product": product(), "peak": peak, "nodes": len(graph.nodes), **found}


def main(other: str | None):
    checkouts = {"this": Path.cwd()} | ({"other": Path(other).resolve()} if other else {})
    for name in PROMPTS:
        rows = {}
        for which, folder in checkouts.items():
            found = run(sys.executable, Path(__file__).resolve(), "--steps", name, first=folder)
            rows[which, "CPU s"] = found
            rows[which, "products"] = {k: v / found["product"] for k, v in found.items() if k not in ("peak", "nodes")}
        table = pd.DataFrame(rows)
        print(f"\n{name}\n{table.to_string(float_format='{:,.3f}'.format, na_rep='')}", flush=True)
        after = [row for row in table.index if row in ("annotate", "prune", "paths", "page")]
        for which in checkouts:
            print(f"{which}: after the sweep {table.loc[after, (which, 'products')].sum():.2f} products")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--steps"]:
        print(json.dumps(steps(sys.argv[2])))
    else:
        main(*(sys.argv[1:] or [None]))
