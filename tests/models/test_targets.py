import numpy as np
import pytest
import torch
from tiny import tiny_model

from interp_kit.models.targets import Target, token_ids


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_a_token_is_its_text_its_id_or_the_likeliest(model):
    logits = model.logits("the capital")[-1]
    austin = model.token_id("Austin")
    for said in ("Austin", austin, np.int64(austin), torch.tensor(austin), ["Austin"]):
        assert Target.of(model, said, None, logits) == Target((austin,), (), "'Austin'")
    assert Target.of(model, None, None, logits).ids == (int(logits.argmax()),)
    assert Target.of(model, "Ohio", "city", logits).name == "'Ohio' rather than 'city'"
    assert (
        Target.of(model, ["Ohio", "Austin"], "city", logits).name == "the mean of 'Ohio', 'Austin' rather than 'city'"
    )


@pytest.mark.parametrize(
    "tokens, error, message",
    [
        (1.0, TypeError, "got float"),
        ([["Austin"]], TypeError, "got list"),
        (15, ValueError, "0 to 14"),
        (-1, ValueError, "0 to 14"),
        ("the capital", ValueError, "2 tokens"),
        ([], ValueError, "empty list"),
        (["Ohio", "Austin", "Ohio"], ValueError, "'Ohio' stands twice"),
    ],
)
def test_what_is_no_token_is_refused(model, tokens, error, message):
    with pytest.raises(error, match=message):
        token_ids(model, tokens)
    with pytest.raises(error, match=message):
        Target.of(model, "Austin", tokens, torch.zeros(15))


def test_score_of_one_token_and_of_two():
    logits = torch.tensor([[1.0, 3.0, 0.0]])
    torch.testing.assert_close(Target((1,), (), "").score(logits), logits.log_softmax(-1)[:, 1], rtol=0, atol=0)
    torch.testing.assert_close(Target((1,), (2,), "").score(logits), torch.tensor([3.0]), rtol=0, atol=0)
    half = Target((1,), (), "").score(logits.bfloat16())
    assert half.dtype == torch.float32


def test_a_list_is_a_mean_of_logits_and_of_the_directions_that_make_them():
    generator = torch.Generator().manual_seed(0)
    unembedding = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    stream = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    logits = stream @ unembedding.T
    target = Target((1, 4), (0, 2, 3), "")
    by_hand = logits[:, [1, 4]].mean(1) - logits[:, [0, 2, 3]].mean(1)
    torch.testing.assert_close(target.score(logits), by_hand)
    torch.testing.assert_close(stream @ target.weigh(unembedding.T), by_hand)
    without = Target((1, 4), (), "")
    torch.testing.assert_close(without.score(logits), logits.log_softmax(-1)[:, [1, 4]].mean(1))
    torch.testing.assert_close(without.probability(logits), logits.softmax(-1)[:, [1, 4]].sum(1))
