import numpy as np
import pytest
from tiny import tiny_model

import interp_kit as ik

PROMPT = "the capital of Texas is"


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "granite"])
def test_the_last_row_is_the_model(family):
    model = tiny_model(family)
    lens = ik.lenses.logit_lens(model, PROMPT, "Austin")
    p = model.logits(PROMPT).softmax(-1)
    np.testing.assert_allclose(lens.probability.iloc[-1], p.max(-1).values, rtol=1e-4)
    np.testing.assert_allclose(lens.target.iloc[-1], p[:, model.token_id("Austin")], rtol=1e-4)
    assert lens.tokens.iloc[-1, -1] == model.next_tokens(PROMPT, 1)["token"].iloc[0]
    assert list(lens.tokens.index) == ["embedding", 0, 1, 2, 3] and list(lens.tokens.columns) == model.tokens(PROMPT)


@pytest.mark.parametrize("family, changes", [("llama", {}), ("granite", {"logits_scaling": 8.0}), ("gemma2", {})])
def test_earlier_rows_are_the_model_cut_off(family, changes):
    """The same model with fewer layers says the same, with its scale or cap."""
    model, short = tiny_model(family, **changes), tiny_model(family, **changes)
    short.hf.model.layers = short.hf.model.layers[:2]
    short.hf.config.num_hidden_layers = 2
    expected = short.logits(PROMPT).softmax(-1).max(-1).values
    np.testing.assert_allclose(ik.lenses.logit_lens(model, PROMPT).probability.loc[1], expected, rtol=1e-4)


def test_rank_and_where_it_is_decided():
    model = tiny_model()
    lens = ik.lenses.logit_lens(model, PROMPT)
    assert lens.rank.iloc[-1, -1] == 1 and lens.decided is not None
    first = list(lens.rank.index).index(lens.decided)
    assert (lens.rank.iloc[first:, -1] == 1).all() and (first == 0 or lens.rank.iloc[first - 1, -1] > 1)
    worst = model.next_tokens(PROMPT, k=model.vocab_size).index[-1]
    last = ik.lenses.logit_lens(model, PROMPT, int(worst))
    assert last.rank.iloc[-1, -1] == model.vocab_size and last.decided is None


def test_tokens_in_the_picture_are_escaped():
    lens = ik.lenses.logit_lens(tiny_model(), "the state of the state")  # words that come twice have a column each
    lens.tokens.iloc[0, 0] = "<img src=x onerror=alert(1)>"
    assert "<img" not in lens.show().to_json().replace("\\u003c", "<") and "<img" not in lens._repr_html_()


def test_pocket_decides_late():
    lens = ik.lenses.logit_lens(ik.load_model("pocket"), "The capital of the state containing Dallas is", " Austin")
    assert lens.tokens.iloc[-1, -1] == " Austin" and lens.decided in range(2, 6)
