"""Models and transcoders of any float type: looked up, named, scored and steered alike."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik

TYPES = [torch.float16, torch.bfloat16, torch.float64]


@pytest.fixture(scope="module")
def plain():
    model = tiny_model()
    return ik.collect_features(model, tiny_transcoder(model), tiny_texts(40), n_examples=3)


@pytest.mark.parametrize("of_transcoder", [torch.float32, *TYPES])
@pytest.mark.parametrize("of_model", [torch.float32, *TYPES])
def test_any_two_types_go_together(of_model, of_transcoder, plain):
    model = tiny_model()
    model.hf.to(of_model)
    clt = tiny_transcoder(model)
    fingerprint = clt.fingerprint
    clt.to(of_transcoder)
    store = ik.collect_features(model, clt, tiny_texts(40), n_examples=3)
    assert store.about["transcoder"] == fingerprint
    wanted, found = plain.features["max_activation"], store.features["max_activation"]
    assert np.corrcoef(wanted, found)[0, 1] > 0.9  # in half precision other features may be among the top k
    labels = ik.label_features(store, only=[(0, i) for i in range(12)])
    scored = ik.score_labels(store, labels, judge="model", model=model).dropna(subset="detection")
    assert len(scored) > 3 and scored["embedding"].between(0, 1).all() and scored["detection"].between(0, 1).all()
    steered = ik.features.steering_scores(model, clt, store, labels[:3])
    assert np.isfinite(steered["KL"].dropna()).all() and steered["KL"].notna().any()


@pytest.mark.parametrize("dtype", TYPES)
def test_neurons_and_random_directions(dtype):
    model = tiny_model()
    model.hf.to(dtype)
    assert ik.features.neuron_examples(model, 2, 6, tiny_texts(20)).data["facts"]["max activation"] > 0
    for dictionary in (ik.features.Neurons(model), ik.features.RandomDirections(model, 4)):
        store = ik.collect_features(model, dictionary, tiny_texts(20), n_examples=2)
        assert (store.features["max_activation"] > 0).all() and len(store.row(1, 2)["top_logits"]) == 6
