"""How the time and memory of an attribution graph grow with the prompt, the features and the layers.

    python benchmarks/scaling.py           some minutes on two cores; draws build/scaling.html

Each point is a process of its own: SmolLM2-135M-Instruct with a random per-layer transcoder of 512 features a layer, of
which a given share is active (2 % are 10 at each position and layer), or, for the layers, models of its width with
random weights. Memory is what the process holds at its peak, model and libraries included. Graphs of more than 2,500
features keep the 2,500 most influential (max_features), as one does on a laptop.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch
from common.measure import Measure
from common.random_sets import random_transcoder

import interp_kit as ik

TEXT = """The lighthouse keeper's daughter counted the ships every evening. She knew their names, their captains and
their cargo, and she wrote them all into a book that her father never opened. One autumn a ship came in that was not
in the book, with no flag and no lights, and nobody on the pier. She ran down the stairs, and when she came to the water
the harbour was empty again; only the ropes were still swinging. The next day she wrote a single line, and closed the
book, and went to bed without counting. In the morning"""
LENGTHS, SHARES, LAYERS = (13, 25, 50, 100), (0.005, 0.01, 0.02, 0.04), (6, 12, 24, 30)
MOST = 2500


def model_with(layers):
    """SmolLM2, or a random model of its width with fewer layers."""
    model = ik.load_model("smollm2")
    if layers == model.n_layers:
        return model
    config = type(model.hf.config)(**{**model.hf.config.to_dict(), "num_hidden_layers": layers})
    return ik.LanguageModel(type(model.hf)(config), model.tokenizer, f"random, {layers} layers")


def point(length, share, layers):
    torch.set_num_threads(2)
    model = model_with(layers)
    prompt = model.decode(model.encode(TEXT)[1 : int(length)])
    clt = random_transcoder(model, prompt, 512, share=share)
    with Measure() as measure:
        graph = ik.attribute(model, clt, prompt, max_features=MOST, memory="1GB")
    active = round(share * 512) * layers * (length - 1)
    print(json.dumps({"tokens": len(graph.tokens), "layers": layers, "active": active, "nodes": len(graph.nodes)}
                     | measure.numbers))  # fmt: skip


def run(length, share, layers):
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, str(length), str(share), str(layers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def draw(table):
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(2, 3, shared_xaxes=True, row_titles=["CPU time, s", "peak memory, MB"])
    columns = {"prompt": "tokens", "features": "active", "layers": "layers"}
    for column, (what, x) in enumerate(columns.items(), 1):
        rows = table[table["grows"] == what]
        for row, y in enumerate(("cpu", "peak"), 1):
            figure.add_trace(
                go.Scatter(x=rows[x], y=rows[y], mode="lines+markers", line={"color": "#0072B2"}), row, column
            )
        figure.update_xaxes(title_text={"active": "active features"}.get(x, x), row=2, col=column)
    figure.update_layout(template="plotly_white", showlegend=False, title="Attribution on two cores")
    figure.update_yaxes(rangemode="tozero")
    Path("build").mkdir(exist_ok=True)
    figure.write_html("build/scaling.html")


def main():
    rows = [{"grows": "prompt"} | run(n, 0.02, 30) for n in LENGTHS]
    rows += [{"grows": "features"} | run(25, share, 30) for share in SHARES]
    rows += [{"grows": "layers"} | run(25, 0.02, n) for n in LAYERS]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    draw(table)


if __name__ == "__main__":
    point(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) == 4 else main()
