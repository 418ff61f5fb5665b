"""Attribution against circuit-tracer v0.5.0: the same model (SmolLM2-135M-Instruct), transcoder and prompt, one run.

    git clone --branch v0.5.0 https://github.com/decoderesearch/circuit-tracer
    python benchmarks/attribution.py circuit-tracer

The package circuit-tracer 0.5.0 on PyPI is a third party's, and differs; the argument is a clone of the project's own.
Makes an environment for the peer (build/peers/circuit-tracer, some minutes and 2 GB the first time), writes random
transcoders in its format, runs each program in a process of its own, one after the other, with two threads, and
compares the adjacency and the cost. The peer runs with batches of 64 targets: larger ones are slower and take
gigabytes. Ours follows the peer's convention for the first position (`zero_first_position`), and its time includes the
scores and the node table, which the peer computes later.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common.measure import Measure
from common.peers import HERE, environment, run
from common.random_sets import random_transcoder

import interp_kit as ik

PROMPT = "The capital of California is Sacramento. The capital of Texas is"
SETS = {
    "per-layer": {"n_features": 512},
    "skip": {"n_features": 512, "skip": True},
    "cross-layer": {"n_features": 256, "span": 30, "threshold": True},
}
BACKENDS = ("transformerlens", "nnsight")
PEER = Path("build/peers/circuit-tracer")
TORCH = "torch==2.13.0"  # first: the CPU build


# ---------------------------------------------------------------- the two programs' inputs


def write_model(model, folder):
    """The peer's transformers 4.57 reads an older config: without these keys it would use another rotary base."""
    if (folder / "done").exists():
        return
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    theta = config.get("rope_parameters", {}).get("rope_theta", 10000.0)
    config |= {"architectures": ["LlamaForCausalLM"], "rope_theta": theta, "torch_dtype": "float32"}
    config.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "done").touch()


# ---------------------------------------------------------------- ours, in a process of its own


def products(sweep) -> float:
    """Floating-point operations of the sweep's matrix products, in the least that causality allows: each target passes
    the layers at or below its own, at its position and before it."""
    frozen, nodes = sweep.frozen, sweep.nodes
    passes = (nodes.target_layer + 1).clamp(max=frozen.n_layers) * (nodes.target_position + 1)
    attention = frozen.parts.blocks[0].attention
    through_weights = 2 * (attention.o_proj.weight.numel() + attention.v_proj.weight.numel())
    if sweep.transcoder.W_skip is not None:
        through_weights += 2 * frozen.embeddings.shape[1] ** 2
    return float(passes.sum()) * through_weights


def matmul_rate() -> float:
    """Operations per CPU second of a product of the sweep's shape."""
    a, b = torch.randn(2048, 576), torch.randn(576, 576)
    for _ in range(20):
        a @ b
    with Measure() as measure:
        for _ in range(200):
            a @ b
    return 200 * 2 * 2048 * 576 * 576 / measure.cpu


def interventions(model, clt, graph):
    """As in peers/run_circuit_tracer.py: logits with every 500th feature changed, in each mode."""
    changed = graph.features.iloc[::500]
    steers = [ik.Steer(n.id, factor=0.0 if n.Index % 1000 == 0 else -2.0) for n in changed.itertuples()]
    modes = {
        "linear": {"constrained_layers": range(model.n_layers)},
        "some layers": {"constrained_layers": range(4, 20)},
        "frozen attention": {"freeze_attention": True},
        "free": {"freeze_attention": False},
    }
    return {name: ik.intervene(model, clt, PROMPT, steers, **mode).after.logits for name, mode in modes.items()}


def ours(transcoder, out):
    torch.set_num_threads(2)
    from interp_kit.graphs.attribution import in_graph_order
    from interp_kit.graphs.nodes import find_nodes
    from interp_kit.graphs.sweep import Sweep
    from interp_kit.hardware import bytes_of
    from interp_kit.models.frozen import FrozenModel

    model, clt = ik.load_model("smollm2"), ik.load_transcoder(transcoder)
    with Measure() as measure:
        graph = ik.attribute(model, clt, PROMPT, zero_first_position=True)
    n = len(graph.features)
    features = graph.features[["layer", "position", "feature"]].to_numpy(int)
    tables = {"adjacency": graph.adjacency, "features": features, "tokens": model.encode(PROMPT).numpy()}
    np.savez(out, **tables, **interventions(model, clt, graph))
    frozen = FrozenModel(model, PROMPT)
    sweep = Sweep(frozen, clt, find_nodes(frozen, clt, zero_first_position=True), bytes_of(None))
    list(sweep.rows(torch.arange(1)))  # reads the decoders
    with Measure() as measure_sweep:
        in_graph_order(sweep, torch.arange(n), sweep.rows(torch.arange(sweep.nodes.n_targets)))
    rate = products(sweep) / measure_sweep.cpu / matmul_rate()
    print(json.dumps({"nodes": len(graph.nodes), "features": n, "rate": rate, **measure.numbers}))


# ---------------------------------------------------------------- both, one after the other


def difference(a, b):
    """Relative Frobenius differences of two programs: of the adjacency over the same nodes, and of the logits after the
    same interventions, for each mode."""
    a, b = np.load(a), np.load(b)
    if not (np.array_equal(a["tokens"], b["tokens"]) and np.array_equal(a["features"], b["features"])):
        raise RuntimeError("the two graphs do not have the same nodes")
    relative = lambda key: float(np.linalg.norm(a[key] - b[key]) / np.linalg.norm(b[key]))  # noqa: E731
    logits = {key: relative(key) for key in b.files if key not in ("adjacency", "features", "tokens")}
    return relative("adjacency"), logits


def main(clone: str | None = None):
    if clone is None:
        return print(__doc__)
    peer = environment(PEER.name, [[TORCH], [str(Path(clone).resolve())]])
    model, folder = ik.load_model("smollm2"), PEER / "model"
    write_model(model, folder)
    rows = []
    for name, shape in SETS.items():
        path = (PEER / name).absolute()
        random_transcoder(model, PROMPT, **shape).save(path)
        result = run(sys.executable, __file__, "--ours", path, PEER / "ours.npz")
        rows.append({"set": name, "program": "interp_kit", **result})
        for backend in BACKENDS:
            arguments = folder.absolute(), path, backend, 64, PROMPT, PEER / "peer.npz"
            theirs = run(peer, HERE / "peers/run_circuit_tracer.py", *arguments)
            same, logits = difference(PEER / "ours.npz", PEER / "peer.npz")
            times = {"times our CPU": theirs["cpu"] / result["cpu"], "times our wall": theirs["wall"] / result["wall"]}
            rows.append({"set": name, "program": backend, **theirs, **times, "difference": same})
            after = ", ".join(f"{mode} {value:.1e}" for mode, value in logits.items())
            print(f"{name}, {backend}: adjacency differs by {same:.1e}; after interventions: {after}", flush=True)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format, na_rep=""))


if __name__ == "__main__":
    ours(*sys.argv[2:]) if sys.argv[1:2] == ["--ours"] else main(*sys.argv[1:])
