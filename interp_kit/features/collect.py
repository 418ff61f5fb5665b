"""Looking units up in text, in one pass: on which windows of text does each fire, how often and how strongly."""

import zlib
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..text.batches import of_similar_size, pad
from ..text.rows import NOTHING, TextRows
from .dictionaries import Neurons, promoted_tokens, units_of
from .store import FeatureStore, ListColumn

WINDOW = 32  # tokens of an example
ROWS_AT_ONCE = 256  # sorted by length together, so that little padding is computed
KEPT_ASIDE = 4  # one window in so many is for testing labels only
TOKENS_SHOWN = 6
BINS, LOWEST = 48, -24  # of the histogram: half octaves, the first from 2 ** -12
PRUNED_EVERY = 50_000  # windows after which those that are nobody's example any more are let go
GROUPS = ("top", "sample", "held", "silent", "near")
FIRING = GROUPS[:3]


@torch.no_grad()
def collect_features(model, units, texts, n_examples: int = 10, seed: int = 0) -> FeatureStore:
    """Reads `texts` once and keeps for each feature its examples, a histogram, and the tokens that it promotes.

    units: a transcoder, or `ik.features.Neurons(model)`.
    texts: a list of strings, a .txt or .jsonl file, or a stream such as a Hugging Face data set.
    n_examples: windows kept of each group (see `FeatureStore`), of at most 32 tokens each.

    Memory is bounded by the number of features times `n_examples`, however long the texts. The first position, where
    the begin-of-text token stands, is left out: models put unusual activations there. A window that occurs again is
    counted, but is an example only once. Raises ValueError for a transcoder of another model or texts without tokens.
    """
    units = units_of(model, units)
    rows = TextRows(model, texts, seed)
    total = len(rows.texts) if isinstance(rows.texts, Sequence) else None
    rows.texts = taken = _Counted(rows.texts)
    reader = _Reader(units, max(len(model.prefix_ids), int(units.excludes_first_position)), n_examples, seed)
    with tqdm(total=total, desc="collecting features", unit=" texts", leave=False) as bar:
        stream = rows.epoch()
        while some := list(islice(stream, ROWS_AT_ONCE)):
            reader.read(some)
            bar.set_postfix_str(f"{reader.tokens:,} tokens", refresh=False)
            bar.update(taken.n - bar.n)
    if not reader.tokens:
        raise ValueError(NOTHING)
    return reader.store()


def neuron_examples(model, layer: int, neuron: int, texts, n_examples: int = 10):
    """A card of one neuron: the windows of `texts` in which it is strongest, of either sign, and some at random.

    Raises ValueError for a layer or a neuron that the model does not have.
    """
    neurons = Neurons(model, [layer])
    if not 0 <= neuron < neurons.n_features_per_layer[0]:
        raise ValueError(f"neuron {neuron}: layer {layer} has neurons 0 to {neurons.n_features_per_layer[0] - 1}")
    return collect_features(model, neurons, texts, n_examples).show(layer, neuron, n_examples=n_examples)


class _Counted:
    """Texts, and how many of them were taken."""

    def __init__(self, texts):
        self.texts, self.n = texts, 0

    def __iter__(self):
        for text in self.texts:
            self.n += 1
            yield text


class _Windows(NamedTuple):
    """Pieces of text: token ids [window, position], which are real, each window's number, and the group it may be in;
    neither where the same piece is an example already."""

    ids: torch.Tensor
    real: torch.Tensor
    numbers: torch.Tensor
    to_label: torch.Tensor
    to_test: torch.Tensor


