"""Which concepts does a dictionary recover? For every concept the unit that detects it best, graded on known truth.

A sentence brings a concept up with the token that completes its name: that token is a positive. From there on the
concept is in play, so a unit that keeps firing is neither right nor wrong. Everywhere else, in this sentence before and
in all others, firing is a false alarm.
"""

import pandas as pd
import torch

from ..features.dictionaries import detectors, units_of
from ..worlds.truth import concepts_of, graded

LEVELS = (0.0, 0.1, 0.2, 0.35, 0.5)  # thresholds tried, as shares of a unit's highest activation
DETECTS = 0.8  # the F1 from which a unit is said to detect a concept
LEAST = 8  # positives in the test sentences, for a concept to be graded


class Recovery:
    """What `recover_concepts` found.

    `table`: for every concept its best unit: dictionary, concept, kind, layer, feature, F1, precision, recall, n (the
    positives it was graded on). `units`: for every unit of F1 >= 0.8 the concept that it detects (dictionary, layer,
    feature, concept, F1).
    """

    def __init__(self, table: pd.DataFrame, units: pd.DataFrame):
        self.table, self.units = table, units

    @property
    def summary(self) -> pd.DataFrame:
        """By kind of concept and dictionary: mean F1, and the share of concepts with a unit of F1 >= 0.8."""
        by = self.table.groupby(["kind", "dictionary"], sort=False)["F1"]
        return by.agg(concepts="size", F1="mean", recovered=lambda f1: (f1 >= DETECTS).mean())

    def __repr__(self):
        return f"Recovery({self.table['concept'].nunique()} concepts)\n{self.summary.to_string()}"

    def _repr_html_(self):
        return self.summary.to_html(float_format="{:.2f}".format)


def recover_concepts(model, dictionaries: dict, train, test, kinds=None) -> Recovery:
    """For every concept of the sentences the unit of each dictionary that detects it best.

    dictionaries: transcoders or `ik.features.Neurons`, by their name in the table. Either sign of a neuron counts
        as a unit of its own.
    train, test: sentences of a world. Which unit, and from which activation it counts as firing, is chosen on `train`;
        every number is measured on `test`.
    kinds: kinds of concepts, such as ("place", "relation"); by default all.
    """
    concepts = concepts_of(test, kinds)
    tables, units = [], []
    for name, what in dictionaries.items():
        table, detectors = _grade(model, units_of(model, what), concepts, train, test)
        tables.append(table.assign(dictionary=name))
        units.append(detectors.assign(dictionary=name))
    table = pd.concat(tables, ignore_index=True)
    return Recovery(table[table["n"] >= LEAST].reset_index(drop=True), pd.concat(units, ignore_index=True))


def _grade(model, units, concepts, train, test):
    chosen, measured = (_Counts(model, units, concepts) for _ in range(2))
    chosen.find_highest(train)
    measured.highest = chosen.highest
    chosen.count(train)
    measured.count(test)
    best, detects = [], []
    for i, layer in enumerate(units.layers):
        f1 = chosen.rates(i)[0]  # [level, concept, unit]
        at = f1.transpose(0, 1).flatten(1).max(1)  # of each concept, over (level, unit)
        rates = [r.transpose(0, 1).flatten(1).gather(1, at.indices[:, None])[:, 0] for r in measured.rates(i)]
        n_units = f1.shape[2]
        best.append(torch.stack([at.values, torch.full_like(at.values, layer), at.indices % n_units, *rates]))
        of_unit = f1.flatten(0, 1).max(0)
        value = measured.rates(i)[0].flatten(0, 1).gather(0, of_unit.indices[None])[0]
        often = (measured.positives >= LEAST)[of_unit.indices % len(concepts)]
        for unit in ((value >= DETECTS) & often).nonzero()[:, 0].tolist():
            concept = concepts[int(of_unit.indices[unit]) % len(concepts)]
            detects.append((layer, unit % units.n_features_per_layer[i], concept, float(value[unit])))
    best = torch.stack(best)  # [layer, column, concept]
    best = best.gather(0, best[:, :1].argmax(0, keepdim=True).expand(1, *best.shape[1:]))[0]
    table = pd.DataFrame(best[1:].T.numpy(), columns=["layer", "feature", "F1", "precision", "recall"])
    table = table.astype({"layer": int, "feature": int})
    counts = torch.tensor(units.n_features_per_layer)[[units.layers.index(l) for l in table["layer"]]].numpy()
    table["feature"] %= counts  # the other sign of a neuron is the same neuron
    table.insert(0, "concept", concepts)
    table.insert(1, "kind", [c.split(":", 1)[0] for c in concepts])
    table["n"] = measured.positives.long().tolist()
    return table, pd.DataFrame(detects, columns=["layer", "feature", "concept", "F1"])


class _Counts:
    """How often every unit fires, at each level, on each concept's positives, and elsewhere."""

    def __init__(self, model, units, concepts):
        self.model, self.units, self.concepts = model, units, concepts
        sides = 2 if units.quiet else 1  # what can be negative is two detectors
        widths = [sides * count for count in units.n_features_per_layer]
        shape = [(len(LEVELS), len(concepts), width) for width in widths]
        self.hits, self.excused = ([torch.zeros(s) for s in shape] for _ in range(2))
        self.fires = [torch.zeros(len(LEVELS), width) for width in widths]
        self.highest = [torch.zeros(width) for width in widths]
        self.positives = torch.zeros(len(concepts))

    def find_highest(self, sentences):
        for _, layers in self._batches(sentences):
            for i, active in enumerate(layers):
                self.highest[i] = torch.maximum(self.highest[i], active.amax(0))

    def count(self, sentences):
        for batch, layers in self._batches(sentences):
            self.positives += torch.sparse.sum(batch.named.to_sparse_coo(), 1).to_dense()
            elsewhere = batch.in_play.to_sparse_coo() - batch.named.to_sparse_coo()
            elsewhere = elsewhere.coalesce().to_sparse_csr()
            for i, active in enumerate(layers):
                for level, share in enumerate(LEVELS):
                    on = (active > share * self.highest[i]).float()
                    self.fires[i][level] += on.sum(0)
                    self.hits[i][level] += batch.named @ on
                    self.excused[i][level] += elsewhere @ on

    def rates(self, i):
        """F1, precision and recall of the i-th layer, each [level, concept, unit]."""
        hits, counted = self.hits[i], self.fires[i][:, None] - self.excused[i]
        positives = self.positives[:, None]
        return 2 * hits / (counted + positives).clamp(min=1), hits / counted.clamp(min=1), hits / positives.clamp(min=1)

    @torch.no_grad()
    def _batches(self, sentences):
        for batch in graded(self.model, sentences, self.concepts):
            layers = self.units.activations(batch.ids.to(self.model.device))
            yield batch, (self._detectors(active[batch.real].float().cpu(), batch) for active in layers)

    def _detectors(self, active, batch):
        if self.units.excludes_first_position:
            starts = (batch.real.cumsum(1) == 1) & batch.real
            active = active * ~starts[batch.real][:, None]
        return detectors(self.units, active)
