"""Which concepts does a dictionary recover? For every concept the feature that detects it best, graded on known truth.

A sentence brings a concept up with the token that completes its name: that token is a positive. From there on the
concept is in play, so a feature that keeps firing is neither right nor wrong. Everywhere else, in this sentence before
and in all others, firing is a false alarm.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch

from ..features.dictionaries import AnyDictionary, Dictionary, as_dictionary, detectors
from ..models import LanguageModel
from ..models.arguments import checked
from ..widgets.plain_text import literal, printable
from ..worlds.sentences import Sentence
from ..worlds.truth import Graded, concepts_of, graded

THRESHOLD_SHARES = (0.0, 0.1, 0.2, 0.35, 0.5)  # thresholds tried, as shares of a feature's largest activation
DETECTION_F1 = 0.8  # from which a feature is said to detect a concept
MIN_POSITIVES = 8  # in the test sentences, for a concept to be graded


@dataclass(repr=False)
class Recovery:
    """What `recover_concepts` found.

    table: for every concept its best feature: dictionary, concept, kind, layer, feature, F1, precision, recall, n (the
        positives it was graded on).
    detectors: for every feature of F1 >= 0.8 the concept that it detects: dictionary, layer, feature, concept, F1.
    """

    table: pd.DataFrame
    detectors: pd.DataFrame

    @property
    def summary(self) -> pd.DataFrame:
        """By kind of concept and dictionary: mean F1, and the share of concepts with a feature of F1 >= 0.8."""
        by = self.table.groupby(["kind", "dictionary"], sort=False)
        detected = ("F1", lambda f1: (f1 >= DETECTION_F1).mean())
        return by.agg(concepts=("F1", "size"), F1=("F1", "mean"), recovered=detected)

    def __repr__(self) -> str:
        return printable(f"Recovery({self.table['concept'].nunique()} concepts)\n{self.summary.to_string()}")

    def _repr_html_(self) -> str:
        return literal(self.summary.to_html(float_format="{:.2f}".format))


@checked
def recover_concepts(
    model: LanguageModel,
    dictionaries: Mapping[str, AnyDictionary],
    train: Sequence[Sentence],
    test: Sequence[Sentence],
    kinds: Collection[str] | None = None,
) -> Recovery:
    """For every concept of the sentences the feature of each dictionary that detects it best.

    dictionaries: transcoders or `ik.features.Neurons`, by their name in the table. Either sign of a neuron counts
        as a feature of its own.
    train, test: sentences of a world. Which feature, and from which activation it counts as firing, is chosen on
        `train`; every number is measured on `test`.
    kinds: kinds of concepts, such as ("place", "relation"); by default all.

    Raises ValueError for a dictionary of another model, TypeError for what has no features.

    >>> train, test = world.sentences(400, "train"), world.sentences(400, "test")
    >>> ik.studies.recover_concepts(model, {"transcoder": transcoder}, train, test, kinds=("place",)).summary
    """
    concepts, found = concepts_of(test, kinds), []
    for name, dictionary in dictionaries.items():
        tables = _grade(as_dictionary(model, dictionary), concepts, train, test)
        found.append([table.assign(dictionary=name) for table in tables])
    table, detecting = (pd.concat(tables, ignore_index=True) for tables in zip(*found))
    return Recovery(table[table["n"] >= MIN_POSITIVES].reset_index(drop=True), detecting)


def _grade(
    dictionary: Dictionary, concepts: list[str], train: Sequence[Sentence], test: Sequence[Sentence]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best feature of each concept, and the concept of each feature that detects one."""
    chosen, measured = _Counts(dictionary, concepts), _Counts(dictionary, concepts)
    chosen.find_max_activations(train)
    measured.max_activations = chosen.max_activations
    chosen.count(train)
    measured.count(test)
    best, detects = [], []
    for i, (layer, n_features) in enumerate(zip(dictionary.layers, dictionary.n_features_per_layer, strict=True)):
        on_train, on_test = chosen.rates(i), measured.rates(i)
        best.append(_best_detectors(on_train, on_test, n_features).assign(layer=layer, concept=concepts))
        found = _detected_concepts(on_train, on_test, measured.positives, n_features)
        detects.append(found.assign(layer=layer, concept=[concepts[j] for j in found["concept"]]))
    table = pd.concat(best).sort_values("F1 on train", ascending=False, kind="stable").drop_duplicates("concept")
    table = table.set_index("concept").loc[concepts].reset_index()
    table["kind"] = [concept.split(":", 1)[0] for concept in concepts]
    table["n"] = measured.positives.long().tolist()
    table = table[["concept", "kind", "layer", "feature", "F1", "precision", "recall", "n"]]
    return table, pd.concat(detects, ignore_index=True)[["layer", "feature", "concept", "F1"]]


