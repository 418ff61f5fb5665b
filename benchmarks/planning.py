"""What `plan_training` predicts beside what training takes, and the README's table of larger models.

    python benchmarks/planning.py           about a minute on one core

Each run is a process of its own with one thread, so that its CPU time does not depend on what else the machine does
(but for memory's bandwidth, which is shared, and measured just before). Memory is what training adds to the process's
peak. A step of training before it has loaded the libraries and filled what they keep.
The table's models are their published sizes; no weights are loaded.
"""

import json
import os
import subprocess
import sys

import pandas as pd
import torch
from common.measure import Measure
from transformers import Gemma2Config, GPT2Config, LlamaConfig

import interp_kit as ik
from interp_kit.transcoders.planning import this_machine

RUNS = {
    "pocket, cross-layer": ("pocket", {"n_features": 1024, "memory": "240MB"}, {}, 100, 1),
    "pocket, per-layer": ("pocket", {"n_features": 1024, "memory": "240MB"}, {"span": 1}, 100, 1),
    "pocket, JumpReLU": ("pocket", {"n_features": 1024, "memory": "120MB", "activation": "jumprelu"}, {}, 50, 1),
    "SmolLM2, per-layer": ("smollm2", {"n_features": 1280, "k": 16, "memory": "290MB"}, {"span": 1}, 8, 40),
}  # name: model, what both take, what only planning calls so, steps of 1,024 tokens, sentences a text
DEVICES = ("1 x T4", "1 x A100-80GB", "8 x H100")
LARGER = {
    "GPT-2": (24_576, GPT2Config()),
    "Gemma-2-2B": (16_384, Gemma2Config()),  # whose defaults are the 2B's sizes
    "Llama-3.1-8B": (
        32_768,
        LlamaConfig(
            vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
            num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131_072,
        ),
    ),
}  # fmt: skip


def measured(name):
    which, both, planned, steps, together = RUNS[name]
    model = ik.load_model(which)
    sentences = [s.text for s in ik.load_world().sentences(40 * together + 150 * steps, "train")]
    texts = [" ".join(sentences[i : i + together]) for i in range(0, len(sentences), together)]
    plan = ik.plan_training(model, **both, **planned, tokens=steps * 1024, devices="cpu")
    torch.set_num_threads(1)
    kind = "per-layer" if planned.get("span") == 1 else "cross-layer"
    ik.train_transcoder(model, texts[:100], 16, steps=1, batch=64, dtype=model.dtype)
    with Measure() as measure:
        ik.train_transcoder(model, texts, **both, kind=kind, steps=steps)
    predicted, numbers = plan.table.iloc[0], measure.numbers
    seconds, size = predicted["hours"] * 3600, predicted["GB a device"] * 1e9 / 2**20
    machine = this_machine()
    rates = {"TFLOP/s": machine.bfloat16, "float32": machine.float32, "GB/s": machine.bandwidth}
    return {"run": name} | rates | {"CPU s predicted": seconds, "measured": numbers["cpu"], "ratio": seconds / numbers["cpu"],
            "MB predicted": size, "MB measured": numbers["extra"], "ratio of MB": size / numbers["extra"]}  # fmt: skip


def run(name):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, __file__, name], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def larger(tokens=300e6):
    """The README's table, as Markdown: hours (GB a device; how the work is shared), for each kind and device."""
    print(f"| {tokens / 1e6:.0f} M tokens | features a layer | parameters | " + " | ".join(DEVICES) + " |")
    print("|---|---|---|" + "---|" * len(DEVICES))
    for name, (n_features, config) in LARGER.items():
        for kind, span in (("cross-layer", None), ("per-layer", 1)):
            plan = ik.plan_training(config, n_features, span, tokens, DEVICES)
            cells = " | ".join(map(cell, plan.table.itertuples(index=False, name=None)))
            print(f"| {name}, {kind} | {n_features:,} | {plan.summary['parameters'] / 1e9:.2f} B | {cells} |")


def cell(row):
    _, split, size, hours, bound = row
    return f"no ({size:,.0f} GB)" if split == "does not fit" else f"{hours:,.1f} h ({size:.0f} GB, {split}; {bound})"


def main():
    table = pd.DataFrame([run(name) for name in RUNS])
    print(table.to_string(index=False, float_format="{:.3g}".format))
    print()
    larger()


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1]))) if len(sys.argv) == 2 else main()
