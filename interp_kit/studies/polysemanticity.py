"""How many different things does one feature respond to? Measured, not eyeballed.

Every token is sorted into groups in four ways: by the word or name it is (a city); by what that is about (the city's
state); by the word or name that comes next; and by the place that the text is about so far. Of text without known
concepts only the words are known. For every feature the way that suits it best gives two numbers:

    explained   share of activation on the best group, corrected for chance: 1 only there, 0 chance
    concepts    the number of groups on which it is, on average, at least half as strong as on its strongest
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence

from ..features.dictionaries import AnyDictionary, Dictionary, as_dictionary, detectors
from ..models import LanguageModel
from ..models.arguments import checked
from ..text.batches import of_similar_size, pad
from ..widgets.chart import Chart
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from ..worlds.sentences import Sentence, token_concepts

NAMES = ("city", "name", "relation", "kind", "answer")  # kinds of concepts that say what a token is, and
MEANINGS = ("place", "relation", "kind", "answer")  # what that is about
MIN_GROUP_TOKENS = 5  # rarer groups are counted together and are nobody's concept
MIN_ACTIVE_TOKENS = 10  # on which a feature must be on: on three tokens, everything says one thing
MOSTLY_EXPLAINED = 0.5
HALF_MAXIMUM = 0.5
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(repr=False)
class Polysemanticity:
    """table: one row a feature that is on for ten tokens or more: dictionary, layer, feature, best (its best single
    group), explained (0 to 1), concepts (their number)."""

    table: pd.DataFrame

    @property
    def summary(self) -> pd.DataFrame:
        """By dictionary: features (their number), the medians of explained and concepts, and one_thing, the share of
        features that are half explained or more."""
        by = self.table.groupby("dictionary", sort=False)
        return by.agg(
            features=("feature", "size"),
            explained=("explained", "median"),
            one_thing=("explained", lambda e: (e >= MOSTLY_EXPLAINED).mean()),
            concepts=("concepts", "median"),
        )

    def show(self) -> Chart:
        """The distribution of `explained`, one line a dictionary."""
        figure, edges = Chart(), np.linspace(0, 1, 21)
        for colour, (name, part) in zip(COLOURS, self.table.groupby("dictionary", sort=False)):
            x, y = (edges[:-1] + edges[1:]) / 2, np.histogram(part["explained"], edges)[0] / len(part)
            figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line={"color": colour})
        return figure.update_layout(
            xaxis_title="share of its activation that one concept explains", yaxis_title="share of features",
            template="plotly_white", yaxis_tickformat=".0%",
        )  # fmt: skip

    def __repr__(self) -> str:
        return printable(f"Polysemanticity\n{self.summary.to_string(float_format='{:.2f}'.format)}")

    def _repr_html_(self) -> str:
        return literal(self.summary.to_html(float_format="{:.2f}".format))


@checked
def polysemanticity(
    model: LanguageModel, dictionaries: Mapping[str, AnyDictionary], texts: Iterable[Sentence | str]
) -> Polysemanticity:
    """Measures every feature of each dictionary on the same texts.

    dictionaries: transcoders or `ik.features.Neurons`, by their name in the table. A neuron that can be negative is
        judged by its stronger side alone, in its favour.
    texts: sentences of a world, or plain strings.

    Raises ValueError for a dictionary of another model, TypeError for what has no features.

    >>> both = {"neurons": ik.features.Neurons(model), "features": transcoder}
    >>> ik.studies.polysemanticity(model, both, world.sentences(400, "test")).summary
    """
    rows, ways = _grouped(model, texts)
    tables = {name: _measure(as_dictionary(model, one), rows, ways) for name, one in dictionaries.items()}
    return Polysemanticity(pd.concat(tables, names=["dictionary"]).reset_index("dictionary").reset_index(drop=True))


class _Way(NamedTuple):
    """A way to sort tokens into groups."""

    groups: list[list[int]]
    "for each row, and each of its tokens, the number of its group; 0: a rare one, -1: none"
    names: list[str]
    "of the groups"


def _grouped(model: LanguageModel, texts: Iterable[Sentence | str]) -> tuple[list[list[int]], list[_Way]]:
    """Rows of token ids, and the four ways to sort their tokens."""
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
            fine.append(_of(NAMES, found, word))
            coarse.append(_of(MEANINGS, found, word).split("=")[0])  # the answer to a relation, whatever it is
            place = next((c for c in sorted(found) if c.startswith("place:")), place)
            about.append(f"about {place}")
        following = [f"say {group}" for group in fine[1:]] + ["(end)"] * bool(fine)
        for lines, line in zip(ways, (fine, coarse, following, about)):
            lines.append(line)
    return rows, [_numbered(lines, len(first)) for lines in ways]


def _of(kinds: Sequence[str], concepts: Set[str], word: str) -> str:
    """The concept of the first of the kinds that is there, else the word."""
    return next((c for kind in kinds for c in sorted(concepts) if c.startswith(kind + ":")), word)


def _numbered(lines: list[list[str]], n_first: int) -> _Way:
    counts = Counter(group for line in lines for group in line)
    names = ["(rare)", *(group for group, n in counts.most_common() if n >= MIN_GROUP_TOKENS)]
    number = {group: i for i, group in enumerate(names)}
    return _Way([[-1] * n_first + [number.get(group, 0) for group in line] for line in lines], names)


@torch.no_grad()
def _measure(dictionary: Dictionary, rows: list[list[int]], ways: list[_Way]) -> pd.DataFrame:
    sides = 2 if dictionary.is_signed else 1
    layers = [_Sums(n * sides, [len(way.names) for way in ways]) for n in dictionary.n_features_per_layer]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    done = 0
    for some in ProgressBar(list(of_similar_size([rows[i] for i in order])), desc="measuring features", leave=False):
        mine = order[done : done + len(some)]
        groups = [[torch.tensor(way.groups[i], dtype=torch.long) for i in mine] for way in ways]
        at = torch.stack([pad_sequence(lines, batch_first=True, padding_value=-1) for lines in groups])
        done += len(some)
        real = at[0] >= 0
        for sums, active in zip(layers, detectors(dictionary, pad(some)[0], real)):
            sums.add(active.double(), at[:, real])
    names = [way.names for way in ways]
    found = zip(dictionary.layers, dictionary.n_features_per_layer, layers, strict=True)
    return pd.concat([sums.table(layer, n_features, names) for layer, n_features, sums in found], ignore_index=True)


class _Sums:
    """Of one layer's detectors: the sum over each group's tokens, and over all."""

    def __init__(self, n_detectors: int, n_groups: list[int]) -> None:
        """n_groups: of each way to sort tokens."""
        zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64)  # noqa: E731
        self.n = 0
        self.sizes, self.sums = [zeros(n) for n in n_groups], [zeros(n, n_detectors) for n in n_groups]
        self.max_activation, self.active = zeros(n_detectors), zeros(n_detectors)

    def add(self, active: torch.Tensor, at: torch.Tensor) -> None:
        """active [token, detector], at [way, token]: the token's group."""
        self.n += len(active)
        self.max_activation = torch.maximum(self.max_activation, active.amax(0))
        self.active += (active > 0).sum(0)
        for sums, sizes, groups in zip(self.sums, self.sizes, at):
            sums.index_add_(0, groups, active)
            sizes += torch.bincount(groups, minlength=len(sizes))

    def table(self, layer: int, n_features: int, names: list[list[str]]) -> pd.DataFrame:
        measured = [self._of(*way) for way in zip(self.sums, self.sizes)]
        explained, best, concepts = (torch.stack(parts) for parts in zip(*measured))  # [way, detector]
        way = explained.argmax(0)
        # Of each feature the stronger side.
        side = self.max_activation.view(-1, n_features).argmax(0) * n_features + torch.arange(n_features)
        side = side[self.active[side] >= MIN_ACTIVE_TOKENS]
        groups = [names[way[i]][1 + best[way[i], i]] for i in side.tolist()]
        table = pd.DataFrame({"layer": layer, "feature": (side % n_features).tolist(), "best": groups})
        numbers = {"explained": explained, "concepts": concepts}
        return table.assign(**{name: values[way[side], side].tolist() for name, values in numbers.items()})

    def _of(self, sums: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """explained, the best group and concepts, each [detector]; rare groups are no concept."""
        means, chance = sums / sizes.clamp(min=1)[:, None], (sizes / self.n)[:, None]
        share = sums / sums.sum(0).clamp(min=1e-12)
        best = ((share - chance) / (1 - chance).clamp(min=1e-12))[1:].max(0)
        return best.values, best.indices, (means[1:] >= HALF_MAXIMUM * means[1:].amax(0)).sum(0)
