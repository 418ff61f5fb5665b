"""What `plan_training` predicts beside what training takes, and the README's table of larger models.

    python benchmarks/planning.py           three minutes on one core

Each run is a process of its own with one thread, and its CPU time is compared: that depends little on what else the
machine does. What the machine can do is measured before and after each run, and the best counts. Memory is what
training adds to the process at its peak; a step of training before it has loaded the libraries. The table's models are
their published sizes; no weights are loaded.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from unittest.mock import patch

import pandas as pd
from common.measure import Measure
from transformers import Gemma2Config, GPT2Config, LlamaConfig

import interp_kit as ik
from interp_kit.transcoders.training import planning

RUNS = {
    "pocket, cross-layer": ("pocket", {"n_features": 1024, "memory": "240MB"}, "cross-layer", 100, 1),
    "pocket, per-layer": ("pocket", {"n_features": 1024, "memory": "240MB"}, "per-layer", 100, 1),
    "pocket, JumpReLU": ("pocket", {"n_features": 1024, "activation": "jumprelu"}, "cross-layer", 50, 1),
    "SmolLM2, per-layer": ("smollm2", {"n_features": 1280, "k": 16, "memory": "290MB"}, "per-layer", 8, 40),
}  # name: model, options, kind, steps of 1,024 tokens, sentences a text
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
    which, options, kind, steps, together = RUNS[name]
    model = ik.load_model(which)
    sentences = [s.text for s in ik.load_world().sentences(40 * together + 150 * steps, "train")]
    texts = [" ".join(sentences[i : i + together]) for i in range(0, len(sentences), together)]
    ik.train_transcoder(model, texts[:100], 16, steps=1, batch=64, dtype=model.dtype)
    before = asdict(planning.this_machine())
    with Measure() as measure:
        ik.train_transcoder(model, texts, **options, kind=kind, steps=steps)
    planning.this_machine.cache_clear()
    after = asdict(planning.this_machine())
    return measure.numbers, {name: max(rate, after[name]) for name, rate in before.items()}


def run(name):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, __file__, name], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def compared(name, numbers):
    which, options, kind, steps, _ = RUNS[name]
    span = 1 if kind == "per-layer" else None
    plan = ik.plan_training(ik.load_model(which), span=span, tokens=1024 * steps, devices="cpu", **options)
    seconds, size = plan.table["hours"][0] * 3600, plan.table["GB a device"][0] * 1e9 / 2**20
    row = {"run": name, "CPU s": numbers["cpu"], "predicted s": seconds, "ratio": seconds / numbers["cpu"]}
    return row | {"MB": numbers["extra"], "predicted MB": size, "ratio of MB": size / numbers["extra"]}


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
    numbers, rates = zip(*map(run, RUNS))
    machine = planning.Device(**{name: max(rate[name] for rate in rates) for name in rates[0]})
    print(f"The best rates of {2 * len(rates)} measurements: {machine}\n")
    with patch.object(planning, "this_machine", lambda: machine):
        table = pd.DataFrame(map(compared, RUNS, numbers))
    print(table.to_string(index=False, float_format="{:.3g}".format))
    print()
    larger()


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1]))) if len(sys.argv) == 2 else main()
