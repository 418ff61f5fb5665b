import numpy as np
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik

PROMPT = "the capital of Texas is"


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2", "gpt_neox"])
def test_moved_is_what_one_key_adds(family):
    """By a change of one weight of the pattern in a frozen run: the write's change has that norm."""
    from interp_kit.models.families import Norm
    from interp_kit.models.frozen.model import FrozenModel

    model = tiny_model(family)
    found = ik.lenses.attention_patterns(model, PROMPT)
    np.testing.assert_allclose(found.patterns.sum(-1), 1, rtol=1e-5)
    assert found.moved.shape == found.patterns.shape == (4, 4, 6, 6)
    frozen = FrozenModel(model, PROMPT)
    block, layout = frozen.parts.blocks[1], frozen.parts.layout
    value, _ = layout.value(block.attention)
    out, _ = layout.out(block.attention)
    norm, width = Norm.of(block.attention_norm), out.shape[1] // 4
    x = norm.normalised(frozen.residual_pre[1][3]) * norm.gain
    group = 2 // (4 // (len(value) // width))
    moved = (
        out[:, 2 * width : 3 * width] @ (value @ x)[group * width : (group + 1) * width] * found.patterns[1, 2, 5, 3]
    )
    if block.after_attention is not None:
        after = Norm.of(block.after_attention)
        moved = after.push(moved) * after.scale(frozen.attention_out[1][5])
    np.testing.assert_allclose(found.moved[1, 2, 5, 3], moved.norm(), rtol=1e-4)


def test_the_strongest_are_listed_in_order():
    found = ik.lenses.attention_patterns(tiny_model(), PROMPT)
    table = found.strongest(k=5)
    assert list(table["moved"]) == sorted(table["moved"], reverse=True)
    assert table["moved"].iloc[0] == pytest.approx(float(found.moved[:, :, -1].max()))
    top = found.strongest(weighted=False, k=1).iloc[0]
    assert top["pattern"] == pytest.approx(float(found.patterns[top["layer"], top["head"], -1, top["position"]]))


def test_views():
    found = ik.lenses.attention_patterns(tiny_model(), PROMPT)
    found.tokens[1] = "<b>"
    figure = found.show(2, 1)
    np.testing.assert_allclose(figure.data[0].z, found.patterns[2, 1])
    np.testing.assert_allclose(found.show(2, weighted=True).data[0].z, found.moved[2].sum(0), rtol=1e-6)
    assert "<b>" not in figure.to_json().replace("\\u003c", "<") and "<b>" not in found._repr_html_()
    with pytest.raises(IndexError):
        found.show(4)


def test_the_browser_follows_its_controls():
    found = ik.lenses.attention_patterns(tiny_model(), PROMPT)
    browser = found.browse()
    assert len(browser._figure.outputs) == 1
    drawn = []
    browser._draw = lambda *at: drawn.append(at) or found.show(*at)
    browser.layer.value, browser.head.value, browser.weighted.value = 3, 2, True
    assert drawn == [(3, None, False), (3, 2, False), (3, 2, True)]


def test_families_without_algebra_are_refused():
    with pytest.raises(NotImplementedError, match="granite"):
        ik.lenses.attention_patterns(tiny_model("granite"), PROMPT)


def test_pocket_looks_at_the_city():
    found = ik.lenses.attention_patterns(ik.load_model("pocket"), "The capital of the state containing Dallas is")
    assert " Dallas" in set(found.strongest(k=5)["token"])
    assert torch.isfinite(found.moved).all()
