"""What long functions say they need of memory beside what they take, and a plot of both.

    python benchmarks/memory.py             ten minutes; build/memory.png

Each line is a process of its own with one thread. `before` is what it holds before the call; the system is then told to
forget the peak so far, and tells the new one afterwards. The estimate is the one that the function itself compares with
what is free, and logs.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from transformers import LlamaConfig, LlamaForCausalLM

import interp_kit as ik

QUESTION = (  # the demo's, 42 tokens
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of Texas?<|im_end|>\n<|im_start|>assistant\nThe capital of Texas is"
)
SHORT = "The capital of France is"
MIDDLE = "The Eiffel Tower stands in the capital of France, and the Colosseum stands in the capital of"


def sentences(n):
    return [s.text for s in ik.load_world().sentences(n, "train")]


def texts(n, together):
    found = sentences(n * together)
    return [" ".join(found[i : i + together]) for i in range(0, len(found), together)]


# ---------------------------------------------------------------- what is measured: by function and size, a function
# that makes all ready and returns the call


def load_model(name, dtype):
    def ready():
        import torch

        return lambda: ik.load_model(name, getattr(torch, dtype))

    return ready


def load_middle():
    """A model of 60 million weights; the process that saves it is another."""
    folder = Path(tempfile.gettempdir()) / "interp_kit-middle"
    if not (folder / "config.json").exists():
        save = "import sys; sys.path.insert(0, sys.argv[1]); import memory; memory.save_middle(sys.argv[2])"
        subprocess.run([sys.executable, "-c", save, str(Path(__file__).parent), str(folder)], check=True)
    return lambda: ik.load_model(folder)


def save_middle(folder):
    config = LlamaConfig(
        vocab_size=1000, hidden_size=768, intermediate_size=3072, num_hidden_layers=6, num_attention_heads=12
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    ik.load_model("pocket").tokenizer.save_pretrained(folder)


def attribute(name, prompt, **options):
    def ready():
        model, clt = ik.load_model(name), ik.load_transcoder(name)
        return lambda: ik.attribute(model, clt, prompt, **options)

    return ready


def to_html(name, prompt, **options):
    def ready():
        import gc

        graph = ik.attribute(ik.load_model(name), ik.load_transcoder(name), prompt, **options)
        gc.collect()
        return lambda: graph.to_html(Path(tempfile.mkdtemp()) / "graph.html")

    return ready


def train(name, together, steps, **options):
    def ready():
        model = ik.load_model(name)
        some = texts(3000 // together, together)
        ik.train_transcoder(model, some[:200], 16, steps=1, batch=64)
        return lambda: ik.train_transcoder(model, some, steps=steps, **options)

    return ready


def collect(name, n, dictionary=None, **options):
    def ready():
        model = ik.load_model(name)
        features = ik.features.Neurons(model) if dictionary == "neurons" else ik.load_transcoder(name)
        some = sentences(n)
        return lambda: ik.collect_features(model, features, some, **options)

    return ready


def evaluate(name, n, **options):
    def ready():
        model, clt, some = ik.load_model(name), ik.load_transcoder(name), sentences(n)
        return lambda: ik.evaluate_transcoder(model, clt, some, **options)

    return ready


def explain(name, prompt, **options):
    def ready():
        model = ik.load_model(name)
        model.next_tokens(prompt)
        return lambda: ik.lenses.explain_tokens(model, prompt, **options)

    return ready


POCKET = "The capital of the state containing Dallas is"
CASES = {
    "load": {
        "pocket": load_model("pocket", "float32"), "60 M weights": load_middle,
        "SmolLM2": load_model("smollm2", "float32"), "SmolLM2, bfloat16": load_model("smollm2", "bfloat16"),
    },
    "attribute": {
        "pocket": attribute("pocket", POCKET), "SmolLM2, 5 tokens": attribute("smollm2", SHORT),
        "SmolLM2, 21 tokens": attribute("smollm2", MIDDLE),
        "SmolLM2, 42 tokens": attribute("smollm2", QUESTION),
        "SmolLM2, 42 tokens, all features": attribute("smollm2", QUESTION, max_features=None),
        "SmolLM2, 42 tokens, 1,000 features": attribute("smollm2", QUESTION, max_features=1000),
    },
    "to_html": {
        "pocket": to_html("pocket", POCKET), "SmolLM2, 5 tokens": to_html("smollm2", SHORT),
        "SmolLM2, 21 tokens": to_html("smollm2", MIDDLE),
    },
    "train": {
        "pocket, per-layer": train("pocket", 1, 30, n_features=1024, kind="per-layer"),
        "pocket, cross-layer": train("pocket", 1, 30, n_features=1024),
        "pocket, JumpReLU": train("pocket", 1, 10, n_features=1024, activation="jumprelu"),
        "SmolLM2, per-layer": train("smollm2", 30, 3, n_features=1280, kind="per-layer", k=16),
    },
    "collect": {
        "pocket": collect("pocket", 3000), "pocket, neurons": collect("pocket", 3000, "neurons"),
        "SmolLM2": collect("smollm2", 300),
    },
    "evaluate": {
        "pocket": evaluate("pocket", 2000), "SmolLM2": evaluate("smollm2", 100),
        "SmolLM2, without baselines": evaluate("smollm2", 100, baselines=False),
    },
    "explain_tokens": {
        "pocket, shapley": explain("pocket", POCKET), "SmolLM2, shapley": explain("smollm2", MIDDLE),
        "SmolLM2, gradients": explain("smollm2", MIDDLE, method="integrated_gradients", max_steps=64),
        "SmolLM2, 42 tokens, gradients": explain("smollm2", QUESTION, method="integrated_gradients", max_steps=64),
    },
}  # fmt: skip


# ---------------------------------------------------------------- one process, one measurement


class Estimates(logging.Handler):
    """Keeps the largest need that the call says it has, in bytes."""

    needed = 0.0

    def emit(self, record):
        self.needed = max(self.needed, getattr(record, "needed", 0.0))


def status(name):
    """Of this process: VmRSS, what it holds, or VmHWM, the most that it ever held; in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measured(function, size):
    call, said = CASES[function][size](), Estimates()
    logger = logging.getLogger("interp_kit")
    logger.addHandler(said)
    logger.setLevel(logging.DEBUG)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    call()
    return {"before": before, "needed": said.needed, "peak": status("VmHWM")}


