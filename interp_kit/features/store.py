"""The feature store: for every feature the texts on which it fires, and the tokens whose logits it raises."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..formats.feature_json import ExampleRow, example_rows, read_features, write_features
from ..formats.graph_tables import Card, Example
from ..storage.folders import opened_folder, saved_folder
from ..storage.shipped import FEATURES, shipped_folder
from .examples import TEST_GROUPS, Examples

if TYPE_CHECKING:  # the graphs take a store's cards, and widgets are imported where something is shown
    from ..graphs import AttributionGraph
    from ..widgets import FeatureBrowser, FeatureCard, FeatureCardData, FeatureRow

Pairs = Iterable[tuple[int, int]]  # (layer, feature)
QUARTERS = ("strongest", "second", "third", "weakest")
TOKEN_COLUMNS = {"top_logits": "top logits", "bottom_logits": "bottom logits", "top_embeddings": "top embeddings"}
SCORE_COLUMNS = ("detection", "fuzzing", "embedding", "steering")  # of a table of labels, that a card shows
# Columns as they were called before version 0.2; stores of that time are read.
OLD_COLUMNS = {
    "highest": "max_activation",
    "half_octaves": "log_histogram",
    "promotes": "top_logits",
    "suppresses": "bottom_logits",
    "promoted_by": "top_embeddings",
}


class FeatureStore:
    """Where the features of a dictionary (a transcoder, or a model's neurons) fire.

    `features`: one row a feature.

        layer, feature  its index in its layer
        density         share of tokens on which it fires
        max_activation  the largest activation met
        log_histogram   how many tokens in each of 48 bins; bin i holds activations from 2 ** ((i - 24) / 2) up
        top_logits      the tokens whose logits its decoder, summed over the layers it writes to, raises most
        bottom_logits   and those that it lowers most
        top_embeddings  the tokens whose embedding drives its encoder most
        concept, F1     of a world with known truth: what it detects, and how well

    `examples_of(layer, feature)`: its examples, one row each: group, rank, tokens and activations (lists, one entry a
    token), peak (the position of the strongest). Of each group the strongest come first.

        top             the windows in which it is strongest
        sample          drawn at random among those in which it fires, because the strongest alone flatter a feature
        held_out        likewise, but from windows kept aside: these three groups test labels, and none is made of them
        non_activating  drawn at random among those kept aside in which it does not fire
        hard_negative   likewise, but with the token in them on which it is strongest

    A store that was opened from disk reads the examples of a layer when they are asked for.

    >>> store = ik.load_features("pocket")
    >>> store.show(1, 4, ik.load_labels("pocket"))
    """

    def __init__(self, features: pd.DataFrame, examples: pd.DataFrame | Examples) -> None:
        """examples: a table like that of `examples`, with layer and feature."""
        self.features = features
        self._examples = Examples.from_frame(examples) if isinstance(examples, pd.DataFrame) else examples
        self._rows = {at: i for i, at in enumerate(zip(features["layer"].tolist(), features["feature"].tolist()))}

    @property
    def examples(self) -> pd.DataFrame:
        """All examples in one table, with layer and feature: large."""
        return self._examples.frame()

    def examples_of(self, layer: int, feature: int) -> pd.DataFrame:
        """The examples of one feature; empty when it never fired."""
        return self._examples.of(layer, feature)

    def row(self, layer: int, feature: int) -> pd.Series:
        """The feature's row of `features`. Raises KeyError when the store does not have it."""
        return self.features.iloc[self._rows[layer, feature]]

    def windows(self, groups: Collection[str] | None = None) -> list[list[str]]:
        """All windows that are an example of a feature, as lists of tokens; with `groups`, those of these groups."""
        return self._examples.windows(groups)

    def join(self, table: pd.DataFrame) -> "FeatureStore":
        """A store with the further columns of `table` in `features`, matched by layer and feature; NaN where it has no
        row.

        Raises ValueError for a table that has a feature twice.

        >>> store = store.join(recovery.detectors[["layer", "feature", "concept", "F1"]])
        """
        features = self.features.merge(table, on=["layer", "feature"], how="left", validate="many_to_one")
        return FeatureStore(features, self._examples)

    # ------------------------------------------------------------------ cards

    def card(self, layer: int, feature: int, n_examples: int = 5) -> Card:
        """What a graph shows of a feature, as plain data; empty where the store does not have it."""
        if (layer, feature) not in self._rows:
            return {}
        row = self.row(layer, feature)
        concept = row.get("concept")
        return {
            "concept": f"{concept} (F1 {row['F1']:.2f})" if isinstance(concept, str) else None,
            "examples": _strongest(self.examples_of(layer, feature), n_examples),
            "top_logits": list(row["top_logits"]),
            "bottom_logits": list(row["bottom_logits"]),
        }

    def show(
        self,
        layer: int,
        feature: int,
        labels: pd.DataFrame | None = None,
        graph: "AttributionGraph | None" = None,
        n_examples: int = 6,
    ) -> "FeatureCard":
        """A card: label and its evidence, histogram, tokens, and examples with their activations; with a `graph` also
        the ids of the feature's nodes in it. Scores in the table of labels are shown too.

        Raises KeyError when the store does not have the feature.
        """
        from ..widgets import FeatureCard

        return FeatureCard(self._card_view(layer, feature, _by_feature(labels), graph, n_examples))

    def browse(self, labels: pd.DataFrame | None = None, graph: "AttributionGraph | None" = None) -> "FeatureBrowser":
        """A widget to search all features by label, token or layer, and to name them; what was typed is in its
        `labels`, see `ik.features.student_labels`."""
        from ..widgets import FeatureBrowser

        named = _by_feature(labels)
        rows: list[FeatureRow] = []
        columns = self.features[["layer", "feature", "top_logits"]]
        for layer, feature, top_logits in columns.itertuples(index=False, name=None):
            about = named.get((layer, feature), {})
            label = about.get("label", "")
            search = " ".join([label, about.get("evidence") or "", *top_logits])
            rows.append({"layer": int(layer), "feature": int(feature), "label": label, "search": search})
        return FeatureBrowser(rows, lambda layer, feature: self._card_view(layer, feature, named, graph, 6))

    def _card_view(
        self, layer: int, feature: int, named: dict, graph: "AttributionGraph | None", n_examples: int
    ) -> "FeatureCardData":
        """The data of a `FeatureCard`."""
        row, examples = self.row(layer, feature), self.examples_of(layer, feature)
        about = named.get((layer, feature), {})
        scores = {name: float(about[name]) for name in SCORE_COLUMNS if not pd.isna(about.get(name, np.nan))}
        groups = {"strongest, one for each different token": _strongest(examples, n_examples)}
        drawn = [_plain(e) for e in example_rows(examples[examples["group"] == "sample"])]
        for i, quarter in enumerate(QUARTERS):
            part = drawn[i * len(drawn) // 4 : (i + 1) * len(drawn) // 4]
            groups[f"drawn at random, {quarter} quarter"] = part[: max(1, n_examples // 3)]
        nodes = [] if graph is None else graph.nodes.query("layer == @layer and feature == @feature")["id"].tolist()
        histogram, on = row.get("log_histogram", row.get("histogram")), f"{row['density']:.2%} of tokens"
        return {
            "title": f"layer {layer}, feature {feature}",
            "label": about.get("label"),
            "evidence": about.get("evidence"),
            "facts": {"on": on, "max activation": float(row["max_activation"]), **scores},
            "histogram": [] if histogram is None else [int(n) for n in histogram],
            "lists": {name: list(row[key]) for key, name in TOKEN_COLUMNS.items() if row.get(key) is not None},
            "groups": groups,
            "nodes": nodes,
        }

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path, labels: pd.DataFrame | None = None) -> None:
        """Writes parquet files to `folder`: features, windows, the examples of each layer, and labels where given."""
        with saved_folder(folder) as stage:
            self.features.to_parquet(stage / "features.parquet", index=False, compression="zstd")
            if labels is not None:
                labels.to_parquet(stage / "labels.parquet", index=False, compression="zstd")
            self._examples.save(stage)

    def save_json(self, folder: str | Path, only: Pairs | None = None) -> None:
        """One JSON file a feature, as the public graph viewer and Neuronpedia read them; `load_feature_json` reads them
        back.

        only: the (layer, feature) pairs to write, by default all.

        Raises ValueError for a feature that the store does not have, and for a folder with other files in it.
        """
        rows = _by_feature(self.features)
        wanted = sorted(rows) if only is None else sorted((int(layer), int(feature)) for layer, feature in only)
        if missing := [at for at in wanted if at not in rows]:
            raise ValueError(f"this store has no feature {missing[0]}; {len(missing)} of {len(wanted)} are not in it")
        write_features(((rows[at], self.examples_of(*at)) for at in wanted), folder)

    def __repr__(self) -> str:
        live = (self.features["density"] > 0).sum()
        return f"FeatureStore({len(self.features):,} features, {live:,} of them live, {len(self._examples):,} texts)"


def load_features(name: str | Path) -> FeatureStore:
    """The shipped store of a model ("pocket", "smollm2"), or one that `save` wrote to a folder.

    Raises FileNotFoundError when there is none, ValueError when a file is damaged.

    >>> ik.load_features("pocket")
    FeatureStore(6,905 features, 6,857 of them live, 9,126 texts)
    """
    folder = _folder(name, "features.parquet", "store.save(folder)")
    try:
        with opened_folder(folder):
            features = pd.read_parquet(folder / "features.parquet").rename(columns=OLD_COLUMNS)
            return FeatureStore(features, Examples.load(folder))
    except (OSError, ValueError) as error:
        raise ValueError(f"the feature store in {folder} is damaged ({error}); copy it again or rebuild it") from error


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
    words = [words if words is None else tuple(words) for words in labels["words"]]
    return labels.assign(words=pd.Series(words, labels.index, object))


def _folder(name: str | Path, file: str, how: str) -> Path:
    folder = shipped_folder(FEATURES[name]) if isinstance(name, str) and name in FEATURES else Path(name)
    if not (folder / file).exists():
        raise FileNotFoundError(
            f"no {file} at {str(name)!r}: expected one of {', '.join(FEATURES)}, or a folder written by {how}"
        )
    return folder


def _strongest(examples: pd.DataFrame, n: int) -> list[Example]:
    """The n strongest of those that labels may be made from, but one for each different token at the peak before a
    second one: twenty times the same word would hide that the feature fires on others."""
    usable = examples[~examples["group"].isin(TEST_GROUPS)]
    ranked = sorted(example_rows(usable), key=lambda e: -abs(e.activations[e.peak]))
    peaks = [e.tokens[e.peak] for e in ranked]
    order = sorted(range(len(ranked)), key=lambda i: peaks[i] in peaks[:i])  # the first of each, then the others
    return [_plain(ranked[i]) for i in order[:n]]


def _plain(example: ExampleRow) -> Example:
    return {"tokens": list(example.tokens), "activations": [float(a) for a in example.activations]}


def _by_feature(labels: pd.DataFrame | None) -> dict[tuple[int, int], dict]:
    return {} if labels is None else {(r["layer"], r["feature"]): r for r in rows_of(labels)}


def rows_of(table: pd.DataFrame, only: Pairs | None = None) -> list[dict]:
    """The rows of a table with the columns layer and feature; of the (layer, feature) pairs `only`, where given."""
    wanted = None if only is None else {(int(layer), int(feature)) for layer, feature in only}
    rows = table.to_dict("records")
    return [row for row in rows if wanted is None or (row["layer"], row["feature"]) in wanted]