class _Rates(NamedTuple):
    """Of one layer, each [threshold, concept, detector]."""

    F1: torch.Tensor
    precision: torch.Tensor
    recall: torch.Tensor


def _best_detectors(on_train: _Rates, on_test: _Rates, n_features: int) -> pd.DataFrame:
    """For each concept the feature (and threshold) of the highest F1 on train, and its rates on test."""

    def by_concept(rate: torch.Tensor) -> torch.Tensor:
        return rate.transpose(0, 1).flatten(1)  # [concept, threshold * detector]

    value, at = by_concept(on_train.F1).max(1)
    columns = {"F1 on train": value.numpy(), "feature": (at % n_features).numpy()}  # either sign is the same feature
    rates = {name: by_concept(rate).gather(1, at[:, None])[:, 0].numpy() for name, rate in on_test._asdict().items()}
    return pd.DataFrame(columns | rates)


def _detected_concepts(on_train: _Rates, on_test: _Rates, positives: torch.Tensor, n_features: int) -> pd.DataFrame:
    """For each detector the concept (its number) and threshold of the highest F1 on train, where it is good on test."""
    at = on_train.F1.flatten(0, 1).max(0).indices  # [detector], over threshold * concept
    f1 = on_test.F1.flatten(0, 1).gather(0, at[None])[0]
    concept = at % len(positives)
    good = ((f1 >= DETECTION_F1) & (positives >= MIN_POSITIVES)[concept]).nonzero()[:, 0]
    columns = {"feature": good % n_features, "concept": concept[good], "F1": f1[good].double()}
    return pd.DataFrame({name: values.numpy() for name, values in columns.items()})


class _Counts:
    """How often every detector fires, at each threshold, on each concept's positives, and elsewhere."""

    def __init__(self, dictionary: Dictionary, concepts: list[str]) -> None:
        self.dictionary, self.concepts = dictionary, concepts
        sides = 2 if dictionary.is_signed else 1
        widths = [sides * n for n in dictionary.n_features_per_layer]
        shapes = [(len(THRESHOLD_SHARES), len(concepts), width) for width in widths]
        self.hits, self.excused = ([torch.zeros(shape) for shape in shapes] for _ in range(2))
        self.fires = [torch.zeros(len(THRESHOLD_SHARES), width) for width in widths]
        self.max_activations = [torch.zeros(width) for width in widths]
        self.positives = torch.zeros(len(concepts))

    def find_max_activations(self, sentences: Sequence[Sentence]) -> None:
        for _, layers in self._batches(sentences):
            for i, active in enumerate(layers):
                self.max_activations[i] = torch.maximum(self.max_activations[i], active.amax(0))

    def count(self, sentences: Sequence[Sentence]) -> None:
        for batch, layers in self._batches(sentences):
            self.positives += torch.sparse.sum(batch.named.to_sparse_coo(), 1).to_dense()
            elsewhere = (batch.in_play.to_sparse_coo() - batch.named.to_sparse_coo()).coalesce().to_sparse_csr()
            for i, active in enumerate(layers):
                for threshold, share in enumerate(THRESHOLD_SHARES):
                    on = (active > share * self.max_activations[i]).float()
                    self.fires[i][threshold] += on.sum(0)
                    self.hits[i][threshold] += batch.named @ on
                    self.excused[i][threshold] += elsewhere @ on

    def rates(self, i: int) -> _Rates:
        hits, counted = self.hits[i], self.fires[i][:, None] - self.excused[i]
        positives = self.positives[:, None]
        f1 = 2 * hits / (counted + positives).clamp(min=1)
        return _Rates(f1, hits / counted.clamp(min=1), hits / positives.clamp(min=1))

    @torch.no_grad()
    def _batches(self, sentences: Sequence[Sentence]) -> Iterator[tuple[Graded, Iterator[torch.Tensor]]]:
        """Batches of sentences, each with the detectors of every layer [token, detector]."""
        for batch in graded(self.dictionary.model, sentences, self.concepts):
            layers = detectors(self.dictionary, batch.ids, batch.real)
            if self.dictionary.excludes_first_position:
                later = (batch.real.cumsum(1) > 1)[batch.real][:, None]
                layers = (active * later for active in layers)
            yield batch, layers
