"""Looking features up in text, in one pass: on which windows of text does each fire, how often and how strongly."""

import zlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import pad as pad_zeros

from ..formats.provenance import About, insisted
from ..hardware import check_memory
from ..models import LanguageModel
from ..models.arguments import checked
from ..text.batches import TOKENS_AT_ONCE, of_similar_size, pad
from ..text.rows import NOTHING, TextRows, Texts
from ..widgets.progress import ProgressBar
from .dictionaries import (
    SIGNED_SILENCE,
    AnyDictionary,
    Dictionary,
    Neurons,
    as_dictionary,
    dictionary_name,
    top_tokens,
)
from .examples import LABEL_GROUPS, TEST_GROUPS, Examples, ListColumn
from .store import FeatureStore

if TYPE_CHECKING:
    from ..widgets import FeatureCard

WINDOW_TOKENS = 32  # of an example
ROWS_AT_ONCE = 256  # sorted by length together, so that little padding is computed
TEST_WINDOW_EVERY = 4  # one window in so many is for testing labels only
N_TOP_TOKENS = 6
HISTOGRAM_BINS, HISTOGRAM_START = 48, -24  # half octaves, the first from 2 ** -12
SLICE_TENSORS, TOKEN_TENSORS = 6, 5  # alive at once: [token, feature] of a layer; [token of the vocabulary, d_model]
TABLES_BYTES = 50e6  # of pandas, pyarrow and the tables that they make
PRUNE_EVERY_WINDOWS = 50_000  # those that are nobody's example any more are let go
GROUPS = LABEL_GROUPS + TEST_GROUPS
ACTIVATING_GROUPS = ("top", "sample", "held_out")


@checked
@torch.no_grad()
def collect_features(
    model: LanguageModel, dictionary: AnyDictionary, texts: Texts, n_examples: int = 10, seed: int = 0
) -> FeatureStore:
    """Reads `texts` once and keeps for each feature its examples, a histogram, and the tokens whose logits it raises.

    dictionary: a transcoder, or `ik.features.Neurons(model)`.
    texts: a list of strings, a .txt or .jsonl file, or a stream such as a Hugging Face data set.
    n_examples: windows kept of each group (see `FeatureStore`), of at most 32 tokens each.

    Memory is bounded by the number of features times `n_examples`, however long the texts. The first position, where
    the begin-of-text token stands, is left out: models put unusual activations there. A window that occurs again is
    counted, but is an example only once. Raises ValueError for a transcoder of another model or texts without tokens,
    TypeError for what has no features or is no text, MemoryError where that would not fit, before the texts are read.

    >>> store = ik.collect_features(model, transcoder, texts)
    >>> store.browse(ik.label_features(store))
    """
    dictionary = as_dictionary(model, dictionary)
    check_room(dictionary, n_examples)
    rows = TextRows(model, texts, seed)
    total = len(rows.texts) if isinstance(rows.texts, Sequence) else None
    start = max(len(model.prefix_ids), int(dictionary.excludes_first_position))
    reader = _Reader(dictionary, start, n_examples, seed)
    with ProgressBar(total=total, desc="collecting features", unit=" texts", leave=False) as bar:
        stream = rows.epoch()
        while some := list(islice(stream, ROWS_AT_ONCE)):
            reader.read(some)
            bar.set_postfix_str(f"{reader.tokens:,} tokens", refresh=False)
            bar.update(rows.texts_read - bar.n)
    if not reader.tokens:
        raise ValueError(NOTHING)
    return reader.store()


def check_room(dictionary: Dictionary, n_examples: int) -> None:
    """Raises MemoryError where `n_examples` of each group, or what is computed at once, do not fit."""
    model, widths, d_model = dictionary.model, dictionary.n_features_per_layer, dictionary.model.d_model
    an_example = 4 + 8 + 2 * WINDOW_TOKENS  # its key, its window, activations in half precision
    kept = sum(widths) * (8 * HISTOGRAM_BINS + len(GROUPS) * n_examples * an_example)
    reading = TOKENS_AT_ONCE * 4 * (2 * len(widths) * d_model + SLICE_TENSORS * max(widths))
    naming = TOKEN_TENSORS * 4 * model.vocab_size * d_model  # finding each feature's tokens
    remedy = "Use fewer examples (n_examples), or a dictionary of fewer features"
    check_memory(kept + max(reading, naming) + TABLES_BYTES, f"collecting examples of {sum(widths):,} features", remedy)


