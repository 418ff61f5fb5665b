import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.lenses.tokens.masking import MaskedPrompt
from interp_kit.lenses.tokens.methods import METHODS

PROMPT = "the capital of Texas is"
ADDITIVE = {"shapley", "shap"}
HIDE = {"baseline": "city"}  # the tiny vocabulary has no space


def explain(method, model=None, **options):
    return ik.lenses.explain_tokens(model or tiny_model(), PROMPT, "Austin", method=method, **HIDE | options)


def by_hand(model, hidden, baseline="city", target="Austin"):
    """The score with other words written in place of the hidden ones, through the model's own tokens."""
    words = PROMPT.split()
    text = " ".join(baseline if i in hidden else word for i, word in enumerate(words))
    return float(model.logits(text)[-1].log_softmax(-1)[model.token_id(target)])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "granite"])
def test_hiding_a_token_is_writing_the_baseline_there(family):
    model = tiny_model(family)
    masked = MaskedPrompt(model, PROMPT, "Austin", baseline="city")
    present = torch.ones(3, 5)
    present[1, 3], present[2] = 0, 0
    expected = [by_hand(model, ()), by_hand(model, {3}), by_hand(model, range(5))]
    np.testing.assert_allclose(masked.value(present), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(masked.ends(), [expected[0], expected[2]], rtol=1e-4, atol=1e-5)


def test_occlusion_is_what_one_hidden_token_takes_away():
    model = tiny_model()
    expected = [by_hand(model, ()) - by_hand(model, {i}) for i in range(5)]
    found = explain("occlusion", model)
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-5)
    assert found.forwards == 2 + 1 + 5 and found.seed is None and found.tokens == PROMPT.split()


def test_shapley_is_near_the_exact_values():
    """The exact ones over all 2^5 subsets, from the definition."""
    model, n = tiny_model(), 5
    worth = {
        s: by_hand(model, set(range(n)) - set(s)) for r in range(n + 1) for s in itertools.combinations(range(n), r)
    }
    exact = np.zeros(n)
    for i in range(n):
        for s in worth:
            if i not in s:
                weight = math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n)
                exact[i] += weight * (worth[tuple(sorted((*s, i)))] - worth[s])
    spread = np.abs(exact).max()
    for method, options in (("shapley", {"samples": 150}), ("shap", {"samples": 2000})):
        found = explain(method, model, **options)
        np.testing.assert_allclose(found.values, exact, atol=0.15 * spread)
        assert found.residual < 1e-3 and found.complete


def test_integrated_gradients_are_the_integral():
    """Against a sum over 2,000 midpoints of autograd's own gradient on the line between the embeddings."""
    model = tiny_model()
    found = explain("integrated_gradients", model)
    embed = model.hf.get_input_embeddings()
    x = embed(model.encode(PROMPT)).detach()
    x0 = x.clone()
    x0[1:] = embed.weight[model.token_id("city")]
    points = (torch.arange(2000) + 0.5)[:, None, None] / 2000
    line = (x0 + points * (x - x0)).requires_grad_()
    model.hf(inputs_embeds=line).logits[:, -1].log_softmax(-1)[:, model.token_id("Austin")].sum().backward()
    expected = ((x - x0) * line.grad.mean(0)).sum(-1)[1:]
    np.testing.assert_allclose(found.values, expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))
    assert found.about["converged"] and found.residual <= 0.01


def test_integrated_gradients_double_their_steps_until_they_add_up():
    rough = explain("integrated_gradients", steps=2, max_steps=2)
    assert rough.about == {"steps": 2, "converged": False} and rough.residual > 0.01
    assert "DID NOT CONVERGE" in rough._repr_html_()
    fine = explain("integrated_gradients", steps=2)
    assert fine.about["converged"] and fine.about["steps"] > 2 and "DID NOT" not in fine._repr_html_()


