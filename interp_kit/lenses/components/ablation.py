"""What breaks without it? A head or an MLP is switched off, the rest recomputes, and the answer is asked for again.

Zero, mean and resample ablation: Wang et al. 2022, "Interpretability in the Wild"; Chan et al. 2022, "Causal
Scrubbing".
"""

import html
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch

from ...models.arguments import checked
from ...models.edits import Edit, Site, record
from ...models.language_model import LanguageModel, Prompt
from ...models.targets import Target, Tokens
from ...widgets.chart import Chart
from ...widgets.heat_map import heat_map
from ...widgets.plain_text import literal, printable
from .edits import head_slice, n_heads, run

How = Literal["zero", "mean", "resample"]
# What is put in place of what the parts write: of the MLPs [layer, position, d_model], and of the heads, side by side
# [layer, position, heads * width].
Filling = dict[Site, torch.Tensor]
PARTS: tuple[Site, ...] = ("MLP", "heads")


@dataclass(repr=False)
class Ablation:
    """What `ablate` found.

    question: the target in words, "' Austin' rather than ' Sacramento'".
    how: "zero", "mean" or "resample".
    table: a row a part: component ("MLP 3", "head 2.5"), kind ("MLP" or "head"), layer, head (missing for an MLP),
        effect, and probability (of the target, without the part). effect is the change of the target's log-probability,
        or of its distance to the contrast, in nats: below zero, the part was for the target.
    probability: of the target, by the whole model.
    """

    question: str
    how: How
    table: pd.DataFrame
    probability: float

    def show(self) -> Chart:
        """A plotly heat map, layer by part; orange: the answer suffers without it."""
        column = self.table["head"].map(lambda head: "MLP" if pd.isna(head) else f"head {head}")
        grid = self.table.assign(column=column).pivot(index="layer", columns="column", values="effect")[column.unique()]
        limit = float(grid.abs().max().max()) or 1.0
        title = f"{self.how} ablation: change for {self.question}, in nats"
        return heat_map(grid, grid.columns, grid.index, title, limit).update_yaxes(title="layer", dtick=1)

    def __repr__(self) -> str:
        return printable(f"Ablation({self.how}, {self.question}, {len(self.table)} parts)")

    def _repr_html_(self) -> str:
        title = f"{self.how} ablation, {self.question} (probability {self.probability:.3f}); the largest effects:"
        largest = self.table.sort_values("effect", key=abs, ascending=False).head(10)
        rows = largest.to_html(index=False, float_format="{:.3g}".format, na_rep="")
        return literal(f"<p>{html.escape(title)}</p>{rows}")


@checked
def ablate(
    model: LanguageModel,
    prompt: Prompt,
    components: str | Sequence[str] | None = None,
    how: How = "zero",
    texts: Sequence[str] | None = None,
    target: Tokens | None = None,
    contrast: Tokens | None = None,
    positions: slice = slice(1, None),
    draws: int = 8,
    seed: int = 0,
) -> Ablation:
    """Switches off every MLP and every attention head, one at a time, and measures what the answer loses.

    components: names such as "MLP 3" and "head 2.5", or "MLPs" or "heads"; without them all.
    how: what is put in place of what a part writes. "zero": nothing. "mean": its mean over the positions of `texts`.
        "resample": what it writes in `draws` of the texts, put in line at the prompts' ends; the effect is the mean
        over the draws. The later layers never see zero, so a part may matter there only because its constant share is
        missing: take the mean or resampling where texts like the prompt are at hand.
    target, contrast: the next token asked about, and rather than which other one: text (" Austin") or id; a list is a
        mean. Without a target the likeliest.
    positions: where it is switched off; all but the first, on which models put unusual values.
    seed: of the choice of texts.

        ik.lenses.ablate(model, prompt, "MLPs", how="mean", texts=prompts, target=" Austin").show()

    Raises ValueError for an unknown part or way, positions outside, and for "mean" or "resample" without texts.
    """
    if how not in get_args(How):
        raise ValueError(f"how={how!r}: expected one of {', '.join(get_args(How))}")
    if isinstance(texts, str):
        raise TypeError("texts should be a list of prompts, got one string")
    if draws < 1:
        raise ValueError(f"draws={draws}: expected at least one")
    if how != "zero" and not texts:
        raise ValueError(f"{how} ablation needs texts: a list of prompts like this one, whose activations are put in")
    ids = model.input_ids(prompt)
    if not range(len(ids))[positions]:
        raise ValueError(f"nothing lies at positions {positions}: the prompt has {len(ids)}")
    logits = model.logits(ids)[-1]
    asked = Target.of(model, target, contrast, logits)
    parts = _chosen(model, components)
    fillings = _fillings(model, ids, how, texts, draws, seed)
    versions = [[_edit(model, *part, filling, positions)] for part in parts.values() for filling in fillings]

    def measure(logits: torch.Tensor) -> torch.Tensor:
        """[version, score and probability]"""
        return torch.stack([asked.score(logits), asked.probability(logits)], 1)

    found = run(model.hf, ids, versions, measure, f"{how} ablation").view(len(parts), -1, 2).mean(1)
    rows = [
        {"component": name, "kind": "MLP" if head is None else "head", "layer": layer, "head": head,
         "effect": float(score - asked.score(logits)), "probability": float(probability)}
        for (name, (layer, head)), (score, probability) in zip(parts.items(), found)
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"head": "Int64"})
    return Ablation(asked.name, how, table, float(asked.probability(logits)))


