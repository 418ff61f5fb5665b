"""What breaks without it? A head or an MLP is switched off, the rest recomputes, and the answer is asked for again."""

import html
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from tqdm.auto import tqdm

from ...models.edits import Edit, record
from ...models.targets import named, score, token_of
from .edits import head_slice, n_heads, run

WAYS = ("zero", "mean", "resample")


@dataclass(repr=False)
class Ablation:
    """table: a row a part: component, kind ("MLP" or "head"), layer, head, effect, probability (of the target, without
    the part; of the model itself in `probability`). effect is the change of the target's log-probability, or of its
    distance to the contrast, in nats: below zero, the part was for the target."""

    question: str
    how: str
    table: pd.DataFrame
    probability: float

    def show(self):
        """A plotly heat map, layer by part; orange: the answer suffers without it."""
        from ...widgets.heat_map import heat_map

        column = self.table["head"].map(lambda head: "MLP" if pd.isna(head) else f"head {head}")
        grid = self.table.assign(column=column).pivot(index="layer", columns="column", values="effect")
        grid = grid[list(dict.fromkeys(column))]
        limit = float(grid.abs().max().max()) or 1.0
        title = f"{self.how} ablation: change for {self.question}, in nats"
        figure = heat_map(grid, grid.columns, grid.index, title, limit)
        return figure.update_yaxes(title="layer", dtick=1)

    def __repr__(self):
        return f"Ablation({self.how}, {self.question}, {len(self.table)} parts)"

    def _repr_html_(self):
        title = f"{self.how} ablation, {self.question} (probability {self.probability:.3f}); the largest effects:"
        largest = self.table["effect"].abs().sort_values(ascending=False).index[:10]
        rows = self.table.loc[largest].to_html(index=False, float_format="{:.3g}".format, na_rep="")
        return f"<p>{html.escape(title)}</p>{rows}"


def ablate(
    model,
    prompt,
    components: Sequence[str] | None = None,
    how: str = "zero",
    texts: Sequence[str] | None = None,
    target=None,
    contrast=None,
    positions: slice = slice(1, None),
    draws: int = 8,
    seed: int = 0,
) -> Ablation:
    """Switches off every MLP and every attention head, one at a time, and measures what the answer loses.

    components: names such as "MLP 3" and "head 2.5", or "MLPs" or "heads"; without them all. how: "zero"; "mean", what
    the part writes on average over the positions of `texts`; "resample", what it writes in `draws` of the texts, put in
    line at the prompts' ends (the effect is the mean over the draws). Zero is a value the later layers never see, so a
    part may matter there only because its constant share is missing: take the mean or resampling where texts like the
    prompt are at hand. target, contrast: as in `decompose`. positions: where it is switched off; all but the first, on
    which models put unusual values.

    Raises ValueError for an unknown part or way, positions outside, and for "mean" or "resample" without texts.
    """
    if how not in WAYS:
        raise ValueError(f"how={how!r}: expected one of {', '.join(WAYS)}")
    if isinstance(texts, str):
        raise TypeError("texts should be a list of prompts, got one string")
    if draws < 1:
        raise ValueError(f"draws={draws}: expected at least one")
    if how != "zero" and not texts:
        raise ValueError(f"{how} ablation needs texts: a list of prompts like this one, whose activations are put in")
    ids = model.input_ids(prompt)
    if not range(len(ids))[positions]:
        raise ValueError(f"nothing lies at positions {positions}: the prompt has {len(ids)}")
    plain = model.logits(ids)[-1]
    aim = token_of(model, target, plain)
    other = None if contrast is None else token_of(model, contrast, plain)
    parts = _chosen(model, components)
    fillings = _fillings(model, ids, how, texts, draws, seed)
    versions = [[_edit(model.hf, part, filling, positions)] for part in parts for filling in fillings]
    with tqdm(total=len(versions), desc=f"{how} ablation", leave=False) as bar:
        measure = lambda logits: torch.stack([score(logits, aim, other), logits.softmax(-1)[:, aim]], 1)  # noqa: E731
        found = run(model.hf, ids, versions, measure, bar).view(len(parts), -1, 2).mean(1)
    effects, probabilities = found[:, 0] - score(plain, aim, other), found[:, 1]
    rows = [
        {"component": _name(layer, head), "kind": "MLP" if head is None else "head", "layer": layer, "head": head}
        for layer, head in parts
    ]
    table = pd.DataFrame(rows).astype({"head": "Int64"})
    table = table.assign(effect=effects.double().numpy(), probability=probabilities.double().numpy())
    return Ablation(named(model, aim, other), how, table, float(plain.float().softmax(-1)[aim]))


def _name(layer, head):
    return f"MLP {layer}" if head is None else f"head {layer}.{head}"


def _chosen(model, components):
    """[(layer, head or None)] in the model's order, a layer's MLP after its heads."""
    heads = range(n_heads(model.hf))
    everything = [(l, h) for l in range(model.n_layers) for h in (*heads, None)]
    if components is None:
        return everything
    if isinstance(components, str):
        components = [components]
    known = {_name(*part): [part] for part in everything}
    known |= {"MLPs": [p for p in everything if p[1] is None], "heads": [p for p in everything if p[1] is not None]}
    unknown = [name for name in components if name not in known]
    if unknown or not components:
        raise ValueError(
            f"{unknown[0] if unknown else 'an empty list'!r} names no part: expected 'MLPs', 'heads', or names from "
            f"'head 0.0' to 'MLP {model.n_layers - 1}', with heads 0 to {len(heads) - 1}"
        )
    return list(dict.fromkeys(part for name in components for part in known[name]))


def _edit(hf, part, filling, positions):
    (layer, head), (mlps, heads) = part, filling
    if head is None:
        return Edit("MLP", layer, mlps[layer][..., positions, :], positions)
    own = head_slice(hf, head)
    return Edit("heads", layer, heads[layer][..., positions, own], positions, own)


def _fillings(model, ids, how, texts, draws, seed):
    """What is put in: pairs (MLP, heads), each [layer, position, width]."""
    sites = ("MLP", "heads")
    if how == "zero":
        return [tuple(torch.zeros_like(found) for found in record(model.hf, ids, sites).values())]
    texts = list(texts)
    if how == "resample":
        texts = random.Random(seed).sample(texts, min(draws, len(texts)))
    found = [record(model.hf, model.encode(text), sites) for text in texts]
    if how == "resample":
        return [tuple(_aligned(values, len(ids)) for values in each.values()) for each in found]
    if not any(each["MLP"].shape[1] > 1 for each in found):
        raise ValueError("the texts have no token after their first one, whose values would be unusual")
    means = (torch.cat([each[site][:, 1:] for each in found], 1).mean(1, keepdim=True) for site in sites)
    return [tuple(mean.expand(-1, len(ids), -1) for mean in means)]


def _aligned(values, n):
    """values [layer, position, width] of another prompt at n positions, the ends in line, the first position first;
    what the other lacks is filled with its second position, what it has too much is left out."""
    last = values.shape[1] - 1
    at = [0] + [max(min(1, last), last - (n - 1 - p)) for p in range(1, n)]
    return values[:, at]
