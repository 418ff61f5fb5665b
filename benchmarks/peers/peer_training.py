"""What the train_*.py scripts share: the command line, the data, the loop with its clock, and the quality in the end.

A script makes a class `Peer` from a peer's own modules and calls `main("its PyPI name", Peer)`. Needs only torch and
safetensors besides the peer. It is given, for n_layers layers of d_model dimensions and the command line's options:

    Peer(n_layers, d_model, options)
    peer.optimizer                     as the peer's own trainer makes it
    peer.loss(x, y, progress)          of x and y [layer, token, d_model]; progress goes from 0 to 1 over the run
    peer.rebuild(x)                    y_hat [layer, token, d_model] and features' activations [layer, token, feature]

With `--span 1` each layer gets a Peer of its own, of one layer: a per-layer transcoder.
"""

import argparse
import json
import time
from importlib.metadata import version

import torch
from safetensors.torch import load_file

WARMUP, LAST, UNTIMED = 20, 0.2, 3  # steps; the share of the run over which the learning rate falls to 0; steps


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("activations", help="safetensors with x, y, x_test, y_test [layer, token, d_model], scaled")
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--k", type=int, default=8, help="features a token and layer")
    parser.add_argument("--activation", choices=("topk", "relu"), default="topk")
    parser.add_argument("--sparsity", type=float, help="the penalty's coefficient with relu; by default the script's")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=1024, help="tokens")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--span", choices=("all", "1"), default="all")
    return parser.parse_args()


def train(peers, x, y, options):
    """Trains on `batch` tokens a step, in order and around again; returns the timed steps' wall and CPU seconds."""
    n = x.shape[1]
    x, y = (torch.cat([t, t[:, : options.batch]], 1) for t in (x, y))  # a batch that wraps is a slice too
    for step in range(options.steps):
        if step == UNTIMED:
            start = time.perf_counter(), time.process_time()
        rate = options.lr * min(1, (step + 1) / WARMUP, (1 - step / options.steps) / LAST)
        part = slice(step * options.batch % n, step * options.batch % n + options.batch)
        for layers, peer in peers:
            for group in peer.optimizer.param_groups:
                group["lr"] = rate
            peer.loss(x[layers, part], y[layers, part], step / options.steps).backward()
            peer.optimizer.step()
            peer.optimizer.zero_grad()
    return time.perf_counter() - start[0], time.process_time() - start[1]


@torch.no_grad()
def quality(peers, x, y, batch):
    """Per layer: the share of the outputs' variance that is not rebuilt, and the features a token has on."""
    error, on = torch.zeros(len(x)), torch.zeros(len(x))
    for i in range(0, x.shape[1], batch):
        for layers, peer in peers:
            rebuilt, active = peer.rebuild(x[layers, i : i + batch])
            error[layers] += (rebuilt - y[layers, i : i + batch]).pow(2).sum((1, 2))
            on[layers] += (active != 0).sum((1, 2))
    return error / (y - y.mean(1, keepdim=True)).pow(2).sum((1, 2)), on / x.shape[1]


def main(name, make_peer):
    chosen = options()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    data = {key: value.float() for key, value in load_file(chosen.activations).items()}
    n_layers, _, d_model = data["x"].shape
    groups = [slice(0, n_layers)] if chosen.span == "all" else [slice(i, i + 1) for i in range(n_layers)]
    peers = [(layers, make_peer(layers.stop - layers.start, d_model, chosen)) for layers in groups]
    seconds, cpu_seconds = train(peers, data["x"], data["y"], chosen)
    nmse, l0 = quality(peers, data["x_test"], data["y_test"], chosen.batch)
    result = {
        "name": name,
        "version": version(name),
        "tokens_per_second": (chosen.steps - UNTIMED) * chosen.batch / seconds,
        "steps": chosen.steps,
        "NMSE": float(nmse.mean()),
        "NMSE_layers": nmse.tolist(),
        "L0": l0.tolist(),
        "cpu_seconds": cpu_seconds,
        "seconds": seconds,
    }
    print(json.dumps(result))
