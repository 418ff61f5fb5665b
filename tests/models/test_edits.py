import pytest
import torch
from tiny import tiny_model

from interp_kit.models.edits import SITES, Edit, Edits, record, site_hook
from interp_kit.models.families import anatomy
from interp_kit.models.hooks import hooked

PROMPT = "the capital of Texas is"
FAMILIES = ["llama", "gemma2", "gpt2", "gpt_neox", "granite"]


def logits_with(model, edits, n=1):
    ids = model.encode(PROMPT).expand(n, -1)
    return edits.run(model.hf, ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", SITES)
def test_what_was_recorded_put_back_changes_nothing_and_zeros_do(family, site):
    model = tiny_model(family)
    values = record(model.hf, model.encode(PROMPT), [site])[site]
    assert values.shape[:2] == (4, 6)
    same = [Edit(site, layer, values[layer]) for layer in range(4)]
    found = logits_with(model, Edits([same, [Edit(site, 2, torch.zeros(1))]]), 2)
    plain = model.logits(PROMPT)
    torch.testing.assert_close(found[0], plain, rtol=1e-5, atol=1e-5)
    assert (found[1] - plain).abs().max() > 1e-3


def test_each_version_position_and_part_for_itself():
    model = tiny_model()
    values = record(model.hf, model.encode(PROMPT), ["residual"])["residual"]
    edits = Edits([[], [Edit("residual", 3, torch.full((1,), 9.0), slice(4, 5), slice(2, 6))]])
    edits.put(slice(None), Edit("residual", 3, torch.ones(16), slice(0, 1), add=True))
    seen = []
    with hooked((anatomy(model.hf).blocks[3].attention_norm, "in", seen.append)):
        logits_with(model, edits, 2)
    wanted = values[3].repeat(2, 1, 1)
    wanted[1, 4, 2:6] = 9
    wanted[:, 0] += 1
    torch.testing.assert_close(seen[0], wanted, rtol=1e-5, atol=1e-6)


def test_edits_of_a_site_are_made_in_their_order_and_may_come_while_the_model_runs():
    model = tiny_model()
    blocks, edits, ones = anatomy(model.hf).blocks, Edits(), torch.ones(16)
    edits.put(0, Edit("MLP", 1, 2 * ones))

    def put_more(x):
        edits.put(0, Edit("MLP", 1, ones, add=True))

    found = edits.run(model.hf, model.encode(PROMPT)[None], [(blocks[0].mlp, "in", put_more)], [("MLP", 1), ("MLP", 2)])
    torch.testing.assert_close(found, logits_with(model, Edits([[Edit("MLP", 1, 3 * ones)]])))
    assert (found[0] - model.logits(PROMPT)).abs().max() > 1e-3


def test_a_model_is_left_as_it_was():
    model = tiny_model()
    before = model.logits(PROMPT)
    logits_with(model, Edits([[Edit(site, 1, torch.zeros(1)) for site in SITES]]))
    assert torch.equal(model.logits(PROMPT), before)


def test_a_projection_that_is_not_known_is_refused():
    model = tiny_model()
    block = anatomy(model.hf).blocks[0]
    object.__setattr__(block, "projection", None)
    with pytest.raises(NotImplementedError, match="LlamaAttention"):
        site_hook(block, "heads", print)
