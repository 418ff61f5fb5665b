import numpy as np
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik

EVIL = "<img src=x onerror=alert(1)>"
CLEAN, CORRUPTED = "the capital of Texas is", "the capital of Ohio is"


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "granite"])
def test_the_streams_way_through_the_layers(family):
    """Before the first layer all of the difference lies at the word that differs, and after the last at the end."""
    found = ik.lenses.patch_activations(tiny_model(family), CLEAN, CORRUPTED, target="Austin", contrast="Dallas")
    first = found.table.loc[0].to_numpy()
    np.testing.assert_allclose(first, [0, 0, 0, 0, 1, 0], atol=1e-4)
    assert list(found.table.columns)[4] == "Texas/Ohio" and found.table.shape == (4, 6)
    assert np.abs(found.table.to_numpy()[:, :4]).max() < 1e-4  # nothing differs before the word


@pytest.mark.parametrize("what", ["attention", "MLP"])
def test_one_write_is_replaced_in_one_place(what):
    """The same by hand: hooks that put the clean run's write of layer 2 in at the last position."""
    model = tiny_model()
    layer = model.hf.model.layers[2]
    module = layer.self_attn.o_proj if what == "attention" else layer.mlp
    kept = []
    handle = module.register_forward_hook(lambda _, args, out: kept.append(out[:, -1]))
    clean = model.logits(CLEAN)[-1]
    handle.remove()
    other = model.logits(CORRUPTED)[-1]

    def put_in(_, args, out):
        out = out.clone()
        out[:, -1] = kept[0]
        return out

    handle = module.register_forward_hook(put_in)
    changed = model.logits(CORRUPTED)[-1]
    handle.remove()
    a, b = model.token_id("Austin"), model.token_id("Dallas")
    gap = [float(logits[a] - logits[b]) for logits in (clean, other, changed)]
    found = ik.lenses.patch_activations(model, CLEAN, CORRUPTED, what, "Austin", "Dallas")
    np.testing.assert_allclose(found.table.iloc[2, -1], (gap[2] - gap[1]) / (gap[0] - gap[1]), rtol=1e-3)
    np.testing.assert_allclose([found.clean, found.corrupted], gap[:2], rtol=1e-4)


def test_heads_together_are_no_more_than_their_attention():
    """With one head a layer, all positions of a head are the attention's whole write."""
    model = tiny_model(num_attention_heads=1, num_key_value_heads=1, head_dim=16)
    found = ik.lenses.patch_activations(model, CLEAN, CORRUPTED, "heads", "Austin", "Dallas").table
    assert found.shape == (4, 1)
    last = ik.lenses.patch_activations(model, CLEAN, CORRUPTED, "attention", "Austin", "Dallas").table
    # In the last layer only the last position reaches the answer.
    np.testing.assert_allclose(found.iloc[3, 0], last.iloc[3, -1], rtol=1e-4)


def test_views_are_escaped():
    found = ik.lenses.patch_activations(tiny_model(), CLEAN, CORRUPTED, target="Austin", contrast="Dallas")
    found.question, found.table.columns = EVIL, [EVIL] * 6
    assert "<img" not in found._repr_html_() + found.show().to_json()


def test_prompts_must_correspond():
    model = tiny_model()
    with pytest.raises(ValueError, match="6 and 7 tokens"):
        ik.lenses.patch_activations(model, CLEAN, "the capital of the state is")
    with pytest.raises(ValueError, match="no difference"):
        ik.lenses.patch_activations(model, CLEAN, CLEAN)
    with pytest.raises(ValueError, match="residual, attention, MLP, heads"):
        ik.lenses.patch_activations(model, CLEAN, CORRUPTED, "neurons")


def test_pocket_moves_the_answer_from_the_city_to_the_end():
    model = ik.load_model("pocket")
    start = "The capital of the state containing {} is"
    found = ik.lenses.patch_activations(model, start.format("Dallas"), start.format("Oakland"))
    city = list(found.table.columns).index(" Dallas/ Oakland")
    assert "' Austin' rather than ' Sacramento'" in found.question
    assert found.table.iloc[0, city] > 0.99 and abs(found.table.iloc[0, -1]) < 0.01
    assert found.table.iloc[-1, -1] > 0.5 > found.table.iloc[-1, city]
    assert found.show().data[0].z.shape == found.table.shape
    assert torch.isfinite(torch.tensor(found.table.to_numpy())).all()
