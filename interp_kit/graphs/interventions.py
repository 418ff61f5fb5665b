"""Interventions: change a feature in the real model and see what its next token becomes.

A graph is a hypothesis; this is how to test it. The change is added to the real model's MLP outputs, which are
never replaced: delta = (wanted activation - current one) times the feature's decoder rows, as in circuit-tracer.
Attention patterns stay as they were on the prompt; MLPs and norms recompute, so later layers may react.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch

from ..models.anatomy import anatomy
from ..models.frozen import FrozenModel, frozen_attention


@dataclass(frozen=True)
class Steer:
    """Multiply one feature's activation: 0 switches it off, -2 pushes twice as hard the other way, 3 amplifies.

    `node` is a feature's id in the graph, "layer_feature_position", as in `graph.nodes`.
    """

    node: str
    factor: float

    @property
    def place(self) -> tuple[int, int, int]:
        """(layer, feature, position). Raises ValueError when `node` is not a feature's id."""
        try:
            layer, feature, position = (int(part) for part in self.node.split("_"))
            if feature < 0:
                raise ValueError
        except (ValueError, AttributeError):
            raise ValueError(
                f"{self.node!r} is not a feature's id: expected 'layer_feature_position' as in graph.nodes, "
                "like '3_127_8'"
            ) from None
        return layer, feature, position


@dataclass
class Intervention:
    """`table`: token, probability before and after, change; the likeliest tokens of either run."""

    prompt: str
    steers: list[Steer]
    table: pd.DataFrame

    def show(self):
        """A plotly bar chart of the next token's probabilities before and after."""
        import plotly.graph_objects as go

        table = self.table.iloc[::-1]
        bars = (("before", "#0072B2", ""), ("after", "#D55E00", "/"))  # hatched: readable without colour too
        figure = go.Figure(
            [
                go.Bar(name=name, y=table["token"], x=table[name], orientation="h",
                       marker={"color": colour, "pattern": {"shape": shape}})
                for name, colour, shape in bars
            ]
        )  # fmt: skip
        figure.update_layout(
            title=f"Next token of “{self.prompt}”", xaxis_title="probability", template="plotly_white", height=360
        )
        return figure

    def _repr_html_(self):
        return self.table.to_html(index=False, float_format="{:.3f}".format)


@torch.no_grad()
def intervene(model, transcoder, prompt: str, steers: list[Steer], k: int = 5) -> Intervention:
    """Runs `prompt` with some features changed, and compares the k likeliest next tokens before and after.

    Raises ValueError for a node that is no feature of this transcoder on this prompt, or that is not active there
    (there is nothing to multiply).
    """
    transcoder.check_model(model)
    frozen = FrozenModel(model, model.encode(prompt))
    features = transcoder.encode(frozen.transcoder_input(transcoder.config.reads)[transcoder.layers])
    wanted = {}
    for steer in [steers] if isinstance(steers, Steer) else steers:
        index, feature, position = _locate(steer, transcoder, frozen)
        activation = features[index, position, feature]
        if activation == 0:
            raise ValueError(f"feature {steer.node} is not active on this prompt: there is nothing to multiply")
        wanted[index, feature, position] = steer.factor * activation
    with frozen_attention(model.hf, frozen.patterns), _patched(model.hf, transcoder, wanted):
        after = model.hf(input_ids=frozen.ids[None], use_cache=False).logits[0, -1].softmax(-1)
    before = frozen.logits[-1].softmax(-1)
    shown = torch.cat([after.topk(k).indices, before.topk(k).indices]).unique()
    shown = shown[after[shown].argsort(descending=True)]
    table = pd.DataFrame(
        {"token": model.tokens(shown), "before": before[shown].tolist(), "after": after[shown].tolist()}
    )
    table["change"] = table["after"] - table["before"]
    return Intervention(prompt, list(steers) if not isinstance(steers, Steer) else [steers], table)


def _locate(steer, transcoder, frozen):
    layer, feature, position = steer.place
    if layer not in transcoder.layers or feature >= transcoder.n_features or not 0 <= position < frozen.n_positions:
        raise ValueError(
            f"{steer.node!r} lies outside: the transcoder has layers {transcoder.layers[0]} to {transcoder.layers[-1]} "
            f"and {transcoder.n_features} features a layer, the prompt positions 0 to {frozen.n_positions - 1}"
        )
    return transcoder.layers.index(layer), feature, position


@contextmanager
def _patched(hf, transcoder, wanted):
    """Hooks that add each change to the MLP outputs of every layer its feature writes to."""
    added, seen, handles = {}, {}, []

    def write(index, out):
        for (source, feature, position), value in wanted.items():
            if source == index:
                current = transcoder.encode_layer(index, seen["x"][0, position])[feature]
                for j in range(transcoder.n_targets(index)):
                    rows = (value - current) * transcoder.W_dec[index][feature, j]
                    added.setdefault(index + j, []).append((position, rows))
        out = out.clone()
        for position, rows in added.get(index, []):
            out[0, position] += rows
        return out

    for index, layer in enumerate(transcoder.layers):
        block = anatomy(hf).blocks[layer]
        reader = block.reader(transcoder.config.reads)
        handles.append(reader.register_forward_pre_hook(lambda _, args: seen.update(x=args[0])))
        handles.append(block.mlp.register_forward_hook(lambda _, args, out, i=index: write(i, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
