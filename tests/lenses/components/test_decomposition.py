import numpy as np
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.lenses.components.edits import head_slice
from interp_kit.models.edits import record
from interp_kit.models.families import Norm
from interp_kit.models.frozen.model import FrozenModel

PROMPT = "the capital of Texas is"
EVIL = "<img src=x onerror=alert(1)>"
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("contrast", [None, "Ohio"])
def test_contributions_add_up_to_the_logit(family, contrast):
    model = tiny_model(family)
    found = ik.lenses.decompose(model, PROMPT, "Austin", contrast, dtype=torch.float64)
    np.testing.assert_allclose(found.total, found.logit, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.table["contribution"].sum(), found.logit, rtol=1e-9, atol=1e-11)
    if family not in ("gemma2", "granite"):  # which cap or scale the logits afterwards
        logits = model.logits(PROMPT)[-1]
        expected = logits[model.token_id("Austin")] - (logits[model.token_id("Ohio")] if contrast else 0)
        np.testing.assert_allclose(found.logit, float(expected), rtol=1e-3, atol=1e-4)


def _bias(frozen, l):
    """What the values' bias and that of the norm before it add to the heads, side by side: the patterns' rows sum to
    1."""
    block, layout = frozen.parts.blocks[l], frozen.parts.layout
    value, bias = layout.value(block.attention)
    norm = Norm.of(block.attention_norm)
    total = (0 if bias is None else bias) + (0 if norm.bias is None else value @ norm.bias)
    if isinstance(total, int):
        return 0
    groups = total.view(-1, 4)
    return (frozen.patterns[l][:, -1].sum(-1)[:, None] * groups.repeat_interleave(4 // len(groups), 0)).flatten()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_part_is_what_the_frozen_readout_loses_without_it(family):
    """Head by head and MLP by MLP, from hooks in the model itself rather than from the frozen algebra."""
    model = tiny_model(family)
    frozen = FrozenModel(model, PROMPT, torch.float64)
    hf, target = frozen.hf, model.token_id("Austin")
    feature_output_hook = record(hf, frozen.ids, ["heads", "MLP"])
    norm, stream = frozen.final_norm, frozen.residual_final[-1]
    logit = lambda x: frozen.parts.unembedding(norm(x, norm.scale(stream)))[target]  # noqa: E731
    table = ik.lenses.decompose(model, PROMPT, "Austin", dtype=torch.float64).table.set_index("component")[
        "contribution"
    ]
    if family == "granite":
        assert "head 0.0" not in table.index and "attention 0" in table.index
        return
    for l, block in enumerate(frozen.parts.blocks):
        lost = logit(stream) - logit(stream - feature_output_hook["MLP"][l, -1])
        np.testing.assert_allclose(table[f"MLP {l}"], float(lost), rtol=1e-9, atol=1e-11)
        without_bias = feature_output_hook["heads"][l, -1] - _bias(frozen, l)
        for head in range(4):
            alone = torch.zeros_like(without_bias)
            alone[head_slice(hf, head)] = without_bias[head_slice(hf, head)]
            written = block.projection(alone) - block.projection(0 * alone)
            if block.after_attention is not None:  # a norm with the denominator that it had
                after = Norm.of(block.after_attention)
                written = after.push(written) * after.scale(frozen.attention_out[l][-1])
            lost = logit(stream) - logit(stream - written)
            np.testing.assert_allclose(table[f"head {l}.{head}"], float(lost), rtol=1e-6, atol=1e-9)
    if family == "llama":
        assert abs(table["MLP 1"]) > 1e-3 and abs(table["head 1.2"]) > 1e-3


def test_sources_tell_where_it_came_from():
    model = tiny_model()
    found = ik.lenses.decompose(model, PROMPT, "Austin")
    np.testing.assert_allclose(found.sources.sum(axis=1), found.table["contribution"], rtol=1e-4, atol=1e-6)
    at_home = ~found.table["component"].str.startswith("head").to_numpy()
    assert not found.sources.to_numpy()[at_home, :-1].any()
    first = ik.lenses.decompose(model, PROMPT, "Austin", position=0)
    assert not first.sources.to_numpy()[:, 1:].any()  # nothing comes from later positions


def test_a_head_that_only_looks_at_one_place_brings_everything_from_there(monkeypatch):
    model = tiny_model()
    run = FrozenModel._run

    def looking_at_two(self):
        run(self)
        for pattern in self.patterns:
            pattern.zero_()[:, :, 2] = 1

    monkeypatch.setattr(FrozenModel, "_run", looking_at_two)
    sources = ik.lenses.decompose(model, PROMPT, "Austin").sources
    heads = sources.loc[[name.startswith("head") for name in sources.index]].to_numpy()
    assert heads[:, 2].all() and not np.delete(heads, 2, axis=1).any()


def test_all_positions_are_asked_about_the_token_that_follows():
    model = tiny_model("gpt2")
    everywhere = ik.lenses.decompose(model, PROMPT, "Austin", position="all", dtype=torch.float64)
    np.testing.assert_allclose(everywhere.total, everywhere.logit, rtol=1e-9)
    tokens = model.tokens(PROMPT)
    for p in range(len(tokens)):
        target = tokens[p + 1] if p + 1 < len(tokens) else "Austin"
        alone = ik.lenses.decompose(model, PROMPT, target, position=p, dtype=torch.float64)
        rows = everywhere.table[everywhere.table["position"] == p]
        np.testing.assert_allclose(rows["contribution"], alone.table["contribution"], rtol=1e-9, atol=1e-12)
        assert set(rows["target"]) == {target} and set(rows["token"]) == {tokens[p]}
    with pytest.raises(ValueError, match="position=-1"):
        everywhere.show_sources()


def test_ids_and_indices_come_in_any_form():
    model = tiny_model()
    ids = model.encode(PROMPT)
    expected = ik.lenses.decompose(model, PROMPT, "Austin", position=3).logit
    assert ik.lenses.decompose(model, ids.tolist(), "Austin", position=np.int64(3)).logit == expected
    with pytest.raises(ValueError, match="not in the vocabulary"):
        ik.lenses.decompose(model, [0, 99])


def test_without_a_target_it_is_the_likeliest():
    model = tiny_model()
    best = model.next_tokens(PROMPT, 1)
    assert repr(best["token"].iloc[0]) in ik.lenses.decompose(model, PROMPT).question


@pytest.mark.parametrize("position", [6, -7, 1.5, True, "last", slice(2)])
def test_positions_outside_are_refused(position):
    with pytest.raises(ValueError, match="positions 0 to 5"):
        ik.lenses.decompose(tiny_model(), PROMPT, position=position)


def test_views_are_escaped():
    model = tiny_model()
    found = ik.lenses.decompose(model, PROMPT, "Austin", "Ohio")
    assert len(found.show().data) == 2 and len(found.show_sources(5).data[0].y) == 5
    found.question, found.sources.columns = EVIL, [EVIL] * 6
    assert "<img" not in found._repr_html_() + found.show().to_json() + found.show_sources().to_json()


def test_pocket_is_right_because_of_its_mlps_and_heads():
    """What is true of the shipped model: late layers write the answer, the embedding of the last word does not."""
    model = ik.load_model("pocket")
    found = ik.lenses.decompose(model, "The capital of the state containing Dallas is", " Austin", " Sacramento")
    np.testing.assert_allclose(found.total, found.logit, rtol=1e-4)
    layers = found.layers.sum(axis=1)
    assert layers.loc[3:].sum() > 0.8 * found.logit
