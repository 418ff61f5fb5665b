"""How many different things does one unit respond to? Measured, not eyeballed.

Every token of the texts belongs to one group: what it is about, where the texts come from a world that knows (a place,
however it is named; a relation; the answer to one), and otherwise the word itself. For every unit two numbers:

    explained   the share of its variance that its best single group explains (squared correlation with "this token is
                of that group"): 1 for a unit that says one thing and nothing else
    concepts    the groups on which it is, on average, at least half as strong as on its strongest
"""

from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from tqdm.auto import tqdm

from ..transcoders.activations import of_similar_size, pad
from ..worlds.sentences import Sentence, token_concepts
from .units import detectors, units_of

FAMILIES = ("place", "relation", "kind", "answer")  # of a token's concepts the first of these is its group
LEAST = 5  # tokens of a group; rarer ones are counted together and are nobody's concept
HALF = 0.5
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


class Polysemanticity:
    """`table`: one row a unit that ever fires: dictionary, layer, feature, best (its best single group), explained,
    concepts (see above). `summary` has their medians."""

    def __init__(self, table: pd.DataFrame):
        self.table = table

    @property
    def summary(self) -> pd.DataFrame:
        by = self.table.groupby("dictionary", sort=False)
        return by.agg(
            units=("feature", "size"),
            explained=("explained", "median"),
            one_thing=("explained", lambda e: (e >= HALF).mean()),
            concepts=("concepts", "median"),
        )

    def show(self) -> go.Figure:
        """The distribution of `explained`, one line a dictionary."""
        figure, edges = go.Figure(), np.linspace(0, 1, 21)
        for colour, (name, part) in zip(COLOURS, self.table.groupby("dictionary", sort=False)):
            share = np.histogram(part["explained"], edges)[0] / len(part)
            figure.add_scatter(
                x=(edges[:-1] + edges[1:]) / 2, y=share, name=name, mode="lines+markers", line={"color": colour}
            )
        figure.update_layout(
            xaxis_title="share of its variance that one concept explains", yaxis_title="share of units",
            template="plotly_white", yaxis_tickformat=".0%",
        )  # fmt: skip
        return figure

    def __repr__(self):
        return f"Polysemanticity\n{self.summary.to_string(float_format='{:.2f}'.format)}"

    def _repr_html_(self):
        return self.summary.to_html(float_format="{:.2f}".format)


def polysemanticity(model, dictionaries: dict, texts) -> Polysemanticity:
    """Measures every unit of each dictionary on the same texts.

    dictionaries: transcoders or `ik.Neurons`, by the name that they have in the table. A neuron that can be negative is
        judged by its stronger side alone, in its favour.
    texts: sentences of a world, or plain strings.
    """
    rows, groups, names = _grouped(model, texts)
    tables = [_measure(units_of(model, what), rows, groups, names).assign(dictionary=name)
              for name, what in dictionaries.items()]  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    return Polysemanticity(table[["dictionary", *table.columns.drop("dictionary")]])


def _grouped(model, texts):
    """Rows of token ids, the group of each token, and the groups' names; 0 is for all that are rare."""
    first = model.encode("a").tolist()[:-1]
    rows, lines = [], []
    for text in texts:
        sentence = text if isinstance(text, Sentence) else Sentence(text)
        ids, concepts = token_concepts(sentence, model.tokenizer)
        words = model.tokens(torch.tensor(ids)) if ids else []
        rows.append(first + ids)
        lines.append([_group(found, word) for found, word in zip(concepts, words)])
    counts = Counter(group for line in lines for group in line)
    names = ["(rare)", *(group for group, n in counts.most_common() if n >= LEAST)]
    number = {group: i for i, group in enumerate(names)}
    return rows, [[-1] * len(first) + [number.get(g, 0) for g in line] for line in lines], names


def _group(concepts, word):
    for family in FAMILIES:
        for concept in sorted(concepts):
            if concept.startswith(family + ":"):
                return concept.split("=")[0]  # the answer to a relation, whatever it is
    return f"word:{word.strip() or repr(word)}"


@torch.no_grad()
def _measure(units, rows, groups, names):
    widths = [count * (2 if units.quiet else 1) for count in units.counts]
    sums = [torch.zeros(len(names), width, dtype=torch.float64) for width in widths]
    squares = [torch.zeros(width, dtype=torch.float64) for width in widths]
    highest = [torch.zeros(width) for width in widths]
    sizes = torch.zeros(len(names), dtype=torch.float64)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = list(of_similar_size([rows[i] for i in order]))
    done = 0
    for some in tqdm(parts, desc="measuring units", leave=False):
        ids, _ = pad(some)
        at = torch.full(ids.shape, -1)
        for line, i in zip(at, order[done : done + len(some)]):
            line[: len(groups[i])] = torch.tensor(groups[i])
        done += len(some)
        real = at >= 0
        sizes += torch.bincount(at[real], minlength=len(names))
        for i, active in enumerate(units.activations(ids.to(units.model.device))):
            active = detectors(units, active[real].float().cpu())
            sums[i].index_add_(0, at[real], active.double())
            squares[i] += active.double().pow(2).sum(0)
            highest[i] = torch.maximum(highest[i], active.amax(0))
    layers = zip(units.layers, units.counts, sums, squares, highest, strict=True)
    return pd.concat([_table(*layer, sizes, names) for layer in layers], ignore_index=True)


def _table(layer, count, sums, squares, highest, sizes, names):
    n = sizes.sum()
    mean, means = sums.sum(0) / n, sums / sizes.clamp(min=1)[:, None]
    variance = squares / n - mean**2
    explained = (means - mean).clamp(min=0).pow(2) * (sizes / (n - sizes))[:, None] / variance.clamp(min=1e-12)
    explained, best = explained[1:].max(0)
    concepts = (means[1:] >= HALF * means[1:].amax(0)).sum(0)
    side = highest.view(-1, count).argmax(0) * count + torch.arange(count)  # the stronger side of each
    side = side[highest[side] > 0]
    return pd.DataFrame(
        {
            "layer": layer,
            "feature": (side % count).tolist(),
            "best": [names[1 + i] for i in best[side].tolist()],
            "explained": explained[side].tolist(),
            "concepts": concepts[side].tolist(),
        }
    )
