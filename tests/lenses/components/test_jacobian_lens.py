"""The Jacobian lens against derivatives by hand."""

import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit import hardware

TEXTS = ["the capital of Texas is Austin", "Dallas is a city"]


def streams(model, text):
    """[layer, position, d_model], and a function from one layer's stream to the last."""
    from interp_kit.models.frozen import FrozenModel

    return FrozenModel(model, text)


def test_jacobians_by_hand():
    """One layer, one text: the mean over positions of the summed derivative, by torch's own Jacobian."""
    model = tiny_model()
    lens = ik.lenses.fit_jacobian_lens(model, TEXTS[:1])
    layers, ids = model.hf.model.layers, model.encode(TEXTS[0])
    frozen = streams(model, TEXTS[0])
    last = len(layers) - 1
    args, kwargs = frozen.block_arguments[last]

    def top(stream):
        out = layers[last](stream[None], *args, **kwargs)
        return (out[0] if isinstance(out, tuple) else out).reshape(len(ids), -1)

    whole = torch.autograd.functional.jacobian(top, frozen.residual_pre[last])  # [p', out, p, in]
    wanted = whole.sum(0).mean(1)
    torch.testing.assert_close(lens.jacobians[last], wanted, rtol=1e-3, atol=1e-4)


def test_texts_count_by_their_tokens():
    model = tiny_model()
    both = ik.lenses.fit_jacobian_lens(model, TEXTS)
    single = [ik.lenses.fit_jacobian_lens(model, [text]).jacobians for text in TEXTS]
    n = [len(model.encode(text)) for text in TEXTS]
    wanted = (single[0] * n[0] + single[1] * n[1]) / sum(n)
    torch.testing.assert_close(both.jacobians, wanted, rtol=1e-3, atol=1e-4)
    assert both.n_texts == 2 and "2 texts" in repr(both)


def test_reading(monkeypatch):
    model = tiny_model()
    lens = ik.lenses.fit_jacobian_lens(model, TEXTS)
    found = lens.read(model, "the capital of", target=5, contrast=9)
    plain = ik.lenses.logit_lens(model, "the capital of", target=5, contrast=9)
    assert found.tokens.shape == plain.tokens.shape
    assert (found.score.iloc[-1] == plain.score.iloc[-1]).all()  # the last row is the model's own
    logits = model.hf(input_ids=model.encode("the capital of")[None]).logits[0, -1]
    assert plain.score.iloc[-1, -1] == pytest.approx(float(logits[5] - logits[9]), rel=1e-4)
    lens.jacobians[:] = torch.eye(model.d_model)  # then it is the logit lens
    assert lens.read(model, "the capital of", target=5).tokens.equals(plain.tokens)


def test_what_it_refuses():
    model = tiny_model()
    lens = ik.lenses.fit_jacobian_lens(model, TEXTS)
    with pytest.raises(ValueError, match="do not belong together"):
        lens.read(tiny_model(seed=4), "the capital of")
    with pytest.raises(ValueError, match="no text to read"):
        ik.lenses.fit_jacobian_lens(model, [])


def test_memory_that_is_short(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(hardware, "free_memory", lambda *_: 1e3)
    with pytest.raises(MemoryError, match="fitting a Jacobian lens needs about"):
        ik.lenses.fit_jacobian_lens(model, TEXTS)
