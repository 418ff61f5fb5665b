import numpy as np
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.lenses.components.ablation import _aligned
from interp_kit.lenses.components.edits import head_slice
from interp_kit.models.edits import record
from interp_kit.models.families import anatomy
from interp_kit.models.hooks import hooked

PROMPT = "the capital of Texas is"
FAMILIES = ["llama", "gemma2", "gpt2", "gpt_neox", "granite"]


def logprob(model, prompt=PROMPT, token="Austin"):
    return float(model.logits(prompt)[-1].log_softmax(-1)[model.token_id(token)])


def weight_of(projection):
    return projection.weight.data if hasattr(projection, "in_features") else projection.weight.data.T


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_is_the_model_without_that_part(family):
    whole = tiny_model(family)
    table = ik.lenses.ablate(whole, PROMPT, target="Austin", positions=slice(None)).table.set_index("component")
    for head in (0, 3):
        model = tiny_model(family)
        weight_of(anatomy(model.hf).blocks[1].projection)[:, head_slice(model.hf, head)] = 0
        expected = logprob(model) - logprob(whole)
        np.testing.assert_allclose(table.loc[f"head 1.{head}", "effect"], expected, rtol=1e-3, atol=1e-5)
    model = tiny_model(family)
    with hooked((anatomy(model.hf).blocks[2].writer, "out", torch.zeros_like)):
        without = logprob(model)
    expected = without - logprob(whole)
    np.testing.assert_allclose(table.loc["MLP 2", "effect"], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(table.loc["MLP 2", "probability"], np.exp(without), rtol=1e-3)
    assert abs(expected) > 1e-3 and len(table) == 4 * 5


def test_mean_puts_in_what_the_part_writes_on_average():
    model, texts = tiny_model(), ["Dallas is a city", "the state of Ohio"]
    mean = torch.cat([record(model.hf, model.encode(t), ["MLP"])["MLP"][1, 1:] for t in texts]).mean(0)
    table = ik.lenses.ablate(model, PROMPT, ["MLP 1"], "mean", texts, "Austin").table
    changed = tiny_model()

    def write(out):
        out = out.clone()
        out[:, 1:] = mean
        return out

    with hooked((anatomy(changed.hf).blocks[1].writer, "out", write)):
        expected = logprob(changed) - logprob(model)
    np.testing.assert_allclose(table["effect"][0], expected, rtol=1e-3, atol=1e-5)


def test_resampling_from_the_prompt_itself_changes_nothing():
    table = ik.lenses.ablate(tiny_model(), PROMPT, how="resample", texts=[PROMPT]).table
    np.testing.assert_allclose(table["effect"], 0, atol=1e-5)


def test_resampling_is_the_mean_over_its_draws_and_repeats_with_its_seed():
    model, texts = tiny_model(), ["Dallas is a city", "the state of Ohio", "Ohio is a state", "a city of Texas"]
    alone = [ik.lenses.ablate(model, PROMPT, "MLPs", "resample", [text], "Austin").table["effect"] for text in texts]
    together = ik.lenses.ablate(model, PROMPT, "MLPs", "resample", texts, "Austin").table["effect"]
    np.testing.assert_allclose(together, np.mean(alone, 0), rtol=1e-3, atol=1e-5)
    two = [
        ik.lenses.ablate(model, PROMPT, "MLPs", "resample", texts, "Austin", draws=2, seed=s).table for s in (0, 0, 1)
    ]
    assert two[0].equals(two[1]) and not two[0].equals(two[2])


def test_other_prompts_are_put_in_line_at_their_ends():
    values = torch.arange(4.0).view(1, 4, 1)
    assert _aligned(values, 4)[0, :, 0].tolist() == [0, 1, 2, 3]
    assert _aligned(values, 3)[0, :, 0].tolist() == [0, 2, 3]
    assert _aligned(values, 6)[0, :, 0].tolist() == [0, 1, 1, 1, 2, 3]
    assert _aligned(values[:, :1], 3)[0, :, 0].tolist() == [0, 0, 0]


def test_a_contrast_is_the_difference_of_two_answers():
    model = tiny_model()
    table = ik.lenses.ablate(model, PROMPT, ["MLP 0"], target="Austin", contrast="Ohio").table
    each = [ik.lenses.ablate(model, PROMPT, ["MLP 0"], target=t).table["effect"][0] for t in ("Austin", "Ohio")]
    np.testing.assert_allclose(table["effect"][0], each[0] - each[1], rtol=1e-3, atol=1e-5)


def test_parts_are_named():
    model = tiny_model()
    names = list(ik.lenses.ablate(model, PROMPT, ["MLP 3", "head 2.1", "MLP 3"]).table["component"])
    assert names == ["MLP 3", "head 2.1"]
    assert (
        len(ik.lenses.ablate(model, PROMPT, "heads").table) == 16
        and len(ik.lenses.ablate(model, PROMPT, "MLPs").table) == 4
    )
    for wrong in (["MLP 4"], "head 0.4", [], ["mlp 1"]):
        with pytest.raises(ValueError, match="names no part"):
            ik.lenses.ablate(model, PROMPT, wrong)


def test_what_it_needs_is_said():
    with pytest.raises(ValueError, match="needs texts"):
        ik.lenses.ablate(tiny_model(), PROMPT, how="mean")
    with pytest.raises(ValueError, match="zero, mean, resample"):
        ik.lenses.ablate(tiny_model(), PROMPT, how="median")
    with pytest.raises(TypeError, match="one string"):
        ik.lenses.ablate(tiny_model(), PROMPT, how="mean", texts=PROMPT)
    with pytest.raises(ValueError, match="no token after"):
        ik.lenses.ablate(tiny_model(), PROMPT, how="mean", texts=["<bos>"])
    with pytest.raises(ValueError, match="draws=0"):
        ik.lenses.ablate(tiny_model(), PROMPT, how="resample", texts=[PROMPT], draws=0)
    with pytest.raises(ValueError, match="nothing lies at positions"):
        ik.lenses.ablate(tiny_model(), "<bos>")


def test_the_model_is_left_as_it_was():
    model = tiny_model()
    before = model.logits(PROMPT)
    ik.lenses.ablate(model, PROMPT).show()
    torch.testing.assert_close(model.logits(PROMPT), before, rtol=0, atol=0)


def test_it_is_left_so_also_when_stopped(monkeypatch):
    from interp_kit.models.targets import Target

    def stop(_, logits):
        raise KeyboardInterrupt

    model = tiny_model()
    before = model.logits(PROMPT)
    monkeypatch.setattr(Target, "score", stop)
    with pytest.raises(KeyboardInterrupt):
        ik.lenses.ablate(model, PROMPT)
    torch.testing.assert_close(model.logits(PROMPT), before, rtol=0, atol=0)


def test_views_are_escaped():
    found = ik.lenses.ablate(tiny_model(), PROMPT)
    found.question = "<img src=x onerror=alert(1)>"
    assert "<img" not in found._repr_html_() + found.show().to_json()


def test_pocket_cannot_name_the_state_without_its_first_mlps():
    model, world = ik.load_model("pocket"), ik.load_world("geography")
    texts = [q.prompt for q in world.questions(held_out=False)[:40]]
    found = ik.lenses.ablate(model, "The capital of the state containing Dallas is", "MLPs", "mean", texts, " Austin")
    effects = found.table.set_index("layer")["effect"]
    assert found.probability > 0.9 and effects[0] < -1


def test_an_attention_laid_out_unlike_all_others_is_refused():
    model = tiny_model("gpt_neo", attention_types=[[["global"], 4]])
    with pytest.raises(NotImplementedError, match="GPTNeoAttention.*families.py"):
        ik.lenses.ablate(model, PROMPT)
