"""Runs delphi's cache of feature activations: python cache_delphi.py FOLDER THREADS

In an environment of its own, see benchmarks/features.py. FOLDER has the model, encoders.safetensors with the tokens,
and gets the cache. The encoders are a callable, as delphi wants them: JumpReLU of what the MLPs read.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from common.measure import Measure
from delphi.latents.cache import LatentCache
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROWS_AT_ONCE, SPLITS = 8, 5  # 2,048 tokens, as many as ours reads at once; its default for splits


def encode(x, weights, bias, threshold):
    pre = x @ weights.T + bias
    return pre * (pre > threshold)


def main(folder, threads):
    torch.set_num_threads(threads)
    parts = load_file(folder / "encoders.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    encoders = zip(parts["W_enc"], parts["b_enc"], parts["threshold"], strict=True)
    encoders = {
        f"model.layers.{i}.mlp": partial(encode, weights=w, bias=b, threshold=t) for i, (w, b, t) in enumerate(encoders)
    }
    tokens = parts["tokens"]
    make = partial(LatentCache, model, encoders, batch_size=ROWS_AT_ONCE, transcode=True)
    make().run(tokens.shape[1] * ROWS_AT_ONCE, tokens)  # the first use is not counted
    with Measure() as measure:
        cache = make()
        cache.run(tokens.numel(), tokens)
        cache.save_splits(SPLITS, folder / "delphi")
    print(json.dumps(measure.numbers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
