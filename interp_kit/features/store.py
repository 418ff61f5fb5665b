"""The feature store: for every feature the texts on which it fires, and the tokens whose logits it raises."""

import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..formats.feature_json import read_features, write_features
from ..formats.graph_tables import Card, Example
from ..formats.json import json_text, read_json
from ..formats.label_table import KEY, check_columns, checked_labels, is_missing, one_label_each, whole_numbers
from ..formats.parquet import in_words, read_parquet
from ..formats.provenance import KEYS, About, about_of, check_belongs, insisted
from ..formats.validation import check_type
from ..models import LanguageModel
from ..storage.atomic import resolved
from ..storage.folders import opened_folder, saved_folder
from ..storage.shipped import FEATURES, shipped_folder
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import printable
from .examples import TEST_GROUPS, ActiveWindow, Examples
from .rules import with_rules

if TYPE_CHECKING:  # the graphs take a store's cards, and widgets are imported where something is shown
    from ..graphs import AttributionGraph
    from ..widgets import FeatureBrowser, FeatureCard, FeatureCardData, FeatureRow

Pairs = Iterable[tuple[int, int]]  # (layer, feature)
QUARTERS = ("strongest", "second", "third", "weakest")
TOKEN_COLUMNS = {"top_logits": "top logits", "bottom_logits": "bottom logits", "top_embeddings": "top embeddings"}
SCORE_COLUMNS = ("detection", "fuzzing", "embedding", "steering")  # of a table of labels, that a card shows
LIST_COLUMNS = {**dict.fromkeys(TOKEN_COLUMNS, "texts"), "log_histogram": "numbers", "histogram": "numbers"}
ABOUT, LABELS = "about.json", "labels.parquet"  # files of a store's folder
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

    `about`: the model and the transcoder that the features are of, as far as it is known; what is joined with a store,
    labels or a graph, must be of the same ones.

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
        """examples: a table like that of `examples`, with layer and feature.

        Raises TypeError for what is no table; ValueError naming the column that is missing, or the row that is wrong.
        """
        self.features = _checked_features(features)
        if isinstance(examples, Examples):
            self._examples = examples
        else:
            _check_lists(self.features)
            self._examples = Examples.from_frame(examples)
        self._rows = {at: i for i, at in enumerate(zip(*(self.features[name].tolist() for name in KEY)))}

    @property
    def about(self) -> About:
        """The model and the transcoder (or "neurons") that the features are of; empty where nothing says."""
        return about_of(self.features)

    @property
    def examples(self) -> pd.DataFrame:
        """All examples in one table, with layer and feature: large."""
        return self._examples.frame()

    def examples_of(self, layer: int, feature: int) -> pd.DataFrame:
        """The examples of one feature; empty when it never fired."""
        return self._examples.of(layer, feature)

    def row(self, layer: int, feature: int) -> pd.Series:
        """The feature's row of `features`. Raises KeyError when the store does not have it."""
        if (layer, feature) not in self._rows:
            raise KeyError(f"this store has no feature {feature} of layer {layer}")
        return self.features.iloc[self._rows[layer, feature]]

    def windows(self, groups: Collection[str] | None = None) -> list[list[str]]:
        """All windows that are an example of a feature, as lists of tokens; with `groups`, those of these groups."""
        return self._examples.windows(groups)

    def join(self, table: pd.DataFrame) -> "FeatureStore":
        """A store with the further columns of `table` in `features`, matched by layer and feature; NaN where it has no
        row.

        Raises ValueError for a table that has a feature twice, or without these two columns.

        >>> store = store.join(recovery.detectors[["layer", "feature", "concept", "F1"]])
        """
        check_columns(table, KEY, "the table to join")
        features = self.features.merge(table, on=KEY, how="left", validate="many_to_one")
        features.attrs = dict(self.features.attrs)
        return FeatureStore(features, self._examples)

    # ------------------------------------------------------------------ cards

    def card(self, layer: int, feature: int, n_examples: int = 5) -> Card:
        """What a graph shows of a feature, as plain data; empty where the store does not have it."""
        if (layer, feature) not in self._rows:
            return {}
        row = self.row(layer, feature)
        concept, quality = row.get("concept"), row.get("F1", np.nan)
        known = f" (F1 {quality:.2f})" if not pd.isna(quality) else ""
        return {
            "concept": f"{concept}{known}" if isinstance(concept, str) else None,
            "examples": _strongest(self._examples.rows(layer, feature), n_examples),
            "top_logits": list(row.get("top_logits", [])),
            "bottom_logits": list(row.get("bottom_logits", [])),
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

        Raises KeyError when the store does not have the feature; ValueError for labels or a graph of another model or
        transcoder, and for a table that is not one of labels.
        """
        from ..widgets import FeatureCard

        self._check_joined(labels, graph)
        return FeatureCard(self._card_view(layer, feature, _by_feature(labels), graph, n_examples))

    def browse(self, labels: pd.DataFrame | None = None, graph: "AttributionGraph | None" = None) -> "FeatureBrowser":
        """A widget to search all features by label, token or layer, and to name them; what was typed is in its
        `labels`, see `ik.features.student_labels`. Raises as `show`."""
        from ..widgets import FeatureBrowser

        self._check_joined(labels, graph)
        named = _by_feature(labels)
        rows: list[FeatureRow] = []
        tokens = self.features["top_logits"] if "top_logits" in self.features else [()] * len(self.features)
        for layer, feature, top_logits in zip(*(self.features[name] for name in KEY), tokens):
            about = named.get((layer, feature), {})
            label = about.get("label", "")
            search = " ".join([label, _text(about.get("evidence")), *top_logits])
            rows.append({"layer": int(layer), "feature": int(feature), "label": label, "search": search})
        return FeatureBrowser(rows, lambda layer, feature: self._card_view(layer, feature, named, graph, 6))

    def _check_joined(self, labels: pd.DataFrame | None, graph: "AttributionGraph | None") -> None:
        if labels is not None:
            check_belongs(checked_labels(labels), "labels", self, "features")
        if graph is not None:
            check_belongs(self, "features", graph, "graph")

    def _card_view(
        self, layer: int, feature: int, named: dict, graph: "AttributionGraph | None", n_examples: int
    ) -> "FeatureCardData":
        """The data of a `FeatureCard`."""
        row, examples = self.row(layer, feature), self._examples.rows(layer, feature)
        about = named.get((layer, feature), {})
        numbers = {name: about[name] for name in SCORE_COLUMNS if isinstance(about.get(name), int | float | np.number)}
        scores = {name: float(value) for name, value in numbers.items() if not np.isnan(value)}
        groups = {"strongest, one for each different token": _strongest(examples, n_examples)}
        drawn = [_plain(example) for example in examples if example.group == "sample"]
        for i, quarter in enumerate(QUARTERS):
            part = drawn[i * len(drawn) // 4 : (i + 1) * len(drawn) // 4]
            groups[f"drawn at random, {quarter} quarter"] = part[: max(1, n_examples // 3)]
        nodes = [] if graph is None else graph.nodes.query("layer == @layer and feature == @feature")["id"].tolist()
        histogram = row.get("log_histogram", row.get("histogram"))
        on = "unknown" if pd.isna(row["density"]) else f"{row['density']:.2%} of tokens"
        return {
            "title": f"layer {layer}, feature {feature}",
            "label": about.get("label"),
            "evidence": _text(about.get("evidence")) or None,
            "facts": {"on": on, "max activation": float(row["max_activation"]), **scores},
            "histogram": [] if histogram is None else [int(n) for n in histogram],
            "lists": {name: list(row[key]) for key, name in TOKEN_COLUMNS.items() if row.get(key) is not None},
            "groups": groups,
            "nodes": nodes,
        }

    # ------------------------------------------------------------------ files

    def save(self, folder: str | Path, labels: pd.DataFrame | None = None) -> None:
        """Writes parquet files to `folder`: features, windows, the examples of each layer, and labels where given.

        Without labels, those of an earlier save there stay where they belong to this store.

        Raises ValueError for labels of another model or transcoder; FileExistsError for labels in the folder that may
        not be this store's, and as `saved_folder` does.
        """
        if labels is not None:
            labels = checked_labels(labels).copy(deep=False)
            check_belongs(labels, "labels", self, "features")
            labels.attrs = {"about": about_of(labels)}  # what else is in it might not be kept
        with saved_folder(folder) as stage:
            if labels is not None:
                labels.to_parquet(stage / LABELS, index=False, compression="zstd")
            elif (kept := resolved(folder) / LABELS).exists():
                self._check_kept(kept)
                shutil.copyfile(kept, stage / LABELS)
            features = self.features.copy(deep=False)
            features.attrs = {}
            features.to_parquet(stage / "features.parquet", index=False, compression="zstd")
            self._examples.save(stage, set(self.features["layer"].tolist()))
            if self.about:
                (stage / ABOUT).write_text(json_text(self.about) + "\n", encoding="utf-8")

    def _check_kept(self, labels: Path) -> None:
        """Raises FileExistsError for labels in a folder that may not be this store's."""
        mine, theirs = self.about, _about(labels.parent)
        if any(mine.get(key) is None or mine.get(key) != theirs.get(key) for key in KEYS):
            raise FileExistsError(
                f"{str(labels)!r} holds labels that may not be of this store's features: nothing was saved; give "
                "store.save(folder, labels) those that belong to it, move the old ones away, or take another folder"
            )

    def save_json(self, folder: str | Path, only: Pairs | None = None) -> None:
        """One JSON file a feature, as the public graph viewer and Neuronpedia read them; `load_feature_json` reads them
        back.

        only: the (layer, feature) pairs to write, by default all.

        Raises ValueError for a feature that the store does not have, and for a folder with other files in it.
        """
        rows = {(row["layer"], row["feature"]): row for row in rows_of(self.features)}
        wanted = sorted(rows) if only is None else sorted((int(layer), int(feature)) for layer, feature in only)
        if missing := [at for at in wanted if at not in rows]:
            raise ValueError(f"this store has no feature {missing[0]}; {len(missing)} of {len(wanted)} are not in it")
        write_features(((rows[at], self.examples_of(*at)) for at in wanted), folder)

    def __repr__(self) -> str:
        live = (self.features["density"] > 0).sum()
        counts = f"{len(self.features):,} features, {live:,} of them live, {len(self._examples):,} texts"
        return printable(f"FeatureStore({counts}{'' if 'fingerprint' in self.about else ', of an unknown model'})")


def load_features(name: str | Path, belongs_to: object = None) -> FeatureStore:
    """The shipped store of a model ("pocket", "smollm2"), or one that `save` wrote to a folder.

    belongs_to: a model, transcoder or graph that it goes with. What is joined must be of the same model and transcoder,
        by their fingerprints; this insists that it is, where the fingerprints differ though the features are the same
        (a model as a GGUF and from the Hub) or where a folder of an earlier version says nothing.

    Raises FileNotFoundError when there is none; ValueError naming the file that is damaged, here or, of the examples of
    a layer, when they are asked for; TypeError for a `belongs_to` that does not know its model.

    >>> ik.load_features("pocket")
    FeatureStore(6,905 features, 6,905 of them live, 22,143 texts)
    """
    folder = _folder(name, "features.parquet", "store.save(folder)")
    path = folder / "features.parquet"
    try:
        with opened_folder(folder):
            features = _with_new_names(_frame(path, _FEATURE_COLUMNS, _OTHER_COLUMNS))
            about = _about(folder)
            features.attrs["about"] = insisted(about, belongs_to)
            store = FeatureStore(features, Examples.load(folder))
            if missing := sorted(set(store.features["layer"].tolist()) - set(store._examples.layers)):
                if about:  # before, a layer without examples had no file
                    raise ValueError(f"examples_{missing[0]}.parquet is missing")
    except (OSError, ValueError) as error:
        raise ValueError(f"the feature store in {folder} is damaged ({error}); copy it again or rebuild it") from error
    return store


_FEATURE_COLUMNS = {"layer": "whole numbers", "feature": "whole numbers"}
_OTHER_COLUMNS = {
    **{name: f"lists of {kind}" for name, kind in LIST_COLUMNS.items()},
    **{old: f"lists of {LIST_COLUMNS[new]}" for old, new in OLD_COLUMNS.items() if new in LIST_COLUMNS},
    **dict.fromkeys(["density", "max_activation", "highest", "F1", "act_min"], "numbers"),
    **dict.fromkeys(["concept", "transcoder_id"], "texts"), "quantile_values": "lists of numbers",
}  # fmt: skip
_LABEL_COLUMNS = {"layer": "whole numbers", "feature": "whole numbers", "label": "texts"}
_OTHER_LABEL_COLUMNS = {
    "evidence": "texts", "rule": "texts", "source": "texts", "words": "lists of texts",
    **dict.fromkeys(SCORE_COLUMNS, "numbers"),
}  # fmt: skip


def _frame(path: Path, columns: dict[str, str], optional: dict[str, str]) -> pd.DataFrame:
    table = read_parquet(path, columns, optional)
    with in_words(path):
        return table.to_pandas()


def _with_new_names(features: pd.DataFrame) -> pd.DataFrame:
    """Columns as they are called today. Raises ValueError for one under its old and its new name."""
    features = features.rename(columns=OLD_COLUMNS)
    if (twice := features.columns[features.columns.duplicated()]).size:
        raise ValueError(f"features.parquet has the column {twice[0]!r} under its old and its new name")
    return features


def _about(folder: Path) -> About:
    """What the folder's features and labels are of; empty where it was saved before version 0.3.

    Raises ValueError for a file that does not say so.
    """
    path = folder / ABOUT
    if not path.exists():
        return About()
    content = read_json(path)
    try:
        return check_type(About, content)
    except ValueError as error:
        raise ValueError(f"{path} does not say what the features are of: {error}") from None


def load_feature_json(folder: str | Path, belongs_to: object = None) -> FeatureStore:
    """A store of the features in a folder of public JSON files, {index}.json, ours or another tool's.

    belongs_to: a model, transcoder or graph that it goes with, which such files do not say.

    Raises FileNotFoundError where there are none; ValueError naming the file, the place in it and what was expected;
    TypeError for a `belongs_to` that does not know its model.
    """
    features, examples = read_features(folder)
    features.attrs["about"] = insisted(About(), belongs_to)
    return FeatureStore(features, examples)


def load_labels(name: str | Path, belongs_to: object = None) -> pd.DataFrame:
    """The labels that ship with the store of a model ("pocket", "smollm2"), or that were saved with one: the table of
    `ik.label_features`, with their scores where they were scored. Its `attrs["about"]` says what they are of.

    belongs_to: as in `load_features`.

    Raises FileNotFoundError when there are none; ValueError naming the file that is damaged, its column and row;
    TypeError for a `belongs_to` that does not know its model.
    """
    folder = _folder(name, LABELS, "store.save(folder, labels)")
    path = folder / LABELS
    with opened_folder(folder):
        labels = _frame(path, _LABEL_COLUMNS, _OTHER_LABEL_COLUMNS)
        about = _about(folder)
    try:
        labels = with_rules(labels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; copy it again or save it anew") from None
    labels.attrs["about"] = insisted(about, belongs_to)
    return labels


def check_set(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder | None,
    features: FeatureStore | None,
    labels: pd.DataFrame | None,
) -> None:
    """Raises ValueError where what is given is not of one model and one transcoder."""
    if transcoder is not None:
        transcoder.check_model(model)
    if features is not None:
        check_belongs(features, "features", model, "model", keys=["fingerprint"])
        if transcoder is not None:
            check_belongs(features, "features", transcoder, "transcoder", keys=["transcoder"])
        if labels is not None:
            check_belongs(one_label_each(labels), "labels", features, "features")


def _folder(name: str | Path, file: str, how: str) -> Path:
    folder = shipped_folder(FEATURES[name]) if isinstance(name, str) and name in FEATURES else resolved(name)
    if not (folder / file).exists():
        raise FileNotFoundError(
            f"no {file} at {str(name)!r}: expected one of {', '.join(FEATURES)}, or a folder written by {how}"
        )
    return folder


def _strongest(examples: Sequence[ActiveWindow], n: int) -> list[Example]:
    """The n strongest of those that labels may be made from, but one for each different token at the peak before a
    second one: twenty times the same word would hide that the feature fires on others."""
    usable = [example for example in examples if example.group not in TEST_GROUPS]
    ranked = sorted(usable, key=lambda e: -abs(e.activations[e.peak]))
    peaks = [e.tokens[e.peak] for e in ranked]
    order = sorted(range(len(ranked)), key=lambda i: peaks[i] in peaks[:i])  # the first of each, then the others
    return [_plain(ranked[i]) for i in order[:n]]


def _text(value: object) -> str:
    """ "" for what a table may hold where there is no text."""
    return "" if is_missing(value) else str(value)


def _plain(example: ActiveWindow) -> Example:
    return {"tokens": example.tokens, "activations": example.activations}


def _checked_features(features: object) -> pd.DataFrame:
    """The table of features, with whole numbers where they should be. Raises as `FeatureStore`."""
    if not isinstance(features, pd.DataFrame):
        raise TypeError(f"expected a table of features such as store.features, got {type(features).__name__}")
    check_columns(features, [*KEY, "density", "max_activation"], "a table of features")
    proper = {name: whole_numbers(features, name) for name in KEY}
    if changed := {name: column for name, column in proper.items() if column is not None}:
        features = features.assign(**changed)
    twice = features.duplicated(KEY)
    if twice.any():
        layer, feature = features.loc[twice, KEY].iloc[0]
        raise ValueError(f"the table of features has feature {feature} of layer {layer} twice")
    for name in TOKEN_COLUMNS:
        if name in features and features[name].isna().any():
            row = int(np.argmax(features[name].isna()))
            raise ValueError(f"the column {name!r} should hold lists of texts, and row {row} holds nothing")
    for name, largest in (("density", 1.0), ("max_activation", np.finfo(float).max)):
        try:
            values = features[name].to_numpy(float)
        except (TypeError, ValueError):
            raise ValueError(f"the column {name!r} of the features should hold numbers") from None
        wrong = (values < 0) | (values > largest)  # NaN: it is not known
        if wrong.any():
            at, expected = int(np.argmax(wrong)), "from 0 to 1" if largest == 1 else "finite, from 0 up"
            raise ValueError(f"the column {name!r} should hold numbers {expected}, and row {at} holds {values[at]}")
        if features[name].dtype == object and len(values):
            features = features.assign(**{name: values})  # None where a number is not known
    return features


def _check_lists(features: pd.DataFrame) -> None:
    """Raises ValueError for lists of tokens or counts that are none; those of a file are checked by their type."""
    for name, kind in LIST_COLUMNS.items():
        for row, value in enumerate(features[name] if name in features else ()):
            if value is None and kind == "numbers":  # a histogram that another tool left out
                continue
            wanted = str if kind == "texts" else int | float | np.integer | np.floating
            is_list = isinstance(value, list | tuple | np.ndarray)
            if not is_list or not all(isinstance(item, wanted) for item in value):
                raise ValueError(f"the column {name!r} should hold lists of {kind}, and row {row}: {str(value)[:80]!r}")


def _by_feature(labels: pd.DataFrame | None) -> dict[tuple[int, int], dict]:
    return {} if labels is None else {(r["layer"], r["feature"]): r for r in rows_of(one_label_each(labels))}


def rows_of(table: pd.DataFrame, only: Pairs | None = None) -> list[dict]:
    """The rows of a table with the columns layer and feature; of the (layer, feature) pairs `only`, where given.

    Raises ValueError for a pair that the table does not have.
    """
    rows = table.to_dict("records")
    if only is None:
        return rows
    wanted = {(int(layer), int(feature)) for layer, feature in only}
    if missing := sorted(wanted - {(row["layer"], row["feature"]) for row in rows}):
        raise ValueError(
            f"there is no (layer, feature) {missing[0]} here; of the {len(wanted)} in `only` {len(missing)} are missing"
        )
    return [row for row in rows if (row["layer"], row["feature"]) in wanted]
