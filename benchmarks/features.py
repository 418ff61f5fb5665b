"""Looking features up in text against delphi: the same model (SmolLM2-135M-Instruct), encoders and texts, one run.

    python benchmarks/features.py           ten minutes on two cores

Makes an environment for the peer (build/peers/delphi, some minutes and 2 GB the first time), then each program reads
the same texts in a process of its own, one after the other, with two threads, model and encoders in float32. Ours ends
with examples, histograms and promoted tokens on disk. delphi's cache holds where each feature is on and how much; its
examples are made from that later, which is not counted. It reads rows of 256 tokens, ours of at most 256.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import pandas as pd
import torch
from common.measure import Measure
from common.peers import HERE, environment, run
from safetensors.torch import save_file

import interp_kit as ik
from interp_kit.features.collect import collect_features

BUILD = Path("build/features")
# Without its own list of packages, which brings vLLM and CUDA; these are what its cache imports.
IMPORTED = "transformers safetensors jaxtyping simple_parsing orjson blobfile asyncer faiss-cpu sentence-transformers"
INSTALLS = [["torch==2.13.0"], ["torch==2.13.0", "psutil", *IMPORTED.split()], ["--no-deps", "eai-delphi==0.1.3"]]
TEXTS, WINDOWS, ROW, THREADS = 120, 8, 256, 2


def write_inputs():
    """The texts, and for the peer the model, its tokens in rows, and the encoders."""
    model, clt = ik.load_model("smollm2"), ik.load_transcoder("smollm2")
    windows = random.Random(0).sample(list(map("".join, ik.load_features("smollm2").windows())), TEXTS * WINDOWS)
    texts = ["\n\n".join(windows[i::TEXTS]) for i in range(TEXTS)]  # what ships beside the transcoder, pieced together
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "texts.json").write_text(json.dumps(texts))
    model.hf.save_pretrained(BUILD / "model")
    ids = torch.cat([model.encode(text) for text in texts])
    encoders = {"W_enc": clt.W_enc[:], "b_enc": clt.b_enc, "threshold": clt.threshold}
    encoders["tokens"] = ids[: len(ids) // ROW * ROW].view(-1, ROW)
    save_file({name: t.detach().contiguous() for name, t in encoders.items()}, BUILD / "encoders.safetensors")
    return len(ids)


def ours():
    torch.set_num_threads(THREADS)
    model, clt = ik.load_model("smollm2"), ik.load_transcoder("smollm2")
    texts = json.loads((BUILD / "texts.json").read_text())
    collect_features(model, clt, texts[:2])  # what is loaded at first use is not counted
    with Measure() as measure:
        collect_features(model, clt, texts).save(BUILD / "ours")
    return measure.numbers


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def compare():
    peer, tokens = environment("delphi", INSTALLS), write_inputs()
    rows = {
        "ours": run(sys.executable, __file__, "--ours", OMP_NUM_THREADS=str(THREADS)),
        "delphi": run(peer, HERE / "peers/cache_delphi.py", BUILD, THREADS, OMP_NUM_THREADS=str(THREADS)),
    }
    table = pd.DataFrame(rows).T
    for unit, seconds in {"tokens/s": "wall", "tokens/CPU s": "cpu"}.items():
        table[unit] = tokens / table[seconds]
        table[f"{unit} / delphi's"] = table[unit] / table.loc["delphi", unit]
    table["MB on disk"] = [size(BUILD / name) for name in rows]
    print(f"{tokens:,} tokens, {THREADS} threads; extra: MB added at the peak\n")
    print(table.to_string(float_format="{:.4g}".format))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", action="store_true")
    print(json.dumps(ours())) if parser.parse_args().ours else compare()
