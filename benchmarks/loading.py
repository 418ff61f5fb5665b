"""How long `load_model` takes beside what transformers needs for the same converted folder.

    python benchmarks/loading.py [--model smollm2] [--repetitions 15]

Both load in this one process, in turn, so that a busy machine slows both; which goes first changes
every time, and each model is freed before the next load starts, so that neither pays for the
other's clean-up. The first load (which converts a GGUF file, once) and one load of each kind are
not counted. `load_model` makes the same two transformers calls and then checks every weight, so a
ratio below 1 means that the measurement is wrong. Prints seconds and ratios; the target is at most 1.5.
"""

import argparse
import gc
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import interp_kit as ik
from interp_kit.models.loading import _find_folder, _no_progress_bars


def by_transformers(folder):
    with _no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        return model, AutoTokenizer.from_pretrained(folder)


def seconds(load, argument):
    gc.collect()
    start = time.perf_counter()
    loaded = load(argument)  # kept until the clock has stopped: freeing it is not loading
    elapsed = time.perf_counter() - start
    del loaded
    return elapsed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="any name that load_model takes")
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()

    first = seconds(ik.load_model, options.model)
    folder, _ = _find_folder(options.model)
    by_transformers(folder)
    theirs, ours = [], []
    for repetition in range(options.repetitions):
        pair = [(theirs, by_transformers, folder), (ours, ik.load_model, options.model)]
        for times, load, argument in pair if repetition % 2 else reversed(pair):
            times.append(seconds(load, argument))
    print(f"{options.model}, {folder}")
    print(f"first load in this process (with the conversion, if it was needed): {first:.2f} s")
    for label, times in (("transformers", theirs), ("load_model", ours)):
        median = statistics.median(times)
        spread = f"{min(times):.3f} to {max(times):.3f} s"
        print(f"{label:>14}: median {median:.3f} s, {spread} ({len(times)} loads)")
    medians = statistics.median(ours) / statistics.median(theirs)
    pairs = statistics.median(our / their for our, their in zip(ours, theirs))
    print(f"ratio of medians {medians:.2f}, of minima {min(ours) / min(theirs):.2f}, ", end="")
    print(f"median of the pairs' ratios {pairs:.2f} (target: at most 1.5)")


if __name__ == "__main__":
    main()