@checked
def neuron_examples(model: LanguageModel, layer: int, neuron: int, texts: Texts, n_examples: int = 10) -> "FeatureCard":
    """A card of one neuron: the windows of `texts` in which it is strongest, of either sign, and some at random.

    Raises ValueError for a layer or a neuron that the model does not have.

    >>> ik.features.neuron_examples(model, layer=2, neuron=6, texts=texts)
    """
    neurons = Neurons(model, [layer])
    n = neurons.n_features_per_layer[0]
    if not 0 <= neuron < n:
        raise ValueError(f"neuron {neuron}: layer {layer} has neurons 0 to {n - 1}")
    return collect_features(model, neurons, texts, n_examples).show(layer, neuron, n_examples=n_examples)


class _Windows(NamedTuple):
    """Pieces of text: token ids [window, position], which are real, each window's number, and the groups it may be in;
    neither where the same piece is an example already."""

    ids: torch.Tensor
    real: torch.Tensor
    numbers: torch.Tensor
    to_label: torch.Tensor
    to_test: torch.Tensor


class _Reader:
    """What is known of a dictionary's features so far."""

    def __init__(self, dictionary: Dictionary, start: int, n_examples: int, seed: int) -> None:
        """start: the first position that counts."""
        self.dictionary, self.start = dictionary, start
        draw, silence = torch.Generator().manual_seed(seed), SIGNED_SILENCE if dictionary.is_signed else 0.0
        widths, n_tokens = dictionary.n_features_per_layer, dictionary.model.vocab_size
        self.layers = [_Layer(width, n_examples, silence, n_tokens, draw) for width in widths]
        self.tokens = self.met = self.pruned_at = 0
        self.numbers: dict[tuple[int, ...], int] = {}  # of the windows that may be examples

    def read(self, rows: Sequence[list[int]]) -> None:
        """Takes rows of token ids into account."""
        for some in of_similar_size(sorted(rows, key=len)):
            ids, real = pad(some)
            width = min(WINDOW_TOKENS, ids.shape[1] - self.start)
            if width < 1:
                continue
            cut = lambda t: _cut(t[:, self.start :], width)  # noqa: E731, B023
            used = cut(real).any(1)  # not all padding
            windows = self._windows(cut(ids)[used], cut(real)[used])
            self.tokens += int(windows.real.sum())
            layers = self.dictionary.activations(ids.to(self.dictionary.model.device))
            for layer, active in zip(self.layers, layers, strict=True):
                layer.read(cut(active.float().cpu())[used] * windows.real[..., None], windows)
        if self.met - self.pruned_at > PRUNE_EVERY_WINDOWS:
            self._prune()

    def _windows(self, ids: torch.Tensor, real: torch.Tensor) -> _Windows:
        numbers, sides = [], []
        for line, length in zip(ids.tolist(), real.sum(1).tolist(), strict=True):
            piece = tuple(line[:length])
            new = piece not in self.numbers
            numbers.append(self.numbers.setdefault(piece, self.met))
            side = zlib.crc32(np.array(piece).tobytes()) % TEST_WINDOW_EVERY == 0
            sides.append((new and not side, new and side))
            self.met += 1
        to_label, to_test = torch.tensor(sides).T
        return _Windows(ids, real, torch.tensor(numbers), to_label, to_test)

    def _prune(self) -> None:
        used = {n for layer in self.layers for group in layer.groups.values() for n in group.window.unique().tolist()}
        self.numbers = {piece: number for piece, number in self.numbers.items() if number in used}
        self.pruned_at = self.met

    def store(self) -> FeatureStore:
        self._prune()
        model = self.dictionary.model
        order = {number: i for i, number in enumerate(self.numbers.values())}
        names = model.tokens(torch.arange(model.vocab_size))
        windows = [[names[i] for i in piece] for piece in self.numbers]
        lengths = np.array([len(piece) for piece in self.numbers], int)
        features, examples = [], {}
        top = top_tokens(self.dictionary, N_TOP_TOKENS)
        for number, layer, tokens in zip(self.dictionary.layers, self.layers, top, strict=True):
            table = pd.DataFrame({"layer": number, "feature": range(len(layer.max_activation))})
            table["density"] = layer.density(self.tokens)
            table["max_activation"] = layer.max_activation.tolist()
            for name, ids in tokens._asdict().items():
                table[name] = [[names[token] for token in line] for line in ids.tolist()]
            features.append(table.assign(log_histogram=layer.histogram.tolist()))
            examples[number] = layer.examples(order, lengths)
        table = pd.concat(features, ignore_index=True)
        table.attrs["about"] = insisted(About(transcoder=dictionary_name(self.dictionary)), model)
        return FeatureStore(table, Examples.from_columns(windows, examples))