class _Reader:
    def __init__(self, units, start, n_examples, seed):
        self.units, self.start = units, start
        draw = torch.Generator().manual_seed(seed)
        self.layers = [
            _Layer(count, n_examples, units.quiet, units.model.vocab_size, draw) for count in units.n_features_per_layer
        ]
        self.tokens = self.met = self.pruned_at = 0
        self.numbers: dict[tuple[int, ...], int] = {}  # of the windows that may be examples

    def read(self, rows):
        """Takes rows of token ids into account."""
        for some in of_similar_size(sorted(rows, key=len)):
            ids, real = pad(some)
            width = min(WINDOW, ids.shape[1] - self.start)
            if width < 1:
                continue
            cut = lambda t: _cut(t[:, self.start :], width)  # noqa: E731, B023
            used = cut(real).any(1)  # not all padding
            windows = self._windows(cut(ids)[used], cut(real)[used])
            self.tokens += int(windows.real.sum())
            layers = self.units.activations(ids.to(self.units.model.device))
            for layer, active in zip(self.layers, layers, strict=True):
                layer.read(cut(active.float().cpu())[used] * windows.real[..., None], windows)
        if self.met - self.pruned_at > PRUNED_EVERY:
            self._prune()

    def _windows(self, ids, real):
        numbers, sides = [], []
        for line, length in zip(ids.tolist(), real.sum(1).tolist(), strict=True):
            piece = tuple(line[:length])
            new = piece not in self.numbers
            numbers.append(self.numbers.setdefault(piece, self.met))
            side = zlib.crc32(np.array(piece).tobytes()) % KEPT_ASIDE == 0
            sides.append((new and not side, new and side))
            self.met += 1
        to_label, to_test = torch.tensor(sides).T
        return _Windows(ids, real, torch.tensor(numbers), to_label, to_test)

    def _prune(self):
        used = {n for layer in self.layers for group in layer.groups.values() for n in group.window.unique().tolist()}
        self.numbers = {piece: number for piece, number in self.numbers.items() if number in used}
        self.pruned_at = self.met

    def store(self) -> FeatureStore:
        self._prune()
        order = {number: i for i, number in enumerate(self.numbers.values())}
        names = self.units.model.tokens(torch.arange(self.units.model.vocab_size))
        windows = [[names[i] for i in piece] for piece in self.numbers]
        lengths = np.array([len(piece) for piece in self.numbers])
        features, examples = [], {}
        promoted = promoted_tokens(self.units, TOKENS_SHOWN)
        for number, layer, tokens in zip(self.units.layers, self.layers, promoted, strict=True):
            promotes, suppresses, promoted_by = ([[names[t] for t in line] for line in ids.tolist()] for ids in tokens)
            features.append(
                pd.DataFrame(
                    {
                        "layer": number,
                        "feature": range(len(layer.highest)),
                        "density": layer.density(self.tokens),
                        "highest": layer.highest.tolist(),
                        "promotes": promotes,
                        "suppresses": suppresses,
                        "promoted_by": promoted_by,
                        "half_octaves": layer.histogram.tolist(),
                    }
                )
            )
            examples[number] = layer.examples(order, lengths)
        return FeatureStore.of_layers(pd.concat(features, ignore_index=True), examples, windows)


def _cut(t, width):
    """[row, position, ...] -> [window, width, ...], the last of each row filled up with zeros."""
    more = -t.shape[1] % width
    if more:
        t = torch.cat([t, t.new_zeros(t.shape[0], more, *t.shape[2:])], 1)
    return t.reshape(-1, width, *t.shape[2:])