# ---------------------------------------------------------------- all of them


def row(function, size):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, function, size]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{function}, {size}: {done.stderr[-3000:]}")
    return {"function": function, "size": size, **json.loads(done.stdout.strip().splitlines()[-1])}


def plot(table):
    """Said beside taken, of each call."""
    from interp_kit.widgets.chart import Chart

    chart = Chart()
    for function, rows in table.groupby("function", sort=False):
        said = (rows["before"] + rows["needed"]) / 1e9
        chart.add_scatter(x=rows["peak"] / 1e9, y=said, mode="markers", name=function, text=rows["size"])
    line = [0, table["peak"].max() / 1e9]
    for share, name in ((1, "the same"), (1.25, "25 % more"), (0.75, "25 % less")):
        dash = "solid" if share == 1 else "dot"
        chart.add_scatter(
            x=line, y=[share * x for x in line], mode="lines", name=name, line={"color": "gray", "dash": dash}
        )
    chart.update_layout(title="Memory that functions say they need, and the peak of the process")
    return chart.update_xaxes(title="peak [GB]").update_yaxes(title="held before, and said to be needed [GB]")


def main(functions):
    rows = []
    for function in functions:
        for size in CASES[function]:
            rows.append(found := row(function, size))
            before, said, peak = (found[name] / 1e6 for name in ("before", "needed", "peak"))
            numbers = f"before {before:6,.0f}  more {peak - before:6,.0f}  said {said:6,.0f}  peak {peak:6,.0f} MB"
            print(f"{function:15} {size:36} {numbers}  said/peak {(before + said) / peak:.2f}", flush=True)
    table = pd.DataFrame(rows)
    Path("build").mkdir(exist_ok=True)
    Path("build/memory.png").write_bytes(plot(table).picture().png())


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measured(*sys.argv[1:])))
    else:
        main(sys.argv[1:] or CASES)