def test_gradients_are_autograds():
    model = tiny_model()
    embed = model.hf.get_input_embeddings()
    x = embed(model.encode(PROMPT)).detach()[None].requires_grad_()
    model.hf(inputs_embeds=x).logits[0, -1].log_softmax(-1)[model.token_id("Austin")].backward()
    np.testing.assert_allclose(explain("gradient", model).values, x.grad[0, 1:].norm(dim=-1), rtol=1e-3)
    difference = (x - embed.weight[model.token_id("city")]).detach()
    expected = (x.grad * difference)[0, 1:].sum(-1)
    np.testing.assert_allclose(explain("input_x_gradient", model).values, expected, rtol=1e-3, atol=1e-5)


def test_lime_recovers_a_line(monkeypatch):
    """Where the score is a weighted sum of the words that are seen, the surrogate is that sum, and R2 is 1."""
    weights = torch.tensor([1.0, -2.0, 0.0, 4.0, 0.5])
    monkeypatch.setattr(MaskedPrompt, "value", lambda self, present: present @ weights)
    for method in ("lime", "shapley", "shap", "occlusion"):
        options = {"samples": 800} if method == "lime" else {}
        found = explain(method, **options)
        np.testing.assert_allclose(found.values, weights, atol=0.15 if method == "lime" else 1e-4)
    assert explain("lime", samples=800).about["R2 of the surrogate"] > 0.95


def test_attention_is_the_models_own():
    model = tiny_model()
    patterns = ik.lenses.attention_patterns(model, PROMPT).patterns
    np.testing.assert_allclose(explain("attention", model).values, patterns.mean((0, 1))[-1, 1:], rtol=1e-5)
    flow = torch.eye(6)
    for layer in patterns.mean(1):
        flow = (0.5 * layer + 0.5 * torch.eye(6)) @ flow
    np.testing.assert_allclose(explain("rollout", model).values, flow[-1, 1:], rtol=1e-5)


def test_a_contrast_asks_why_rather():
    model = tiny_model()
    both = explain("shapley", model, contrast="Ohio")
    other = ik.lenses.explain_tokens(model, PROMPT, "Ohio", method="shapley", **HIDE)
    np.testing.assert_allclose(both.values, np.subtract(explain("shapley", model).values, other.values), atol=1e-4)
    assert "'Austin' rather than 'Ohio'" in both.question


@pytest.mark.parametrize("method", METHODS)
def test_every_result_shows_its_bill(method):
    found = explain(method)
    page = found._repr_html_()
    assert len(found.values) == 5 and np.isfinite(found.values).all() and found.forwards >= 3
    assert f"{found.forwards} forwards" in page and ("seed 0" in page) == (method in {"shapley", "shap", "lime"})
    in_nats = method not in {"gradient", "attention", "rollout"}
    assert (
        ("sum misses f(x) - f(x0) by" in page) == ("baseline: city" in page) == in_nats == np.isfinite(found.residual)
    )
    if method in ADDITIVE:
        assert found.complete


@pytest.mark.parametrize("method", ["shapley", "shap", "lime"])
def test_seeds(method):
    a, b, c = (explain(method, seed=s, samples=12).values for s in (0, 0, 1))
    assert a == b and a != c


@pytest.mark.parametrize("family", ["llama", "gemma", "gemma2", "gemma3_text", "gpt2"])
def test_baselines(family):
    model = tiny_model(family)
    rows = model.hf.get_input_embeddings()(torch.arange(model.vocab_size)).detach()  # Gemma scales what it looks up
    absent = {name: MaskedPrompt(model, PROMPT, baseline=name).absent for name in ("mean", "zero", "boundary", "Ohio")}
    torch.testing.assert_close(absent["mean"], rows.mean(0))
    assert not absent["zero"].any()
    torch.testing.assert_close(absent["boundary"], rows[model.tokenizer.eos_token_id])
    torch.testing.assert_close(absent["Ohio"], rows[model.token_id("Ohio")])
    with pytest.raises(ValueError, match="baseline 'space'.*boundary.*one token"):
        explain("occlusion", model, baseline="space")  # this vocabulary has none


