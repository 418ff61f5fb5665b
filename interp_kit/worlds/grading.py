"""Grading features against a world's known truth: does one feature mean "Texas"?

A sentence brings a place up with the last token of its name or of one of its cities: that token is a positive.
From there on the place is in play, so a feature that keeps firing is neither right nor wrong. Everywhere else,
in this sentence before and in all others, firing is a false alarm.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..models.anatomy import mlp_activations
from ..transcoders.activations import pad
from .sentences import token_concepts

LEVELS = (0.0, 0.1, 0.2, 0.35, 0.5)  # thresholds tried, as shares of a feature's highest activation
DETECTS = 0.8  # the F1 from which a feature is said to detect a place
ROWS_AT_ONCE = 64


@dataclass
class Grades:
    """`places`: for every place its best feature (place, kind, layer, feature, F1, precision, recall, n positives).
    `features`: for every feature of F1 >= 0.8 the place it detects (layer, feature, concept, F1)."""

    places: pd.DataFrame
    features: pd.DataFrame


def grade(model, transcoder, world, train, test) -> Grades:
    """What the features of `transcoder` detect. Which feature, and from which activation it counts as firing, is chosen
    on the sentences `train`; every number is measured on the sentences `test`."""
    chosen, graded = (_Counts(model, transcoder, world) for _ in range(2))
    chosen.find_levels(train)
    chosen.count(train)
    graded.levels = chosen.levels
    graded.count(test)
    choice, rates = chosen.rates()[0], graded.rates()  # [place, level, feature]
    per_layer, layers = transcoder.n_features, transcoder.layers

    best = choice.flatten(1).argmax(1)  # of each place, over (level, feature)
    f1, precision, recall = (r.flatten(1).gather(1, best[:, None])[:, 0].tolist() for r in rates)
    feature = best % chosen.width
    places = pd.DataFrame(
        {
            "place": world.places,
            "kind": [world.kind_of[p] for p in world.places],
            "layer": [layers[i] for i in (feature // per_layer).tolist()],
            "feature": (feature % per_layer).tolist(),
            "F1": f1,
            "precision": precision,
            "recall": recall,
            "n": graded.positives.long().tolist(),
        }
    )
    flat = choice.flatten(0, 1)  # [place and level, feature]
    of_feature = flat.argmax(0)
    f1 = rates[0].flatten(0, 1).gather(0, of_feature[None])[0]
    lines = [
        (layers[i // per_layer], i % per_layer, world.places[int(of_feature[i]) // len(LEVELS)], float(f1[i]))
        for i in (f1 >= DETECTS).nonzero()[:, 0].tolist()
    ]
    return Grades(places, pd.DataFrame(lines, columns=["layer", "feature", "concept", "F1"]))


class _Counts:
    """How often every feature fires, at each level, on each place's positives, and elsewhere."""

    def __init__(self, model, transcoder, world):
        self.model, self.transcoder = model, transcoder
        self.number = {f"place:{p}": i for i, p in enumerate(world.places)}
        self.width = len(transcoder.layers) * transcoder.n_features
        shape = (len(world.places), len(LEVELS), self.width)
        self.hits, self.excused = torch.zeros(shape), torch.zeros(shape)
        self.fires, self.positives = torch.zeros(shape[1:]), torch.zeros(len(world.places))
        self.levels = torch.zeros(len(LEVELS), self.width)

    def find_levels(self, sentences):
        highest = torch.zeros(self.width)
        for _, _, values, features in self._active(sentences):
            highest.scatter_reduce_(0, features, values, "amax")
        self.levels = torch.tensor(LEVELS)[:, None] * highest

    def count(self, sentences):
        for names, in_play, values, features in self._active(sentences):
            self.positives += torch.bincount(names.of_tokens[names.of_tokens >= 0], minlength=len(self.positives))
            for level in range(len(LEVELS)):
                on = values > self.levels[level][features]
                f, name, play = features[on], names.of_fires[on], in_play[on]
                self.fires[level] += torch.bincount(f, minlength=self.width)
                for table, place in ((self.hits, name), (self.excused, torch.where(name < 0, play, -1))):
                    here = place >= 0
                    flat = place[here] * self.width + f[here]
                    counts = torch.bincount(flat, minlength=len(table) * self.width)
                    table[:, level] += counts.view(len(table), self.width)

    def rates(self):
        """F1, precision and recall, each [place, level, feature]."""
        counted = self.fires - self.excused
        precision = self.hits / counted.clamp(min=1)
        recall = self.hits / self.positives.clamp(min=1)[:, None, None]
        return 2 * self.hits / (counted + self.positives[:, None, None]).clamp(min=1), precision, recall

    @torch.no_grad()
    def _active(self, sentences):
        """Per batch: the place each token names, the place in play where each feature fired, value and feature."""
        clt = self.transcoder
        for i in tqdm(range(0, len(sentences), ROWS_AT_ONCE), desc="grading", leave=False):
            rows, names, plays = [], [], []
            for sentence in sentences[i : i + ROWS_AT_ONCE]:
                ids, concepts = token_concepts(sentence, self.model.tokenizer)
                name = [next((self.number[c] for c in cs if c in self.number), -1) for cs in concepts]
                play, current = [], -1
                for n in name:
                    current = n if n >= 0 else current
                    play.append(current)
                rows.append([self.model.tokenizer.bos_token_id, *ids])
                names.append([-1, *name])
                plays.append([-1, *play])
            ids, real = pad(rows)
            x, _ = mlp_activations(self.model.hf, ids, clt.config.reads, clt.layers)
            x = x[:, real]
            features = clt.encode_tokens(x)
            layer, token, feature = features.nonzero(as_tuple=True)
            flat = lambda lists: torch.tensor([v for row in lists for v in row])  # noqa: E731
            names, plays = flat(names), flat(plays)
            values = features[layer, token, feature]
            yield _Names(names, names[token]), plays[token], values, layer * clt.n_features + feature


class _Names:
    """The place named by each token, and by the token of each firing; -1 for none."""

    def __init__(self, of_tokens, of_fires):
        self.of_tokens, self.of_fires = of_tokens, of_fires