def _chosen(model: LanguageModel, components: str | Sequence[str] | None) -> dict[str, tuple[int, int | None]]:
    """The parts by name, {name: (layer, head)} with head None for an MLP, in the order given; all of them in the
    model's order, a layer's MLP after its heads."""
    layers, heads = range(model.n_layers), range(n_heads(model.hf))
    everything = {f"MLP {l}" if h is None else f"head {l}.{h}": (l, h) for l in layers for h in (*heads, None)}
    if components is None:
        return everything
    components = [components] if isinstance(components, str) else components
    known = {name: [name] for name in everything}
    known |= {f"{kind}s": [name for name in everything if name.startswith(kind)] for kind in ("MLP", "head")}
    unknown = [name for name in components if name not in known]
    if unknown or not components:
        raise ValueError(
            f"{unknown[0] if unknown else 'an empty list'!r} names no part: expected 'MLPs', 'heads', or names from "
            f"'head 0.0' to 'MLP {len(layers) - 1}', with heads 0 to {len(heads) - 1}"
        )
    return {part: everything[part] for name in components for part in known[name]}


def _edit(model: LanguageModel, layer: int, head: int | None, filling: Filling, positions: slice) -> Edit:
    if head is None:
        return Edit("MLP", layer, filling["MLP"][layer, positions], positions)
    own = head_slice(model.hf, head)
    return Edit("heads", layer, filling["heads"][layer, positions, own], positions, own)


def _fillings(
    model: LanguageModel, ids: torch.Tensor, how: How, texts: Sequence[str] | None, draws: int, seed: int
) -> list[Filling]:
    """What is put in, one version each."""
    if how == "zero":
        return [{site: torch.zeros_like(values) for site, values in record(model.hf, ids, PARTS).items()}]
    texts = list(texts or [])
    if how == "resample":
        texts = random.Random(seed).sample(texts, min(draws, len(texts)))
    found = [record(model.hf, model.encode(text), PARTS) for text in texts]
    if how == "resample":
        return [{site: _aligned(values, len(ids)) for site, values in each.items()} for each in found]
    if not any(each["MLP"].shape[1] > 1 for each in found):
        raise ValueError("the texts have no token after their first one, whose values would be unusual")
    pooled: Filling = {site: torch.cat([each[site][:, 1:] for each in found], 1) for site in PARTS}
    return [{site: values.mean(1, keepdim=True).expand(-1, len(ids), -1) for site, values in pooled.items()}]


def _aligned(values: torch.Tensor, n: int) -> torch.Tensor:
    """values [layer, position, width] of another prompt at n positions, the ends in line, the first position first;
    what the other lacks is filled with its second position, what it has too much is left out."""
    last = values.shape[1] - 1
    at = [0] + [max(min(1, last), last - (n - 1 - p)) for p in range(1, n)]
    return values[:, at]
