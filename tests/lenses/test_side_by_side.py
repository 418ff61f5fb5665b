import pytest
from tiny import planted_transcoder, tiny_model

import interp_kit as ik

PROMPT = "the capital of Texas is"


def look(**options):
    model = tiny_model()
    return ik.side_by_side(model, PROMPT, "Austin", "Ohio", baseline="city", **options)


def test_every_lens_looks_at_the_same_question():
    model = tiny_model()
    clt = planted_transcoder(model, ["Texas"])
    found = ik.side_by_side(model, PROMPT, "Austin", "Ohio", baseline="city", transcoder=clt)
    assert list(found.table.index) == list(found.results)
    assert len(found.results) == 8 and (found.table["CPU seconds"] >= 0).all()
    assert found["decomposition"].question == found["SHAP"].question == "'Austin' rather than 'Ohio'"
    alone = ik.lenses.decompose(model, PROMPT, "Austin", "Ohio")
    assert found["decomposition"].logit == pytest.approx(alone.logit)
    assert found["attribution graph"].tokens == model.tokens(PROMPT)


def test_what_is_not_given_is_left_out(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lime", None)
    for name in [name for name in sys.modules if name.startswith("lime.")]:
        monkeypatch.delitem(sys.modules, name)
    found = look()
    assert not {"attribution graph", "chain of thought", "LIME"} & set(found.results)
    assert "interp_kit[xai]" in found.table.loc["LIME", "says"]


def test_the_chain_of_thought_of_the_same_question():
    model, world = ik.load_model("pocket"), ik.load_world()
    problem = ik.lenses.stories(world, 1)[0]
    found = ik.side_by_side(
        model, f"The {problem.relation} of the {problem.kind} containing {problem.city} is", problem=problem
    )
    says = found.table.loc["chain of thought", "says"]
    assert problem.place in says and repr(problem.truth) in says
    changed = found["chain of thought"].table.query("test == 'mistakes'")["same"]
    assert f"{(~changed).sum()} of {len(changed)} mistakes" in says


def test_what_a_lens_says_is_what_it_found():
    found = look()
    says = found.table["says"]
    best = tiny_model().next_tokens(PROMPT, 1).iloc[0]
    assert says["log-probabilities"].startswith(f"{best['token']!r} with {best['probability']:.1%}")
    top = found["attention"].strongest(k=1).iloc[0]
    assert f"head {top['layer']}.{top['head']}" in says["attention"]
    for name in ("integrated gradients", "SHAP", "LIME"):
        words = found[name].table.nlargest(1, "value").iloc[0]
        assert f"{words['token']!r} {words['value']:+.1f}" in says[name]
    last = found["logit lens"].tokens.iloc[-1, -1]
    assert f"{last!r} after" in says["logit lens"].split("; ")[-1]


def test_the_page_holds_all_and_is_escaped():
    page = ik.side_by_side(tiny_model(), "the <unk> of Texas", baseline="city")._repr_html_()
    assert page.count("<details>") == 7 and "&lt;unk&gt;" in page and "<unk>" not in page


def test_a_family_whose_heads_cannot_be_told_apart():
    model = tiny_model("granite")
    found = ik.side_by_side(model, model.encode(PROMPT), "Austin", baseline="city")
    assert "attention" not in found.results and "families.py" in found.table.loc["attention", "says"]
    assert "LIME" in found.results and "capital" in found._repr_html_()


def test_a_graph_takes_ids_and_the_contrast():
    model = tiny_model()
    options = {"transcoder": planted_transcoder(model, ["Texas"]), "baseline": "city"}
    found = ik.side_by_side(model, model.encode(PROMPT), "Austin", "Ohio", **options)
    assert found.results["attribution graph"].asked["name"] == "'Austin' rather than 'Ohio'"


def test_a_text_that_ends():
    model = tiny_model()
    end = model.tokenizer.eos_token_id
    model.hf.lm_head.weight.data[end] = model.hf.lm_head.weight.data.abs().sum(0) * 50
    prompt = next(p for p in (PROMPT, "a city of", "the state", "Ohio is") if model.next_tokens(p, 1).index[0] == end)
    found = ik.side_by_side(model, prompt, baseline="city")
    assert found.table.loc["log-probabilities", "says"] == "the model ends the text here"