def test_which_tokens_are_explained():
    model = tiny_model()
    some = explain("occlusion", model, positions=[4, -1])
    assert some.tokens == ["Texas", "is"]
    np.testing.assert_allclose(some.values, explain("occlusion", model).values[-2:], rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="some of 0 to 5"):
        explain("occlusion", positions=[6])
    with pytest.raises(ValueError, match="no token that could be hidden"):
        ik.lenses.explain_tokens(model, "<bos>", method="occlusion", **HIDE)


def test_special_tokens_without_a_role_stay_too():
    model = tiny_model(vocab_size=20)
    model.tokenizer.add_special_tokens({"extra_special_tokens": ["<turn>"]})
    found = ik.lenses.explain_tokens(model, "the <turn> capital of", method="occlusion", **HIDE)
    assert found.tokens == ["the", "capital", "of"]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_global_is_seeded(method):
    import random

    states = lambda: (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: E731
    model = tiny_model()
    before = states()
    explain(method, model)
    assert states() == before


def test_options_are_checked():
    for options in ({"samples": 0}, {"samples": True}, {"samples": 2.5}):
        with pytest.raises(ValueError, match="at least 1"):
            explain("shapley", **options)
    with pytest.raises(ValueError, match="occlusion has no option 'samples'; it has none"):
        explain("occlusion", samples=3)
    with pytest.raises(ValueError, match="more than 5"):
        explain("lime", samples=5)
    for wrong in ([1, 1], slice(6, 9)):
        with pytest.raises(ValueError, match="each once"):
            explain("occlusion", positions=wrong)
    assert explain("occlusion", positions=slice(4, None)).tokens == ["Texas", "is"]


@pytest.mark.parametrize("method", sorted(ADDITIVE | {"lime", "occlusion", "integrated_gradients"}))
def test_one_token_gets_all_of_it(method):
    found = explain(method, positions=[4])
    assert found.values == pytest.approx([found.f_x - found.f_x0], rel=0.02)


def test_half_precision_is_scored_in_single():
    import copy

    model = ik.load_model("pocket")
    half = ik.LanguageModel(copy.deepcopy(model.hf).to(torch.bfloat16), model.tokenizer, "half")
    masked = MaskedPrompt(half, "The capital of the state containing Dallas is", " Austin")
    logits = half.logits("The capital of the state containing Dallas is")[-1].float()
    assert masked.f_x == pytest.approx(float(logits.log_softmax(-1)[masked.target.ids[0]]), rel=1e-5)


def test_special_tokens_of_a_chat_stay(smollm2):
    prompt = smollm2.chat("What is the capital of Texas?")
    found = ik.lenses.explain_tokens(smollm2, prompt, method="occlusion")
    assert "<|im_start|>" not in found.tokens and " Texas" in found.tokens


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="gradient, input_x_gradient"):
        explain("magic")


@pytest.mark.parametrize("package", ["shap", "lime"])
def test_a_missing_extra_is_named(package, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=r"interp_kit\[xai\]"):
        explain(package)


def test_shap_is_left_to_python_and_others_code_is_compiled():
    """In a process of its own, since shap is loaded once."""
    code = (
        "import numba, interp_kit.lenses.tokens.methods as m\n"
        "links = m.import_shap().links\n"
        "print(hasattr(links.identity, 'py_func'), hasattr(numba.njit(lambda x: x), 'py_func'))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "True"]


def test_the_document_boundary_ruins_the_picture(smollm2):
    """As a baseline it makes all that stands before it forgotten: attribution grows with the position."""
    prompt = "Fact: the capital of the state containing Chicago is"
    ruined = ik.lenses.explain_tokens(smollm2, prompt, method="occlusion", baseline="boundary")
    plain = ik.lenses.explain_tokens(smollm2, prompt, method="occlusion", baseline="space")
    assert plain.tokens[int(np.argmax(plain.values))] == " Chicago"
    assert ruined.values[-1] > 2 * np.mean(ruined.values[:5])
