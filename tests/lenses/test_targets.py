"""A target is said the same way to every lens: as text, as an id, or as a list, which is a mean."""

import numpy as np
import pytest
from tiny import tiny_model

import interp_kit as ik

PROMPT, OTHER = "the capital of Texas is", "the capital of Ohio is"


def decomposed(model, **asked):
    return ik.lenses.decompose(model, PROMPT, **asked).table["contribution"]


def ablated(model, **asked):
    return ik.lenses.ablate(model, PROMPT, **asked).table["effect"]


def restored(model, **asked):
    """In units of the measure, which alone is a mean: shares of it are not."""
    found = ik.lenses.patch_activations(model, PROMPT, OTHER, **asked)
    return found.corrupted + found.table * (found.clean - found.corrupted)


def explained(model, **asked):
    return ik.lenses.explain_tokens(model, PROMPT, method="occlusion", baseline="city", **asked).values


def seen_early(model, target, contrast=None):
    return ik.lenses.logit_lens(model, PROMPT, target=target).target


LENSES = [decomposed, ablated, restored, explained]


@pytest.mark.parametrize("lens", [*LENSES, seen_early])
def test_a_token_is_its_text_or_its_id(lens):
    model = tiny_model()
    expected = np.asarray(lens(model, target="Austin", contrast="Ohio"))
    austin, ohio = model.token_id("Austin"), model.token_id("Ohio")
    for target, contrast in ((austin, ohio), (["Austin"], [ohio])):
        np.testing.assert_array_equal(lens(model, target=target, contrast=contrast), expected)
    with pytest.raises(ValueError, match="2 tokens"):
        lens(model, target="Austin Ohio", contrast="Ohio")


@pytest.mark.parametrize("lens", LENSES)
def test_a_list_is_a_mean(lens):
    model = tiny_model()
    each = [lens(model, target=target, contrast="Ohio") for target in ("Austin", "Dallas")]
    both = lens(model, target=["Austin", "Dallas"], contrast="Ohio")
    np.testing.assert_allclose(both, np.mean(each, 0), rtol=1e-3, atol=1e-5)
    turned = lens(model, target="Ohio", contrast=["Austin", "Dallas"])
    np.testing.assert_allclose(turned, -np.mean(each, 0), rtol=1e-3, atol=1e-5)


def test_several_answers_in_the_logit_lens():
    """One of them comes next: their probabilities are summed, and the likeliest of them has the rank."""
    model = tiny_model()
    austin, dallas = (ik.lenses.logit_lens(model, PROMPT, target=target) for target in ("Austin", "Dallas"))
    both = ik.lenses.logit_lens(model, PROMPT, target=["Austin", "Dallas"])
    np.testing.assert_allclose(both.target, austin.target + dallas.target, rtol=1e-5)
    np.testing.assert_array_equal(both.rank, np.minimum(austin.rank, dallas.rank))


def test_every_position_of_a_decomposition_is_set_against_the_same_contrast():
    model = tiny_model()
    found = ik.lenses.decompose(model, PROMPT, target=["Austin", "Dallas"], contrast="Ohio", position="all")
    alone = ik.lenses.decompose(model, PROMPT, target=["Austin", "Dallas"], contrast="Ohio")
    assert found.logit[-1] == pytest.approx(alone.logit, rel=1e-4)
    logits = model.logits(PROMPT)[0]
    expected = logits[model.token_id("the")] - logits[model.token_id("Ohio")]
    assert found.logit[0] == pytest.approx(float(expected), rel=1e-4)
    assert found.table["target"].iloc[0] == "the" and found.table["target"].iloc[-1] == "Austin / Dallas"


def test_without_a_target_it_is_the_likeliest():
    model = tiny_model()
    best = repr(model.next_tokens(PROMPT, 1)["token"].iloc[0])
    for lens in (ik.lenses.decompose, ik.lenses.ablate, ik.lenses.logit_lens):
        assert lens(model, PROMPT).question == best
    assert ik.lenses.explain_tokens(model, PROMPT, method="occlusion", baseline="city").question == best
