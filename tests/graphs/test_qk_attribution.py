"""Pairs of nodes add up to the model's own attention score, in float64 and in every family."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.qk_attribution import score_maps
from interp_kit.models.frozen import FrozenModel

PROMPT = "the capital of Texas is"
FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma2", "qwen3"]


def attribution(model, clt, **places):
    return ik.graphs.qk_attribution(model, clt, PROMPT, dtype=torch.float64, **places)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 2])
def test_pairs_and_sides_add_up_to_the_score(family, layer):
    model = tiny_model(family)
    clt = tiny_transcoder(model)
    for contrast in (False, True):
        found = attribution(model, clt, layer=layer, head=1, key=2, query=4, less_mean=contrast)
        wanted = found.score - found.mean * contrast
        assert found.nodes["on_query"].sum() == pytest.approx(wanted, rel=1e-9, abs=1e-10)
        assert found.nodes["on_key"].sum() == pytest.approx(wanted, rel=1e-9, abs=1e-10)
        if len(found.pairs) < 1000:  # all of them are there
            assert found.pairs["contribution"].sum() == pytest.approx(wanted, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_models_own(family):
    """Their softmax is the pattern that the model reports."""
    model = tiny_model(family)
    frozen = FrozenModel(model, PROMPT, torch.float64)
    read = score_maps(frozen, 1, 0)
    scores = read.scaling * read.key_values @ read.query_values[-1]
    if family == "gemma2":
        cap = model.hf.config.attn_logit_softcapping
        scores = cap * torch.tanh(scores / cap) if cap else scores
    np.testing.assert_allclose(
        scores.softmax(0), frozen.patterns[1][0, -1], rtol=1e-6
    )  # transformers' softmax computes in float32


def test_a_pair_by_hand():
    """One feature on either side: its query part times its key part, through the maps."""
    model = tiny_model()
    clt = tiny_transcoder(model, span=1)
    found = attribution(model, clt, layer=0, head=0, key=1, query=3, less_mean=False)
    frozen = FrozenModel(model, PROMPT, torch.float64)
    read = score_maps(frozen, 0, 0)
    query = read.queries[3] @ frozen.embeddings[3]  # below layer 0 there are embeddings only
    key = read.keys[1] @ frozen.embeddings[1]
    of_tokens = {n.position: n.id for n in found.nodes[found.nodes["kind"] == "embedding"].itertuples()}
    ends = found.pairs.set_index(["query_node", "key_node"])["contribution"]
    pair = ends[of_tokens[3], of_tokens[1]]
    assert pair == pytest.approx(float(query @ key * read.scaling), rel=1e-9)


def test_the_contrast_takes_away_what_all_keys_have():
    model = tiny_model()
    clt = tiny_transcoder(model)
    plain, against = (attribution(model, clt, layer=1, head=0, key=2, less_mean=c) for c in (False, True))
    assert plain.score == against.score and plain.mean == against.mean
    everywhere = [attribution(model, clt, layer=1, head=0, key=k) for k in range(len(model.tokens(PROMPT)))]
    assert sum(one.nodes["on_query"].sum() for one in everywhere) == pytest.approx(0, abs=1e-9)


def test_labels_and_what_is_not_there():
    model = tiny_model()
    clt = tiny_transcoder(model)
    store = ik.collect_features(model, clt, [PROMPT + " Austin .", "Dallas is a city"])
    labels = ik.label_features(store)
    found = attribution(model, clt, layer=2, head=0, key=1, labels=labels)
    named = labels.set_index(["layer", "feature"])["label"]
    feature = found.nodes[found.nodes["kind"] == "feature"].iloc[0]
    assert feature["label"] == named[feature["layer"], feature["feature"]]
    assert repr(found).startswith("QKAttribution(layer 2, head 0") and found.show().data
    for places, words in [
        ({"layer": 9, "head": 0, "key": 1}, "layer 9 is not there: the model has"),
        ({"layer": 0, "head": -1, "key": 1}, "head -1 is not there"),
        ({"layer": 0, "head": 0, "key": 50}, "key 50 is not a position"),
        ({"layer": 0, "head": 0, "key": 4, "query": 2}, "key 4 comes after query 2"),
    ]:
        with pytest.raises(ValueError, match=words):
            attribution(model, clt, **places)


def test_a_family_whose_attention_cannot_be_exchanged():
    model = tiny_model("gpt_neo", attention_types=[[["global"], 4]])
    with pytest.raises(ValueError, match="cannot be frozen"):
        attribution(model, tiny_transcoder(model), layer=0, head=0, key=1)