def _cut(t: torch.Tensor, width: int) -> torch.Tensor:
    """[row, position, ...] -> [window, width, ...], the last of each row filled up with zeros."""
    more = -t.shape[1] % width
    if more:
        t = torch.cat([t, t.new_zeros(t.shape[0], more, *t.shape[2:])], 1)
    return t.reshape(-1, width, *t.shape[2:])


class _Layer:
    """What is known of one layer's features so far.

    silence: a feature counts as silent up to this share of its largest activation.
    """

    def __init__(self, n_features: int, n_examples: int, silence: float, n_tokens: int, draw: torch.Generator) -> None:
        self.groups = {name: _Group(n_features, n_examples) for name in GROUPS}
        self.silence, self.n_tokens, self.draw = silence, n_tokens, draw
        self.max_activation = torch.zeros(n_features)
        self.favourite = torch.zeros(n_features, dtype=torch.long)  # the token at which that was
        self.histogram = torch.zeros(n_features, HISTOGRAM_BINS, dtype=torch.long)

    def read(self, active: torch.Tensor, windows: _Windows) -> None:
        """active [window, position, feature], 0 at padding."""
        strength = active.abs()
        self._count(strength)
        best, peak = strength.max(1)  # [window, feature]
        self._raise_max_activation(best, peak, windows.ids)
        fires = best > self.silence * self.max_activation
        near = self._has_favourite(windows) & ~fires
        label, test = windows.to_label[:, None] & fires, windows.to_test[:, None]
        chance = torch.rand(best.shape, generator=self.draw) + 1  # above the 0 that means "not at all"
        keys = {
            "top": best * label,
            "sample": chance * label,
            "held_out": chance * (test & fires),
            "non_activating": chance * (test & ~fires),
            "hard_negative": chance * (test & near),
        }
        for name, key in keys.items():
            self.groups[name].offer(key.T, windows.numbers, active)

    def _count(self, strength: torch.Tensor) -> None:
        window, position, feature = strength.nonzero(as_tuple=True)
        halves = (2 * strength[window, position, feature].log2()).floor().long() - HISTOGRAM_START
        flat = feature * HISTOGRAM_BINS + halves.clamp(0, HISTOGRAM_BINS - 1)
        self.histogram += torch.bincount(flat, minlength=self.histogram.numel()).view_as(self.histogram)

    def _raise_max_activation(self, best: torch.Tensor, peak: torch.Tensor, ids: torch.Tensor) -> None:
        value, window = best.max(0)
        higher = (value > self.max_activation).nonzero()[:, 0]
        window = window[higher]
        self.max_activation[higher] = value[higher]
        favourite = ids[window, peak[window, higher]]
        self.groups["hard_negative"].forget(higher[favourite != self.favourite[higher]])
        self.favourite[higher] = favourite

    def _has_favourite(self, windows: _Windows) -> torch.Tensor:
        """[window, feature]: whether the token at which the feature was strongest is in the window."""
        there = torch.zeros(len(windows.ids), self.n_tokens + 1, dtype=torch.bool)
        there.scatter_(1, torch.where(windows.real, windows.ids, self.n_tokens), True)
        return there[:, self.favourite]

    def density(self, tokens: int) -> np.ndarray:
        """The share of tokens on which each feature is active; of one that is never quite 0, to within a bin."""
        least = self.silence * self.max_activation
        first = (2 * least.log2()).ceil().clamp(min=HISTOGRAM_START).long() - HISTOGRAM_START
        return (self.histogram * (torch.arange(HISTOGRAM_BINS) >= first[:, None])).sum(1).double().numpy() / tokens

    def examples(self, order: Mapping[int, int], lengths: np.ndarray) -> dict[str, np.ndarray | ListColumn]:
        """Columns of the table of examples, by feature and group, the strongest of each group first."""
        parts = []
        decimals = 10 ** (3 - self.max_activation.clamp(min=1e-12).log10().ceil())  # three digits of the largest
        for number, (name, group) in enumerate(self.groups.items()):
            strength = group.active.abs().amax(2).float()
            there = group.window >= 0
            if name in ACTIVATING_GROUPS:  # what was strong once may be weak beside what came later
                there &= strength > self.silence * self.max_activation[:, None]
            sorted_, by = torch.where(there, strength, -1).sort(dim=1, descending=True, stable=True)
            feature, rank = (sorted_ >= 0).nonzero(as_tuple=True)
            slot, scale = by[feature, rank], decimals[feature, None]
            window = torch.tensor([order[n] for n in group.window[feature, slot].tolist()], dtype=torch.long)
            active = (group.active[feature, slot].float() * scale).round() / scale
            parts.append((feature, torch.full_like(feature, number), rank, window, active))
        feature, group, rank, window, active = (torch.cat(some).numpy() for some in zip(*parts))
        by = np.lexsort((rank, group, feature))
        columns = {"feature": feature, "group": np.array(GROUPS)[group], "rank": rank, "window": window}
        columns = {name: values[by] for name, values in columns.items()}
        active, size = active[by], lengths[columns["window"]]
        lists = ListColumn(active[np.arange(WINDOW_TOKENS) < size[:, None]], size)
        return columns | {"activations": lists, "peak": np.abs(active).argmax(1)}


