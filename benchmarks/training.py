"""Training against the fastest peers: the same transcoder on the same activations, one run.

    python benchmarks/training.py [lesson | smollm2 | smollm2-clt ...]

Makes an environment for each peer (build/peers/<name>, some minutes and 2 GB the first time), writes activations of the
studied model once, and trains with each program in a process of its own, one after the other, with two threads: tokens
in the same order, the same sizes, k features on, and at the lesson's size the better of two learning rates for each.
Compared are tokens a second of the training step alone (reading the model is the same for all) and NMSE on held-out
tokens after equally many of them. Ours chooses features by a product in bfloat16; "in float32" is the same without.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from common.peers import HERE, environment, run
from safetensors.torch import load_file, save_file

import interp_kit as ik
from interp_kit.text.rows import TextRows
from interp_kit.transcoders import TranscoderConfig
from interp_kit.transcoders.training.config import TrainingConfig
from interp_kit.transcoders.training.parallel import Processes
from interp_kit.transcoders.training.stream import ActivationStream, Batch
from interp_kit.transcoders.training.trainer import Trainer

BUILD = Path("build/training")
# What pip is asked for. llamascopium does not import with transformer-lens 4; decode-clt alone would bring CUDA.
PEERS = {
    "llamascopium": [["torch==2.13.0"], ["torch==2.13.0", "llamascopium==2.0.0b34", "transformer-lens==3.9.0"]],
    "decode_clt": [["torch==2.13.0", "numpy", "safetensors"], ["--no-deps", "decode-clt==0.0.1"]],
}
SIZES = {  # at SmolLM2's a step takes seconds: few steps, one learning rate
    "lesson": dict(model="pocket", features=1024, k=8, span="all", steps=300, tokens=60_000, rates=(3e-3, 5e-3)),
    "smollm2": dict(model="smollm2", features=1248, k=16, span="1", steps=30, tokens=16_384, rates=(3e-3,)),
    "smollm2-clt": dict(model="smollm2", features=256, k=8, span="all", steps=20, tokens=16_384, rates=(3e-3,)),
}
TEST, BATCH, THREADS, UNTIMED = 4096, 1024, 2, 3


def write_activations(name, tokens) -> Path:
    """x and y of all MLPs, scaled as training scales them, in float16; the last `TEST` tokens are for grading."""
    path = BUILD / f"{name}.safetensors"
    if path.exists():
        return path
    model = ik.load_model(name)
    texts = [sentence.text for sentence in ik.load_world("geography").sentences(tokens // 8, "train")]
    n, d = model.n_layers, model.d_model
    memory = (tokens + TEST) * 2 * n * d * 4
    config = TranscoderConfig(d, 1, list(range(n)), 1, "relu")  # says which activations
    stream = ActivationStream(model.hf, TextRows(model, texts), config, tokens + TEST, memory)
    batch = next(stream.batches())
    x, y = batch.x, batch.y - batch.y.mean(1, keepdim=True)
    x *= d**0.5 / x.norm(dim=-1).mean(1)[:, None, None]
    y *= d**0.5 / y.pow(2).sum(-1).mean(1).sqrt()[:, None, None]
    parts = {"x": x[:, :tokens], "y": y[:, :tokens], "x_test": x[:, tokens:], "y_test": y[:, tokens:]}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: part.half().contiguous() for name, part in parts.items()}, path)
    return path


# ---------------------------------------------------------------- ours, in a process of its own


class ActivationsInMemory:
    """A stream of activations that lie in memory, in order and around again, as the peers get them."""

    def __init__(self, x, y, batch):
        self.batch, self.size = batch, x.shape[1]
        self.x, self.y = (torch.cat([t, t[:, :batch]], 1) for t in (x, y))  # a batch that wraps is a slice too

    def first_block(self):
        return self.x[:, : self.size], self.y[:, : self.size], next(self.batches())

    def batches(self, start=0):
        step = start
        while True:
            start = step * self.batch % self.size
            here = slice(start, start + self.batch)
            yield Batch(step, self.x[:, here], self.y[:, here], torch.arange(self.batch))
            step += 1


def train_ours(options):
    torch.set_num_threads(options.threads)
    data = {name: value.float() for name, value in load_file(options.activations).items()}
    n, _, d = data["x"].shape
    span = n if options.span == "all" else 1
    config = TrainingConfig(
        n_features=options.features, activation=options.activation, k=options.k, steps=options.steps,
        batch=options.batch, learning_rate=options.lr,
    )  # fmt: skip
    module_activation = "topk" if options.activation == "topk" else "jumprelu"
    transcoder_config = TranscoderConfig(d, options.features, list(range(n)), span, module_activation, options.k)
    stream = ActivationsInMemory(data["x"], data["y"], options.batch)
    trainer = Trainer(config, transcoder_config, stream, Processes("data", torch.device("cpu")))
    if options.float32:
        trainer.selection.dtype = torch.float32
    trainer.normalise(*stream.first_block())
    for batch in stream.batches():
        if batch.step == UNTIMED:
            started = time.perf_counter(), time.process_time()
        if batch.step == options.steps:
            break
        trainer.step(batch)
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    clt, x, y = trainer.finished(), data["x_test"], data["y_test"]
    features = clt.encode_tokens(x)
    error = (y - clt.decode(features)).pow(2).sum((1, 2)) / (y - y.mean(1, keepdim=True)).pow(2).sum((1, 2))
    on = (features != 0).sum((1, 2)) / x.shape[1]
    tokens = (options.steps - UNTIMED) * options.batch
    result = {"tokens_per_second": tokens / seconds, "cpu_seconds": cpu_seconds}
    result |= {"NMSE": error.mean().item(), "L0": on.tolist()}
    print(json.dumps(result))


# ---------------------------------------------------------------- the comparison


def compare(size):
    about = SIZES[size]
    activations = write_activations(about["model"], about["tokens"])
    programs = {"ours": [sys.executable, __file__, "ours"]}
    programs["ours, in float32"] = [*programs["ours"], "--float32"]
    programs["ours, batchtopk"] = [*programs["ours"], "--activation", "batchtopk"]
    for name, installs in PEERS.items():
        programs[name] = [environment(name, installs), HERE / "peers" / f"train_{name}.py"]
    programs["llamascopium, ReLU"] = [*programs["llamascopium"], "--activation", "relu"]
    rows = []
    for name, command in programs.items():
        for rate in about["rates"]:
            rows.append({"program": name, "learning rate": rate} | trained(command, activations, about, rate))
            print(f"  {name}, {rate}: {rows[-1]}", flush=True)
    table = pd.DataFrame(rows).sort_values("NMSE").groupby("program", sort=False).first()
    peers = table[~table.index.str.startswith("ours")]
    for unit in ("tokens/s", "tokens/CPU s"):
        table[f"{unit} / fastest peer's"] = table[unit] / peers[unit].max()
    table["NMSE / best peer's"] = table["NMSE"] / peers["NMSE"].min()
    print(f"\n{size}: {about}\n{table.to_string(float_format='{:.4g}'.format)}\n", flush=True)


def trained(command, activations, about, rate):
    numbers = {"features": about["features"], "k": about["k"], "steps": about["steps"], "span": about["span"]}
    numbers |= {"batch": BATCH, "lr": rate, "threads": THREADS}
    chosen = [str(part) for name, value in numbers.items() for part in (f"--{name}", value)]
    result = run(*command, activations, *chosen)
    tokens = (about["steps"] - UNTIMED) * BATCH
    row = {"tokens/s": result["tokens_per_second"], "tokens/CPU s": tokens / result["cpu_seconds"]}
    return row | {"NMSE": result["NMSE"], "L0 (all layers)": sum(result["L0"])}


def options_of_ours(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("activations")
    for name, kind in {"features": int, "k": int, "steps": int, "batch": int, "lr": float, "threads": int}.items():
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--span")
    parser.add_argument("--activation", default="topk")
    parser.add_argument("--float32", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        train_ours(options_of_ours(sys.argv[2:]))
    else:
        for size in sys.argv[1:] or SIZES:
            compare(size)
