"""Grading, on a transcoder whose features are planted."""

import pytest
import torch
from tiny import tiny_model, tiny_transcoder

from interp_kit.worlds.grading import grade
from interp_kit.worlds.sentences import Slot, fill


class TwoPlaces:
    places = ["Texas", "Ohio"]
    kind_of = {"Texas": "state", "Ohio": "state"}


def sentences():
    texas, ohio = Slot("Texas", ("place:Texas",)), Slot("Ohio", ("place:Ohio",))
    dallas = Slot("Dallas", ("place:Texas",))
    kinds = [
        ("the capital of {p} is Austin .", texas),
        ("{p} is a city", dallas),
        ("the capital of {p} is a city", ohio),
    ]
    return [fill(template, p=slot) for template, slot in kinds] * 10


@pytest.fixture
def planted():
    """Feature 0 of layer 0 fires exactly on Texas and Dallas, feature 1 on Ohio and on every "of" before any place."""
    model = tiny_model()
    clt = tiny_transcoder(model, activation="threshold", reads="hook_resid_mid")
    clt.W_enc.data.zero_()
    clt.b_enc.data.fill_(-1)
    clt.threshold.zero_()
    for attention in model.hf.model.layers:  # the stream before the first MLP is then the embedding alone
        attention.self_attn.o_proj.weight.data.zero_()
    rows = model.hf.model.embed_tokens.weight
    rows.data = torch.eye(16)[: len(rows)]
    word = lambda w: rows[model.token_id(w)]  # noqa: E731
    clt.W_enc.data[0, 0] = 2 * (word("Texas") + word("Dallas"))
    clt.W_enc.data[0, 1] = 2 * (word("Ohio") + word("of"))
    return model, clt


def test_f1_of_planted_features(planted):
    model, clt = planted
    table = grade(model, clt, TwoPlaces, sentences(), sentences()).places.set_index("place")
    texas, ohio = table.loc["Texas"], table.loc["Ohio"]
    assert (texas["layer"], texas["feature"], texas["F1"]) == (0, 0, 1.0) and texas["n"] == 20
    # fires on Ohio (10 hits) and on "of" before Texas or Ohio was named (20 false alarms)
    assert ohio["feature"] == 1
    assert ohio["precision"] == pytest.approx(10 / 30) and ohio["recall"] == 1
    assert ohio["F1"] == pytest.approx(2 * 10 / (30 + 10))


def test_firing_after_the_place_is_named_is_excused(planted):
    model, clt = planted
    rows = model.hf.model.embed_tokens.weight
    clt.W_enc.data[0, 0] += 2 * rows[model.token_id("Austin")]  # said only after Texas
    clt.W_enc.data[0, 0] += 2 * rows[model.token_id(".")]
    table = grade(model, clt, TwoPlaces, sentences(), sentences()).places.set_index("place")
    assert table.loc["Texas", "F1"] == 1.0


def test_what_each_feature_detects(planted):
    model, clt = planted
    found = grade(model, clt, TwoPlaces, sentences(), sentences()).features
    assert found.values.tolist() == [[0, 0, "Texas", 1.0]]  # Ohio's best is right in a third of its firings: not listed