class _Group:
    """Of each feature the windows with the largest keys: their numbers and its activations in them."""

    def __init__(self, n_features: int, n: int) -> None:
        self.key = torch.zeros(n_features, n)
        self.window = torch.full((n_features, n), -1)
        self.active = torch.zeros(n_features, n, WINDOW_TOKENS, dtype=torch.float16)

    def offer(self, key: torch.Tensor, numbers: torch.Tensor, active: torch.Tensor) -> None:
        """key [feature, window], 0 for a window that is none of this group's; active [window, position, feature]."""
        n = self.key.shape[1]
        changed = (key > self.key[:, -1:]).any(1).nonzero()[:, 0]  # for most, nothing is above their least
        self.key[changed], order = torch.cat([self.key[changed], key[changed]], 1).topk(n, 1)
        row, slot = (order >= n).nonzero(as_tuple=True)
        chosen, stays = order[row, slot] - n, order.clamp(max=n - 1)
        new_active = active[chosen, :, changed[row]].clamp(-65504, 65504).half()  # the largest of half precision
        new_active = pad_zeros(new_active, (0, WINDOW_TOKENS - new_active.shape[1]))
        for mine, new in ((self.window, numbers[chosen]), (self.active, new_active)):
            kept = mine[changed].take_along_dim(stays if mine.ndim == 2 else stays[..., None], 1)
            kept[row, slot] = new
            mine[changed] = kept
        self.window[self.key == 0] = -1

    def forget(self, features: torch.Tensor) -> None:
        self.key[features], self.window[features] = 0, -1
