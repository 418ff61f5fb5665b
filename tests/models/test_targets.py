import numpy as np
import pytest
import torch
from tiny import tiny_model

from interp_kit.models.targets import named, score, token_of


def test_a_token_is_its_text_its_id_or_the_likeliest():
    model = tiny_model()
    logits = model.logits("the capital")[-1]
    austin = model.token_id("Austin")
    assert token_of(model, "Austin", logits) == token_of(model, np.int64(austin), logits) == austin
    assert token_of(model, None, logits) == int(logits.argmax())
    with pytest.raises(TypeError, match="got float"):
        token_of(model, 1.0, logits)
    with pytest.raises(ValueError, match="0 to 14"):
        token_of(model, 15, logits)
    with pytest.raises(ValueError, match="2 tokens"):
        token_of(model, "the capital", logits)


def test_scores():
    logits = torch.tensor([[1.0, 3.0, 0.0]])
    torch.testing.assert_close(score(logits, 1, None), logits.log_softmax(-1)[:, 1])
    torch.testing.assert_close(score(logits, 1, 2), torch.tensor([3.0]))
    model = tiny_model()
    assert named(model, model.token_id("Ohio"), model.token_id("city")) == "'Ohio' rather than 'city'"
