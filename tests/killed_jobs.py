"""Jobs that write to a folder, each in a process that may be killed at any moment: see test_kills.py.

As a program it reads lines "job largest-file folder", runs each job in a process forked for it, and prints the number
of that process and, when it ended, how. So a job starts in milliseconds: the libraries are loaded once. No file may
grow over the largest size (-1: any), as on a disk that is full. Permissions hold for the jobs, also where root runs
them.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import traceback
from pathlib import Path

import torch
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.transcoders.training import trainer
from recipes import pocket

RECIPE = pocket.Recipe(
    vocab_size=400, d_model=16, d_mlp=24, n_layers=3, n_heads=2, steps=12, batch=8, lookup_steps=2, lookup_layers=1
)


def train(folder: Path) -> None:
    """A training with a checkpoint at every step that is logged."""
    trainer.SAVE_SECONDS, trainer.LOG_EVERY = 0, 5
    run = ik.train_transcoder(
        tiny_model(), tiny_texts(400), 48, k=5, steps=80, batch=128, checkpoint=folder / "checkpoint", progress=False
    )
    run.transcoder.save(folder / "result")


def collect(folder: Path) -> None:
    """Features collected, labelled and saved."""
    model = tiny_model()
    store = ik.collect_features(model, tiny_transcoder(model), tiny_texts(400))
    store.save(folder / "result", ik.label_features(store))


def save(folder: Path) -> None:
    """A transcoder saved three times in a row, each with other weights and files."""
    model = tiny_model()
    for span in (1, 4, 2):
        tiny_transcoder(model, seed=span, n_features=3000, span=span).save(folder / "result")


def convert(folder: Path) -> None:
    """A GGUF file that becomes an entry of the cache."""
    os.environ["INTERP_KIT_CACHE"] = str(folder / "result")
    ik.load_model(os.environ["KILLED_GGUF"])


def build(folder: Path) -> None:
    """A model of the recipes, made from its fact tables."""
    pocket.train_pocket(ik.load_world(), folder / "result", RECIPE, folder / "checkpoint", every=2)


def score(folder: Path) -> None:
    """Labels asked of a language model, whose answers are kept, and their scores."""
    model = tiny_model()
    store = ik.collect_features(model, tiny_transcoder(model), tiny_texts(100))
    llm = ik.features.LLM("judge", os.environ["KILLED_LLM"], "none", cache=folder / "answers")
    only = list(zip(store.features["layer"], store.features["feature"]))[:12]
    labels = ik.label_features(store, llm, only)
    scores = ik.score_labels(store, labels, judge=llm)
    store.save(folder / "result", scores)


JOBS = {job.__name__: job for job in (train, collect, save, convert, build, score)}


def obey_permissions() -> None:
    """Gives up this process's capabilities, with which root writes into what is read-only."""
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)  # version 3 of Linux's interface; this process
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        job, largest, folder = line.rstrip("\n").split(" ", 2)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            obey_permissions()
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
            try:
                JOBS[job](Path(folder))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
