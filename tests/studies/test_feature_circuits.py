"""Features ranked in several ways, graded by setting the others to the corrupted prompt."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

from interp_kit.graphs.feature_edits import FeatureEdits
from interp_kit.models.frozen import FrozenModel
from interp_kit.studies.feature_circuits import RANKINGS, _gradients, feature_faithfulness

CLEAN, CORRUPT = "the capital of Texas is", "the capital of Dallas is"


@pytest.mark.parametrize("ranking", RANKINGS)
def test_all_features_are_the_whole_effect(ranking):
    model = tiny_model()
    found = feature_faithfulness(model, tiny_transcoder(model), CLEAN, CORRUPT, 5, 9, ranking)
    assert found.shape == (10,) and found[-1] == pytest.approx(1, abs=1e-4)


def test_gradients_are_the_models():
    """A small change of one feature, added to the real MLP outputs, moves the metric by its gradient."""
    model = tiny_model()
    clt = tiny_transcoder(model)
    edits = FeatureEdits(FrozenModel(model, CLEAN), clt)
    gradients = _gradients(model, clt, edits, 5, 9)
    layer, position, feature = edits.activations.nonzero()[7].tolist()
    little = 1e-2
    ends = []
    for sign in (1, -1):
        out = []
        for target in range(clt.n_targets(layer)):
            row = clt.decoder_rows(layer, torch.tensor([feature]), layer + target)[0]
            out.append((layer + target, sign * little * row))
        handles = []
        for at, row in out:

            def add(_, __, y, row=row):
                y = y.clone()
                y[0, position] += row
                return y

            handles.append(model.hf.model.layers[at].mlp.register_forward_hook(add))
        with torch.no_grad():
            logits = model.hf(input_ids=model.encode(CLEAN)[None]).logits[0, -1].double()
        for handle in handles:
            handle.remove()
        ends.append(float(logits[5] - logits[9]))
    assert (ends[0] - ends[1]) / (2 * little) == pytest.approx(float(gradients[layer, position, feature]), rel=0.02)


def test_prompts_of_different_lengths():
    model = tiny_model()
    with pytest.raises(ValueError, match="as many tokens"):
        feature_faithfulness(model, tiny_transcoder(model), CLEAN, "Texas is", 5, 9, "random")


def test_an_order_at_random_is_the_seed_s():
    model = tiny_model()
    clt = tiny_transcoder(model)
    a, b, c = (feature_faithfulness(model, clt, CLEAN, CORRUPT, 5, 9, "random", seed=s) for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
