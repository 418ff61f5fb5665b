"""How many different things does one unit respond to? Measured, not eyeballed.

Every token is sorted in four ways, each time into groups: by the word or name it is (a city); by what that is about
(the city's state); by the word or name that comes next; and by the place that the text is about so far. Of text without
known concepts only the words are known. For every unit the way that suits it best gives two numbers:

    explained   the share of its activation that falls on its best single group, beyond what would fall there if it did
                not care: 1 for a unit that says one thing and nothing else, 0 for one that cares for nothing
    concepts    the groups on which it is, on average, at least half as strong as on its strongest
"""

from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from tqdm.auto import tqdm

from ..features.dictionaries import detectors, units_of
from ..text.batches import of_similar_size, pad
from ..worlds.sentences import Sentence, token_concepts

FINE, COARSE = ("city", "name", "relation", "kind", "answer"), ("place", "relation", "kind", "answer")
LEAST = 5  # tokens of a group; rarer ones are counted together and are nobody's concept
ACTIVE = 10  # tokens on which a unit must be on: on three tokens, everything says one thing
HALF = 0.5
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


class Polysemanticity:
    """`table`: one row a unit that is on for ten tokens or more: dictionary, layer, feature, best (its best single
    group), explained, concepts (see above). `summary` has their medians, and of how many units half is explained."""

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
            xaxis_title="share of its activation that one concept explains", yaxis_title="share of units",
            template="plotly_white", yaxis_tickformat=".0%",
        )  # fmt: skip
        return figure

    def __repr__(self):
        return f"Polysemanticity\n{self.summary.to_string(float_format='{:.2f}'.format)}"

    def _repr_html_(self):
        return self.summary.to_html(float_format="{:.2f}".format)


def polysemanticity(model, dictionaries: dict, texts) -> Polysemanticity:
    """Measures every unit of each dictionary on the same texts.

    dictionaries: transcoders or `ik.features.Neurons`, by their name in the table. A neuron that can be negative is
        judged by its stronger side alone, in its favour.
    texts: sentences of a world, or plain strings.
    """
    rows, ways = _grouped(model, texts)
    tables = [
        _measure(units_of(model, what), rows, ways).assign(dictionary=name) for name, what in dictionaries.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return Polysemanticity(table[["dictionary", *table.columns.drop("dictionary")]])


def _grouped(model, texts):
    """Rows of token ids; for each way of sorting, of each token the number of its group (0: a rare one, -1: none) and
    the groups' names."""
    first = model.prefix_ids
    rows, ways = [], [[] for _ in range(4)]
    for text in texts:
        sentence = text if isinstance(text, Sentence) else Sentence(text)
        ids, concepts = token_concepts(sentence, model.tokenizer)
        words = model.tokens(torch.tensor(ids)) if ids else []
        rows.append(first + ids)
        fine, coarse, about, place = [], [], [], "(no place yet)"
        for found, word in zip(concepts, words):
            word = f"word:{word.strip() or repr(word)}"
            fine.append(_of(FINE, found, word))
            coarse.append(_of(COARSE, found, word).split("=")[0])  # the answer to a relation, whatever it is
            place = next((c for c in sorted(found) if c.startswith("place:")), place)
            about.append(f"about {place}")
        following = [f"say {group}" for group in fine[1:]] + ["(end)"] * bool(fine)
        for lines, line in zip(ways, (fine, coarse, following, about)):
            lines.append(line)
    return rows, [_numbered(lines, len(first)) for lines in ways]


def _of(families, concepts, word):
    """The concept of the first of the families that is there, else the word."""
    there = (c for family in families for c in sorted(concepts) if c.startswith(family + ":"))
    return next(there, word)


def _numbered(lines, n_first):
    counts = Counter(group for line in lines for group in line)
    names = ["(rare)", *(group for group, n in counts.most_common() if n >= LEAST)]
    number = {group: i for i, group in enumerate(names)}
    return [[-1] * n_first + [number.get(group, 0) for group in line] for line in lines], names


@torch.no_grad()
def _measure(units, rows, ways):
    layers = [
        _Sums(count * (2 if units.quiet else 1), [len(names) for _, names in ways])
        for count in units.n_features_per_layer
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    done = 0
    for some in tqdm(list(of_similar_size([rows[i] for i in order])), desc="measuring units", leave=False):
        ids, _ = pad(some)
        at = torch.full((len(ways), *ids.shape), -1)
        for way, (groups, _) in zip(at, ways):
            for line, i in zip(way, order[done : done + len(some)]):
                line[: len(groups[i])] = torch.tensor(groups[i])
        done += len(some)
        real = at[0] >= 0
        for sums, active in zip(layers, units.activations(ids.to(units.model.device))):
            sums.add(detectors(units, active[real].float().cpu()).double(), at[:, real])
    names = [names for _, names in ways]
    found = zip(units.layers, units.n_features_per_layer, layers, strict=True)
    return pd.concat([sums.table(layer, count, names) for layer, count, sums in found], ignore_index=True)


class _Sums:
    """Of one layer's detectors: the sum over each group's tokens, and over all."""

    def __init__(self, width, sizes):
        zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64)  # noqa: E731
        self.n, self.sizes, self.sums = 0, [zeros(size) for size in sizes], [zeros(size, width) for size in sizes]
        self.highest, self.active = zeros(width), zeros(width)

    def add(self, active, at):
        """active [token, detector], at [way, token]."""
        self.n += len(active)
        self.highest = torch.maximum(self.highest, active.amax(0))
        self.active += (active > 0).sum(0)
        for sums, sizes, groups in zip(self.sums, self.sizes, at):
            sums.index_add_(0, groups, active)
            sizes += torch.bincount(groups, minlength=len(sizes))

    def table(self, layer, count, names):
        measured = [self._of(*way) for way in zip(self.sums, self.sizes)]
        explained, best, concepts = (torch.stack(parts) for parts in zip(*measured))  # [way, detector]
        way = explained.argmax(0)
        side = self.highest.view(-1, count).argmax(0) * count + torch.arange(count)  # the stronger side of each
        side = side[self.active[side] >= ACTIVE]
        return pd.DataFrame(
            {
                "layer": layer,
                "feature": (side % count).tolist(),
                "best": [names[way[i]][1 + best[way[i], i]] for i in side.tolist()],
                "explained": explained[way[side], side].tolist(),
                "concepts": concepts[way[side], side].tolist(),
            }
        )

    def _of(self, sums, sizes):
        """explained, the best group and concepts, each [detector]; rare groups are no concept."""
        means, chance = sums / sizes.clamp(min=1)[:, None], (sizes / self.n)[:, None]
        best = ((sums / sums.sum(0).clamp(min=1e-12) - chance) / (1 - chance).clamp(min=1e-12))[1:].max(0)
        return best.values, best.indices, (means[1:] >= HALF * means[1:].amax(0)).sum(0)