class _Layer:
    """What is known of one layer's units so far."""

    def __init__(self, n_units, n_examples, quiet, n_tokens, draw):
        self.groups = {name: _Group(n_units, n_examples) for name in GROUPS}
        self.quiet, self.n_tokens, self.draw = quiet, n_tokens, draw
        self.highest = torch.zeros(n_units)
        self.favourite = torch.zeros(n_units, dtype=torch.long)  # the token at which it was highest
        self.histogram = torch.zeros(n_units, BINS, dtype=torch.long)

    def read(self, active, windows):
        """active [window, position, unit], 0 at padding."""
        strength = active.abs()
        self._count(strength)
        best, peak = strength.max(1)  # [window, unit]
        self._raise_highest(best, peak, windows.ids)
        fires = best > self.quiet * self.highest
        near = self._has_favourite(windows) & ~fires
        label, test = windows.to_label[:, None] & fires, windows.to_test[:, None]
        chance = torch.rand(best.shape, generator=self.draw) + 1  # above the 0 that means "not at all"
        keys = {"top": best * label, "sample": chance * label, "held": chance * (test & fires)}
        keys |= {"silent": chance * (test & ~fires), "near": chance * (test & near)}
        for name, key in keys.items():
            self.groups[name].offer(key.T, windows.numbers, active)

    def _count(self, strength):
        window, position, unit = strength.nonzero(as_tuple=True)
        halves = (2 * strength[window, position, unit].log2()).floor().long() - LOWEST
        flat = unit * BINS + halves.clamp(0, BINS - 1)
        self.histogram += torch.bincount(flat, minlength=self.histogram.numel()).view_as(self.histogram)

    def _raise_highest(self, best, peak, ids):
        value, window = best.max(0)
        higher = (value > self.highest).nonzero()[:, 0]
        window = window[higher]
        self.highest[higher] = value[higher]
        favourite = ids[window, peak[window, higher]]
        self.groups["near"].forget(higher[favourite != self.favourite[higher]])
        self.favourite[higher] = favourite

    def _has_favourite(self, windows):
        """[window, unit]: whether the token at which the unit was highest is in the window."""
        there = torch.zeros(len(windows.ids), self.n_tokens + 1, dtype=torch.bool)
        there.scatter_(1, torch.where(windows.real, windows.ids, self.n_tokens), True)
        return there[:, self.favourite]

    def density(self, tokens):
        """The share of tokens on which each unit is active; of one that is never quite 0, to within a bin."""
        first = (2 * (self.quiet * self.highest).log2()).ceil().clamp(min=LOWEST).long() - LOWEST
        return (self.histogram * (torch.arange(BINS) >= first[:, None])).sum(1).double().numpy() / tokens

    def examples(self, order, lengths) -> dict:
        """Columns of the table of examples, by unit and group, the strongest of each group first."""
        columns = {name: [] for name in ("feature", "group", "rank", "window", "activations")}
        decimals = 10 ** (3 - self.highest.clamp(min=1e-12).log10().ceil())  # three digits of the highest
        for number, group in enumerate(self.groups.values()):
            strength = group.active.abs().amax(2).float()
            there = group.window >= 0
            if GROUPS[number] in FIRING:  # what was strong once may be weak beside what came later
                there &= strength > self.quiet * self.highest[:, None]
            sorted_, by = torch.where(there, strength, -1).sort(dim=1, descending=True, stable=True)
            unit, rank = (sorted_ >= 0).nonzero(as_tuple=True)
            slot = by[unit, rank]
            columns["feature"].append(unit)
            columns["group"].append(torch.full_like(unit, number))
            columns["rank"].append(rank)
            columns["window"].append(torch.tensor([order[n] for n in group.window[unit, slot].tolist()]).long())
            scale = decimals[unit, None]
            columns["activations"].append((group.active[unit, slot].float() * scale).round() / scale)
        columns = {name: torch.cat(parts).numpy() for name, parts in columns.items()}
        by = np.lexsort((columns["rank"], columns["group"], columns["feature"]))
        columns = {name: values[by] for name, values in columns.items()}
        columns["peak"] = np.abs(columns["activations"]).argmax(1) if len(by) else columns["rank"]
        columns["group"] = np.array(GROUPS)[columns["group"]]
        size = lengths[columns["window"]] if len(by) else columns["rank"]
        there = np.arange(WINDOW) < size[:, None]
        columns["activations"] = ListColumn(columns["activations"][there], size)
        return columns


class _Group:
    """Of each unit the windows with the largest keys: their numbers and what the unit does in them."""

    def __init__(self, n_units, n):
        self.key = torch.zeros(n_units, n)
        self.window = torch.full((n_units, n), -1)
        self.active = torch.zeros(n_units, n, WINDOW, dtype=torch.float16)

    def offer(self, key, numbers, active):
        """key [unit, window], 0 for a window that is none of this group's; active [window, position, unit]."""
        n = self.key.shape[1]
        units = (key > self.key[:, -1:]).any(1).nonzero()[:, 0]  # most are done: nothing here is above their least key
        self.key[units], order = torch.cat([self.key[units], key[units]], 1).topk(n, 1)
        unit, slot = (order >= n).nonzero(as_tuple=True)
        chosen, stays = order[unit, slot] - n, order.clamp(max=n - 1)
        for mine, new in ((self.window, numbers[chosen]), (self.active, _widened(active[chosen, :, units[unit]]))):
            kept = mine[units].take_along_dim(stays if mine.ndim == 2 else stays[..., None], 1)
            kept[unit, slot] = new
            mine[units] = kept
        self.window[self.key == 0] = -1

    def forget(self, units):
        self.key[units], self.window[units] = 0, -1


def _widened(active):
    """[example, position] in half precision, filled up with zeros to whole windows."""
    wide = torch.zeros(len(active), WINDOW, dtype=torch.float16)
    wide[:, : active.shape[1]] = active.clamp(-65504, 65504)
    return wide
