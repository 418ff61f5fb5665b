"""Does a feature do what its label says? Turn it up, and see whether the words of its label become likelier."""

import numpy as np
import pandas as pd
import torch

from ..formats.feature_json import example_rows
from ..formats.label_table import checked_labels
from ..formats.provenance import about_of, check_belongs
from ..graphs import NodeId, Steer, intervene
from ..models import LanguageModel
from ..models.arguments import checked
from ..transcoders import CrossLayerTranscoder
from ..widgets.progress import ProgressBar
from .store import FeatureStore, Pairs, check_set, rows_of

MAX_TEXTS = 4  # held-out texts in which a feature is turned up
STEERING_FACTOR = 2.0  # times the feature's largest activation


@checked
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

    Features without a held-out example, and those without a label, get NaN. Raises TypeError for what is no store or no
    table of labels; ValueError for a store or labels of another model or transcoder. After the "intervention score" of
    Paulo et al. (2024).

    >>> ik.features.steering_scores(model, transcoder, store, labels, only=[(1, 4)])[["label", "steering", "KL"]]
    """
    if not isinstance(store, FeatureStore):
        raise TypeError(f"expected a FeatureStore as the third argument, got {type(store).__name__}")
    labels = checked_labels(labels)
    check_set(model, transcoder, store, None)
    check_belongs(labels, "labels", store, "features")
    promised = {label: _tokens(model, label) for label in labels["label"]}
    everyone = torch.tensor(sorted(set().union(*promised.values())), dtype=torch.long)
    rows = []
    for row in ProgressBar(rows_of(labels, only), desc="steering", leave=False):
        at, tokens = (row["layer"], row["feature"]), list(promised[row["label"]])
        examples, found = store.examples_of(*at), []
        held_out = examples[examples["group"] == "held_out"].head(MAX_TEXTS if tokens else 0)
        for e in example_rows(held_out):
            steer = Steer(NodeId(*at), value=STEERING_FACTOR * store.row(*at)["max_activation"], positions=-1)
            result = intervene(model, transcoder, "".join(e.tokens[: e.peak + 1]), steer)
            before, after = (run.logits[-1].log_softmax(-1) for run in (result.before, result.after))
            rise = after - before
            below = (rise[everyone.to(rise.device)] < rise[tokens].max()).float().mean()
            found.append((float(below), float((before.exp() * (before - after)).sum())))
        steering, kl = np.mean(found, 0) if found else (np.nan, np.nan)
        rows.append(row | {"steering": steering, "KL": kl})
    scored = pd.DataFrame(rows, columns=None if rows else [*labels.columns, "steering", "KL"])
    scored.attrs["about"] = about_of(labels)
    return scored


def _tokens(model: LanguageModel, label: str) -> set[int]:
    """The first token of each word that a label promises, as it stands within a text."""
    words = label.removeprefix("say ").replace(" / ", " … ").split(" … ")
    return {ids[0] for word in words if word.strip() and (ids := model.vocabulary.ids(" " + word))}
