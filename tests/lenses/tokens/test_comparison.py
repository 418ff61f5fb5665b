import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.lenses.tokens.comparison import RANDOM_ORDER
from interp_kit.lenses.tokens.masking import MaskedPrompt
from interp_kit.lenses.tokens.measures import randomise_upper_half, rank_correlation, scores
from interp_kit.lenses.tokens.words import word_mask

PROMPTS = ["the capital of Texas is", "Dallas is a city of"]
QUESTIONS = pd.DataFrame({"prompt": PROMPTS, "matters": [["capital", "Texas"], ["Dallas"]]})


def test_scores_by_hand(monkeypatch):
    """Words worth 4, 2 and 1 hundredths of probability each; the explanation has the first two the wrong way round."""
    worth = torch.tensor([0.04, 0.02, 0.01])
    monkeypatch.setattr(MaskedPrompt, "value", lambda self, present: (0.5 + present @ worth).log())
    masked = MaskedPrompt(tiny_model(), "the capital of", "Austin", baseline="city")
    found = scores(masked, np.array([1.0, 2.0, 0.5]), np.array([True, False, False]))
    falls = [0, 0.02, 0.06, 0.07]  # without the second, then also the first, then all
    shown = [0.5, 0.52, 0.56, 0.57]
    assert found["deletion"] == pytest.approx(np.mean(falls), rel=1e-4)
    assert found["insertion"] == pytest.approx(np.mean(shown), rel=1e-4)
    # 10, 20 and 50 % of three words: one, one and two.
    assert found["comprehensiveness"] == pytest.approx(np.mean([0.02, 0.02, 0.06]), rel=1e-3)
    assert found["sufficiency"] == pytest.approx(np.mean([0.05, 0.05, 0.01]), rel=1e-3)
    assert found["truth"] == 0.5  # above one false word, below the other


def row_target():
    """The model's own answer, which the randomised one is asked about too."""
    return int(tiny_model().logits(PROMPTS[0])[-1].argmax())


def test_a_comparison():
    methods = ["occlusion", "attention"]
    found = ik.lenses.compare_explanations(tiny_model(), QUESTIONS, methods, baseline="city")
    assert list(found.table.index) == [RANDOM_ORDER, "occlusion", "attention"] and len(found.rows) == 6
    np.testing.assert_allclose(np.diag(found.agreement), 1)
    table = found.table
    assert (table["low"] <= table["truth"]).all() and (table["truth"] <= table["high"]).all()
    assert table["truth"].between(0, 1).all()
    alone = ik.lenses.explain_tokens(tiny_model(), PROMPTS[0], method="occlusion", baseline="city")
    row = found.rows[(found.rows["question"] == 0) & (found.rows["method"] == "occlusion")].iloc[0]
    assert row["residual"] == pytest.approx(alone.residual, rel=1e-4) and row["forwards"] == alone.forwards
    other = ik.lenses.explain_tokens(tiny_model(), PROMPTS[0], method="attention", baseline="city")
    second = [ik.lenses.explain_tokens(tiny_model(), PROMPTS[1], method=m, baseline="city").values for m in methods]
    expected = np.mean([rank_correlation(alone.values, other.values), rank_correlation(*second)])
    assert found.agreement.loc["occlusion", "attention"] == pytest.approx(expected)
    scrambled = ik.lenses.explain_tokens(
        randomise_upper_half(tiny_model()), PROMPTS[0], row_target(), method="occlusion", baseline="city"
    )
    assert row["sanity"] == pytest.approx(rank_correlation(alone.values, scrambled.values))
    assert len(found.show().data[0].x) == 2
    again = ik.lenses.compare_explanations(tiny_model(), QUESTIONS, methods, baseline="city")
    assert found.rows.equals(again.rows)


def test_what_it_needs_is_said():
    model = tiny_model()
    with pytest.raises(ValueError, match="is the baseline"):
        ik.lenses.compare_explanations(model, QUESTIONS, baseline="city", mask="city")
    with pytest.raises(ValueError, match="is the baseline"):  # by another name
        ik.lenses.compare_explanations(model, QUESTIONS, baseline="boundary", mask=model.tokenizer.eos_token)
    with pytest.raises(ValueError, match="column `prompt`"):
        ik.lenses.compare_explanations(model, QUESTIONS[["matters"]], baseline="city")
    with pytest.raises(ValueError, match="'Utah' should matter"):
        ik.lenses.compare_explanations(model, QUESTIONS.assign(matters=[["Utah"], []]), baseline="city")
    with pytest.raises(ValueError, match="is target and contrast"):
        ik.lenses.compare_explanations(model, QUESTIONS.assign(target="Austin", contrast="Austin"), baseline="city")


def test_a_contrast_is_scored_between_the_two():
    """The probability of the target among the two, and values that are those of the contrast."""
    questions = QUESTIONS.assign(target="Austin", contrast="Ohio")
    found = ik.lenses.compare_explanations(tiny_model(), questions, ["occlusion"], baseline="city", mask="zero")
    masked = MaskedPrompt(tiny_model(), PROMPTS[0], "Austin", "Ohio", "zero")
    alone = ik.lenses.explain_tokens(tiny_model(), PROMPTS[0], "Austin", "Ohio", method="occlusion", baseline="city")
    expected = scores(masked, np.array(alone.values), None)["deletion"]
    assert found.rows["deletion"][0] == pytest.approx(expected, rel=1e-5)
    both = float(torch.sigmoid(torch.tensor(masked.ends()[0])))
    p = tiny_model().logits(PROMPTS[0])[-1].softmax(-1)
    a, b = (float(p[tiny_model().token_id(word)]) for word in ("Austin", "Ohio"))
    assert both == pytest.approx(a / (a + b), rel=1e-4)


def test_tokens_that_matter():
    model = ik.load_model("pocket")
    prompt = "The capital of the state containing Dallas is"
    found = word_mask(model, prompt, ["Dallas", "capital"])
    assert [token for token, yes in zip(model.tokens(prompt), found) if yes] == [" capital", " Dallas"]
    twice = word_mask(model, "Dallas is in Texas. The capital of the state containing Dallas is", ["Dallas", "is"])
    assert twice.sum() == 4  # every occurrence
    with pytest.raises(ValueError, match="not in"):
        word_mask(model, prompt, ["all"])  # a part of a word is none


def test_ranks_are_compared_without_signs():
    assert rank_correlation([1, -2, 3], [10, 20, -30]) == pytest.approx(1)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))


def test_randomising_changes_the_upper_half_only():
    model = tiny_model()
    other = randomise_upper_half(model)
    for l, (a, b) in enumerate(zip(model.hf.model.layers, other.hf.model.layers)):
        assert torch.equal(a.mlp.up_proj.weight, b.mlp.up_proj.weight) == (l < 2)
        np.testing.assert_allclose(a.mlp.up_proj.weight.flatten().sort()[0], b.mlp.up_proj.weight.flatten().sort()[0])
        assert torch.equal(a.input_layernorm.weight, b.input_layernorm.weight)
    assert torch.equal(randomise_upper_half(model).logits(PROMPTS[0]), other.logits(PROMPTS[0]))


def test_on_pocket_it_is_known_which_words_decide():
    model, world = ik.load_model("pocket"), ik.load_world("geography")
    found = ik.lenses.compare_explanations(model, world.why_questions(10), ["shapley", "rollout"])
    assert found.table.loc["shapley", "truth"] > 0.7
    assert 0.3 < found.table.loc[RANDOM_ORDER, "truth"] < 0.7
