"""The feature store: for every feature the texts on which it fires, and the tokens it promotes."""

from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..formats.feature_json import read_features, write_features
from ..storage.atomic import atomic_folder
from ..storage.shipped import FEATURES, shipped_folder

TO_LABEL, TO_TEST = ("top", "sample"), ("held", "silent", "near")
LISTS = {"promotes": "promotes", "suppresses": "suppresses", "promoted_by": "driven by"}
QUARTERS = ("strongest", "second", "third", "weakest")
SCORES = ("detection", "fuzzing", "embedding", "steering")  # columns of a table of labels that a card shows
ROWS = 2000  # examples of one layer that are read from disk together


class ListColumn(NamedTuple):
    """A column of lists: all values one after the other, and how many each row has."""

    values: np.ndarray
    sizes: np.ndarray


class FeatureStore:
    """Where features (of a transcoder, or the neurons of a model) fire.

    `features`: one row a feature: layer, feature, density (share of tokens it fires on), highest activation,
    half_octaves (a histogram: how many tokens in each half octave of activation, from 2 ** -12 up), the tokens that
    what it writes, summed over the layers it writes to, raises (promotes) and lowers (suppresses) most, and those whose
    embedding drives it (promoted_by). Where the texts come from a world with known truth, also what the feature detects
    (concept) and how well (F1).

    `of(layer, feature)`: its examples, one row each: group, rank, tokens and activations (lists, one entry a token),
    peak (the position of the highest). Of each group the strongest come first:

        top      the windows in which it is strongest
        sample   drawn at random among those in which it fires, because the strongest alone flatter a feature
        held     likewise, but from windows kept aside: no label may be made from these three, they are there to test it
        silent   drawn at random among those kept aside in which it does not fire
        near     likewise, but with the token in them on which it is strongest

    A store that was opened from disk reads the examples of a layer when they are asked for.
    """

    def __init__(self, features: pd.DataFrame, examples: pd.DataFrame):
        """Of tables in memory; examples as `examples` gives them."""
        texts = {}
        number = [texts.setdefault(tuple(tokens), len(texts)) for tokens in examples["tokens"]]
        columns = examples.drop(columns="tokens").assign(window=np.array(number, dtype=int))
        layers = {
            int(layer): pa.Table.from_pandas(part.drop(columns="layer"), preserve_index=False)
            for layer, part in columns.sort_values(["layer", "feature"], kind="stable").groupby("layer")
        }
        self._set(features, layers, _texts(texts))

    @classmethod
    def of_layers(cls, features, examples, windows) -> "FeatureStore":
        """examples: {layer: columns, ordered by feature}; the column "window" counts `windows`, lists of tokens."""
        store = cls.__new__(cls)
        store._set(features, {layer: _table(columns) for layer, columns in examples.items()}, _texts(windows))
        return store

    def _set(self, features, layers, windows):
        self.features, self._layers, self._windows = features, layers, windows
        self._rows = {(r.layer, r.feature): i for i, r in enumerate(features.itertuples())}

    @cache  # noqa: B019
    def _places(self, layer):
        """{feature: (first row, rows)} in the layer's examples."""
        if layer not in self._layers:
            return {}
        column = self._layers[layer].column("feature").to_numpy()
        features, first, count = np.unique(column, return_index=True, return_counts=True)
        return dict(zip(features.tolist(), zip(first.tolist(), count.tolist())))

    def of(self, layer: int, feature: int) -> pd.DataFrame:
        """The examples of one feature; empty when it never fired."""
        first, count = self._places(layer).get(feature, (0, 0))
        if not count:
            return pd.DataFrame(columns=["layer", "feature", "group", "rank", "tokens", "activations", "peak"])
        return self._frame(layer, self._layers[layer].slice(first, count))

    def _frame(self, layer, table):
        frame = table.to_pandas().astype({"group": str})
        tokens = self._windows.take(pa.array(frame.pop("window"))).to_pylist()
        at = frame.columns.get_loc("activations")
        frame.insert(at, "tokens", pd.Series(tokens, dtype=object, index=frame.index))
        frame.insert(0, "layer", layer)
        return frame

    @property
    def examples(self) -> pd.DataFrame:
        """All examples in one table, with layer and feature: large."""
        frames = [self._frame(layer, table.slice(0)) for layer, table in self._layers.items()]
        return pd.concat(frames, ignore_index=True) if frames else self.of(-1, -1)

    def row(self, layer: int, feature: int) -> pd.Series:
        """The feature's row of `features`. Raises KeyError when the store does not have it."""
        return self.features.iloc[self._rows[layer, feature]]

    def texts(self, groups=None) -> list[list[str]]:
        """All windows that are somebody's example, as lists of tokens; with `groups` those that are one of these."""
        if groups is None:
            return self._windows.to_pylist()
        used = set()
        for table in self._layers.values():
            here = np.isin(table.column("group").to_numpy().astype(str), groups)
            used.update(np.unique(table.column("window").to_numpy()[here]).tolist())
        return self._windows.take(pa.array(sorted(used), pa.int32())).to_pylist()

    def card(self, layer: int, feature: int, n_examples: int = 5) -> dict:
        """What the card in a graph shows, as plain data."""
        if (layer, feature) not in self._rows:
            return {}
        row = self.row(layer, feature)
        examples = [_plain(e) for e in _different(self.of(layer, feature))[:n_examples]]
        card = {"examples": examples, "promotes": list(row["promotes"]), "suppresses": list(row["suppresses"])}
        concept = row.get("concept")
        return card | {"concept": f"{concept} (F1 {row['F1']:.2f})" if isinstance(concept, str) else None}

    def show(self, layer: int, feature: int, labels: pd.DataFrame | None = None, graph=None, n_examples: int = 6):
        """A card: label and its evidence, histogram, promoted tokens, and examples with their activations; with a
        `graph` also the ids of the feature's nodes in it. Scores in the table of labels are shown too.

        Raises KeyError when the store does not have the feature.
        """
        from ..widgets import FeatureCard

        return FeatureCard(self._card_data(layer, feature, _by_feature(labels), graph, n_examples))

    def browse(self, labels: pd.DataFrame | None = None, graph=None):
        """A widget to search all features by label, token or layer, and to name them; what was typed is in its
        `labels`, see `ik.features.student_labels`."""
        from ..widgets import FeatureBrowser

        named = _by_feature(labels)
        rows = []
        for r in self.features.itertuples():
            about = named.get((r.layer, r.feature), {})
            label = about.get("label", "")
            search = " ".join([label, about.get("evidence") or "", *r.promotes])
            rows.append({"layer": int(r.layer), "feature": int(r.feature), "label": label, "search": search})
        return FeatureBrowser(rows, lambda layer, feature: self._card_data(layer, feature, named, graph, 6))

    def _card_data(self, layer, feature, named, graph, n_examples):
        row, about, examples = self.row(layer, feature), named.get((layer, feature), {}), self.of(layer, feature)
        facts = {"on": f"{row['density']:.2%} of tokens", "highest": float(row["highest"])}
        facts |= {name: float(about[name]) for name in SCORES if about.get(name) == about.get(name, np.nan)}
        drawn = list(examples[examples["group"] == "sample"].itertuples())
        groups = {"strongest, one for each different token": _different(examples)[:n_examples]}
        for i, quarter in enumerate(QUARTERS):
            part = drawn[i * len(drawn) // 4 : (i + 1) * len(drawn) // 4]
            groups[f"drawn at random, {quarter} quarter"] = part[: max(1, n_examples // 3)]
        nodes = [] if graph is None else graph.nodes.query("layer == @layer and feature == @feature")["id"].tolist()
        histogram = row.get("half_octaves", row.get("histogram"))
        return {
            "title": f"layer {layer}, feature {feature}",
            "label": about.get("label"),
            "evidence": about.get("evidence"),
            "facts": facts,
            "histogram": [] if histogram is None else [int(n) for n in histogram],
            "lists": {name: list(row[column]) for column, name in LISTS.items() if row.get(column) is not None},
            "groups": {name: [_plain(e) for e in some] for name, some in groups.items()},
            "nodes": nodes,
        }

    def save(self, folder: str | Path, labels: pd.DataFrame | None = None) -> None:
        """Writes parquet files to `folder`: features, windows, the examples of each layer, and labels where given."""
        with atomic_folder(folder) as temporary:
            self.features.to_parquet(temporary / "features.parquet", index=False, compression="zstd")
            if labels is not None:
                labels.to_parquet(temporary / "labels.parquet", index=False, compression="zstd")
            windows = pa.table({"tokens": self._windows})
            pq.write_table(windows, temporary / "windows.parquet", compression="zstd")
            for layer, table in self._layers.items():
                path = temporary / f"examples_{layer}.parquet"
                pq.write_table(table.slice(0), path, compression="zstd", row_group_size=ROWS)

    def save_json(self, folder: str | Path, only: Iterable[tuple[int, int]] | None = None) -> None:
        """One JSON file a feature, as the public graph viewer and Neuronpedia read them; `load_feature_json` reads them
        back. `only`: the (layer, feature) pairs to write, by default all.

        Raises ValueError for a feature that the store does not have, and for a folder with other files in it.
        """
        rows = {(row["layer"], row["feature"]): row for row in self.features.to_dict("records")}
        wanted = sorted(rows) if only is None else sorted((int(layer), int(feature)) for layer, feature in only)
        missing = [at for at in wanted if at not in rows]
        if missing:
            raise ValueError(f"this store has no feature {missing[0]}; {len(missing)} of {len(wanted)} are not in it")
        write_features(((rows[at], self.of(*at)) for at in wanted), folder)

    def __repr__(self):
        live = (self.features["density"] > 0).sum()
        return f"FeatureStore({len(self.features):,} features, {live:,} of them live, {len(self._windows):,} texts)"


def load_features(name: str | Path) -> FeatureStore:
    """The shipped store of a model ("pocket", "smollm2"), or one that `save` wrote to a folder.

    Raises FileNotFoundError when there is none, ValueError when a file is damaged.
    """
    folder = _folder(name, "features.parquet", "store.save(folder)")
    try:
        features = pd.read_parquet(folder / "features.parquet")
        windows = pq.read_table(folder / "windows.parquet").column("tokens").combine_chunks()
        paths = {int(path.stem.split("_")[1]): path for path in folder.glob("examples_*.parquet")}
        layers = {layer: _File(paths[layer]) for layer in sorted(paths)}
    except (OSError, ValueError) as error:
        raise ValueError(f"the feature store in {folder} is damaged ({error}); copy it again or rebuild it") from error
    store = FeatureStore.__new__(FeatureStore)
    store._set(features, layers, windows)
    return store


def load_feature_json(folder: str | Path) -> FeatureStore:
    """A store of the features in a folder of public JSON files, {index}.json, ours or another tool's.

    Raises FileNotFoundError where there are none, ValueError naming the file, the place in it and what was expected.
    """
    return FeatureStore(*read_features(folder))


def load_labels(name: str | Path) -> pd.DataFrame:
    """The labels that ship with the store of a model ("pocket", "smollm2"), or that were saved with one: the table of
    `ik.label_features`, with their scores where they were scored.

    Raises FileNotFoundError when there are none.
    """
    labels = pd.read_parquet(_folder(name, "labels.parquet", "store.save(folder, labels)") / "labels.parquet")
    return labels.assign(words=[words if words is None else tuple(words) for words in labels["words"]])


def _folder(name, file, how):
    folder = shipped_folder(FEATURES[name]) if name in FEATURES else Path(name)
    if not (folder / file).exists():
        raise FileNotFoundError(
            f"no {file} at {str(name)!r}: expected one of {', '.join(FEATURES)}, or a folder written by {how}"
        )
    return folder


class _File:
    """The examples of a layer on disk: as much of a `pa.Table` as a store needs, read group of rows by group."""

    def __init__(self, path):
        self.file = pq.ParquetFile(path, memory_map=True)
        sizes = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.ends = np.cumsum(sizes)
        self._group = lru_cache(maxsize=2)(self.file.read_row_group)

    def column(self, name):
        return self.file.read([name]).column(name)

    def slice(self, first, count=None):
        end = self.file.metadata.num_rows if count is None else first + count
        groups = range(int(np.searchsorted(self.ends, first, "right")), int(np.searchsorted(self.ends, end)) + 1)
        start = self.ends[groups[0] - 1] if groups[0] else 0
        return pa.concat_tables([self._group(i) for i in groups]).slice(first - start, end - first)


def _different(examples):
    """Those that labels may be made from, strongest first, but one for each different token at the peak before a second
    one: twenty times the same word would hide that the feature fires on others."""
    usable = examples[~examples["group"].isin(TO_TEST)]
    ranked = sorted(usable.itertuples(), key=lambda e: -abs(e.activations[e.peak]))
    seen, first, again = set(), [], []
    for example in ranked:
        token = example.tokens[example.peak]
        (again if token in seen else first).append(example)
        seen.add(token)
    return first + again


def _plain(example):
    return {"tokens": list(example.tokens), "activations": [float(a) for a in example.activations]}


def _by_feature(labels):
    return {} if labels is None else {(r["layer"], r["feature"]): r for r in labels.to_dict("records")}


def _texts(windows):
    """Lists of tokens as an arrow array; each different token is kept once."""
    sizes = [len(tokens) for tokens in windows]
    flat = pa.array([token for tokens in windows for token in tokens], pa.string()).dictionary_encode()
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *sizes]), pa.int32()), flat)


def _table(columns):
    arrays = {}
    for name, values in columns.items():
        if isinstance(values, ListColumn):
            offsets = pa.array(np.concatenate([[0], np.cumsum(values.sizes)]).astype(np.int32))
            arrays[name] = pa.ListArray.from_arrays(offsets, pa.array(values.values.astype(np.float32)))
        elif values.dtype.kind in "US":
            arrays[name] = pa.array(values.tolist(), pa.string()).dictionary_encode()
        else:
            arrays[name] = pa.array(values.astype(np.int32))
    return pa.table(arrays)
