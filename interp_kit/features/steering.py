"""Does a feature do what its label says? Turn it up, and see whether the words of its label become likelier."""

import numpy as np
import pandas as pd
import torch

from ..formats.feature_json import example_rows
from ..graphs import NodeId, Steer, intervene
from ..models import LanguageModel
from ..transcoders import CrossLayerTranscoder
from ..widgets.progress import ProgressBar
from .store import FeatureStore, Pairs, rows_of

MAX_TEXTS = 4  # held-out texts in which a feature is turned up
STEERING_FACTOR = 2.0  # times the feature's largest activation


def steering_scores(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    store: FeatureStore,
    labels: pd.DataFrame,
    only: Pairs | None = None,
) -> pd.DataFrame:
    """The table of labels with steering and KL.

    In held-out texts, read up to where the feature is strongest, it is set to twice its largest activation there.
    steering: among the first tokens of the words of *all* labels, the share whose log-probability rose less than that
    of this label's own (the best of its words): 0.5 is chance, 1 means that nothing rose more. KL: how much the
    distribution moved in all, in nats; a feature that moves nothing cannot be judged.

    only: the (layer, feature) pairs to score, by default all.

    Features without a held-out example get NaN. Raises ValueError for a transcoder of another model. After the
    "intervention score" of Paulo et al. (2024).

    >>> ik.features.steering_scores(model, transcoder, store, labels, only=[(1, 4)])[["label", "steering", "KL"]]
    """
    promised = {label: _tokens(model, label) for label in labels["label"]}
    everyone = torch.tensor(sorted(set().union(*promised.values())))
    rows = []
    for row in ProgressBar(rows_of(labels, only), desc="steering", leave=False):
        at, tokens = (row["layer"], row["feature"]), list(promised[row["label"]])
        examples, found = store.examples_of(*at), []
        steer = Steer(NodeId(*at), value=STEERING_FACTOR * store.row(*at)["max_activation"], positions=-1)
        for e in example_rows(examples[examples["group"] == "held_out"].head(MAX_TEXTS)):
            result = intervene(model, transcoder, "".join(e.tokens[: e.peak + 1]), steer)
            before, after = (run.logits[-1].log_softmax(-1) for run in (result.before, result.after))
            rise = after - before
            below = (rise[everyone] < rise[tokens].max()).float().mean()
            found.append((float(below), float((before.exp() * (before - after)).sum())))
        steering, kl = np.mean(found, 0) if found else (np.nan, np.nan)
        rows.append(row | {"steering": steering, "KL": kl})
    return pd.DataFrame(rows)


def _tokens(model: LanguageModel, label: str) -> set[int]:
    """The first token of each word that a label promises, as it stands within a text."""
    words = label.removeprefix("say ").replace(" / ", " … ").split(" … ")
    return {model.vocabulary.ids(" " + word)[0] for word in words if word.strip()}
