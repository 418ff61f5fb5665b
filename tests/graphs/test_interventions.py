import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs import NodeId
from interp_kit.graphs.feature_edits import FeatureEdit, FeatureEdits
from interp_kit.models.frozen.model import FrozenModel

PROMPT = "the capital of Texas is"
EVERYTHING = range(4)


@pytest.fixture
def setting():
    model = tiny_model()
    clt = tiny_transcoder(model)
    return model, clt, ik.attribute(model, clt, PROMPT)


def last_layer_feature(graph):
    return graph.features.query("layer == 3 and position == 5").iloc[0]


# ------------------------------------------------------------------ the contract with the graph


CASES = {
    "cross-layer": {},
    "per-layer": {"span": 1},
    "skip": {"span": 1, "skip": True},
    "skip, cross-layer, normalised": {"skip": True, "feature_input_hook": "ln2.hook_normalized"},
    "threshold, raw residual": {"activation": "jumprelu", "feature_input_hook": "hook_resid_mid"},
    "some layers": {"layers": [1, 3]},
    "skip, first position left out": {"skip": True, "excludes_first_position": True},
}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2", "gpt_neox", "granite"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_with_everything_frozen_ablation_changes_all_by_exactly_the_edge(family, case, dtype, precision):
    changes = {"logits_scaling": 8.0} if family == "granite" else {}
    model = tiny_model(family, **changes)
    clt = tiny_transcoder(model, **CASES[case])
    graph = ik.attribute(model, clt, PROMPT, dtype=dtype)
    features, logits = graph.features, graph.logits
    scale = float(np.abs(graph.adjacency[features.index][:, features.index]).max())
    for node in features.iloc[:: max(1, len(features) // 6)].itertuples():
        result = ik.intervene(
            model, clt, PROMPT, ik.Steer(node.id, 0.0), constrained_layers=EVERYTHING, dtype=dtype
        )  # fmt: skip
        for target in features.itertuples():
            place = clt.layers.index(target.layer)
            at = target.position, target.feature
            change = result.after.preactivations[place][at] - result.before.preactivations[place][at]
            wanted = -float(graph.adjacency[target.Index, node.Index])
            assert change.item() == pytest.approx(wanted, rel=precision, abs=precision * scale)
        change = (result.after.uncapped - result.before.uncapped)[-1]
        change = change[torch.tensor(logits["feature"].to_numpy(int))] - change.mean()
        wanted = -graph.adjacency[logits.index, node.Index]
        np.testing.assert_allclose(change, wanted, rtol=10 * precision, atol=10 * precision * scale)


def test_over_some_layers_mlps_stay_and_the_change_acts_there_only(setting):
    """Ablating a layer-0 feature, constrained to layers 0 and 1: layer 1 sees the edge, and layers 2 and 3 react."""
    model, clt, graph = setting
    node = graph.nodes.iloc[0]
    some = ik.intervene(model, clt, PROMPT, ik.Steer(node["id"], 0.0), constrained_layers=range(0, 2))
    cut = tiny_transcoder(model)
    cut.W_dec[0].data[:, 2:] = 0  # writes to layers 0 and 1 only
    all_of_cut = ik.intervene(model, cut, PROMPT, ik.Steer(node["id"], 0.0), constrained_layers=range(0, 2))
    torch.testing.assert_close(some.after.logits, all_of_cut.after.logits)
    everything = ik.intervene(model, clt, PROMPT, ik.Steer(node["id"], 0.0), constrained_layers=EVERYTHING)
    torch.testing.assert_close(some.after.preactivations[0], everything.after.preactivations[0])
    assert (some.after.logits - everything.after.logits).abs().max() > 1e-3


def test_attention_reacts_only_when_it_is_free(setting):
    model, clt, graph = setting
    steer = ik.Steer(graph.nodes["id"][0], -3.0)
    frozen, free = (ik.intervene(model, clt, PROMPT, steer, freeze_attention=f) for f in (True, False))
    assert (frozen.after.logits - free.after.logits).abs().max() > 1e-3

    # the same by hand: layer 0's change added to the MLP outputs of the plain model
    node = graph.nodes.iloc[0]
    rows = -4.0 * node["activation"] * clt.W_dec[0][node["feature"]]
    handles = []
    for layer in range(4):
        current = {}  # an early feature's change does not depend on what later layers do

        def add(_, args, out, row=rows[layer], current=current):
            out = out.clone()
            out[0, node["position"]] += row
            return out

        handles.append(model.hf.model.layers[layer].mlp.register_forward_hook(add))
    wanted = model.logits(PROMPT)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(free.after.logits, wanted, rtol=1e-4, atol=1e-5)


def test_versions_run_together_as_they_do_alone(setting):
    model, clt, graph = setting
    patching = FeatureEdits(FrozenModel(model, PROMPT), clt)
    ids = graph.features["id"].iloc[::20]
    versions = [ik.Steer(i, -1.0).changes(patching) for i in ids]
    together = patching.run(versions)
    for number, version in enumerate(versions):
        alone = patching.run([version])
        torch.testing.assert_close(together.logits[number], alone.logits[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.preactivations[3][number], alone.preactivations[3][0], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ what a change is


def test_factor_one_changes_nothing(setting):
    model, clt, graph = setting
    result = ik.intervene(model, clt, PROMPT, [ik.Steer(graph.nodes["id"][0], 1.0)])
    assert result.table["change"].abs().max() < 1e-6


def test_ablating_a_last_layer_feature_moves_the_logits_by_its_decoder(setting):
    """Nothing lies between the last layer and the logits but the final norm, so the effect can be written down."""
    model, clt, graph = setting
    node = last_layer_feature(graph)
    frozen = FrozenModel(model, PROMPT)
    residual = frozen.residual_final[-1] - node["activation"] * clt.W_dec[3][node["feature"], 0]
    wanted = model.hf.lm_head(model.hf.model.norm(residual)).softmax(-1)
    result = ik.intervene(model, clt, PROMPT, ik.Steer(node["id"], 0.0), k=15)
    found = dict(zip(result.table["token"], result.table["after"], strict=True))
    for i, name in enumerate(model.tokens(torch.arange(model.vocab_size))):
        assert found[name] == pytest.approx(wanted[i].item(), abs=1e-5)


def test_scaling_setting_and_adding_are_the_same_change_said_in_three_ways(setting):
    model, clt, graph = setting
    node = graph.nodes.iloc[0]
    a = node["activation"]
    ways = [{"factor": 3.0}, {"value": 3 * a}, {"add": 2 * a}]
    runs = [ik.intervene(model, clt, PROMPT, ik.Steer(node["id"], **way)).after.logits for way in ways]
    torch.testing.assert_close(runs[1], runs[0])
    torch.testing.assert_close(runs[2], runs[0])


def test_a_value_switches_on_what_was_off(setting):
    model, clt, graph = setting
    active = set(graph.nodes["id"])
    idle = next(f for f in range(20) if str(NodeId(3, f, 5)) not in active)
    result = ik.intervene(model, clt, PROMPT, ik.Steer(NodeId(3, idle, 5), value=2.0))
    residual = FrozenModel(model, PROMPT).residual_final[-1] + 2.0 * clt.W_dec[3][idle, 0]
    wanted = model.hf.lm_head(model.hf.model.norm(residual))
    torch.testing.assert_close(result.after.logits[-1], wanted, rtol=1e-4, atol=1e-4)


def test_ranges_and_lists(setting):
    model, clt, graph = setting
    steers = [ik.Steer(f"1_7_{p}", value=1.5) for p in (2, 3, 4, 5)]
    wanted = ik.intervene(model, clt, PROMPT, steers).after.logits
    for positions in (slice(2, None), range(2, 6), slice(-4, None)):
        found = ik.intervene(model, clt, PROMPT, ik.Steer("1_7", value=1.5, positions=positions)).after.logits
        torch.testing.assert_close(found, wanted)
    every_other = ik.intervene(model, clt, PROMPT, ik.Steer("1_7", value=1.5, positions=range(3, 6, 2))).after.logits
    torch.testing.assert_close(every_other, ik.intervene(model, clt, PROMPT, steers[1::2]).after.logits)
    one = ik.intervene(model, clt, PROMPT, ik.Steer("1_7", value=1.5, positions=np.int64(-1))).after.logits
    torch.testing.assert_close(one, ik.intervene(model, clt, PROMPT, steers[-1]).after.logits)
    ids = [s.node for s in steers]
    several = ik.intervene(model, clt, PROMPT, ik.Steer(ids, value=1.5)).after.logits
    torch.testing.assert_close(several, wanted)
    in_parts = ik.Steer([NodeId.parse(i) for i in ids], value=1.5)
    torch.testing.assert_close(ik.intervene(model, clt, PROMPT, in_parts).after.logits, wanted)
    anywhere = ik.Steer(NodeId(1, 7), value=1.5, positions=range(2, 6))
    torch.testing.assert_close(ik.intervene(model, clt, PROMPT, anywhere).after.logits, wanted)


def test_a_feature_writes_to_all_its_layers(setting):
    """An early feature's change is added wherever it writes: with decoders to later layers zeroed it differs."""
    model, clt, graph = setting
    node = graph.features.iloc[0]["id"]
    both = []
    for _ in range(2):
        both.append(ik.intervene(model, clt, PROMPT, [ik.Steer(node, -2.0)]).table.set_index("token")["after"])
        clt.W_dec[0].data[:, 1:] = 0
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_the_model_is_as_it_was_afterwards(setting):
    model, clt, graph = setting
    before = model.logits(PROMPT)
    steer = ik.Steer(graph.nodes["id"][0], -5.0)
    ik.intervene(model, clt, PROMPT, steer, constrained_layers=EVERYTHING, generate=3)
    assert torch.equal(model.logits(PROMPT), before)


def test_the_table_the_chart_and_the_features_that_reacted(setting):
    model, clt, graph = setting
    result = ik.intervene(model, clt, PROMPT, [ik.Steer(graph.nodes["id"][0], -5.0)], k=3)
    assert result.table["after"].is_monotonic_decreasing
    assert result.show().data[0].name == "before"
    changed = result.features
    assert changed["change"].abs().is_monotonic_decreasing and (changed["layer"] > 0).all() and len(changed) > 5
    before = graph.nodes.set_index("id")["activation"].reindex(changed["id"]).fillna(0)
    np.testing.assert_allclose(changed["before"], before, rtol=1e-5)


# ------------------------------------------------------------------ swapping


def test_swap_puts_another_prompts_features_in_place_of_ones_own(setting):
    model, clt, graph = setting
    other = ik.attribute(model, clt, "is the capital of Dallas is")
    mine = graph.features.query("layer == 1 and position == 4")["id"].tolist()
    theirs = other.features.query("layer == 1 and position == 5")
    steers = ik.swap(graph, mine, other.group({"Dallas": theirs["id"].tolist()}), "Dallas")
    wanted = {f"1_{n.feature}_4": n.activation for n in theirs.itertuples()}
    assert {s.node: s.value for s in steers} == {i: 0.0 for i in mine} | wanted
    assert ik.swap(graph, NodeId.parse(mine[0]), other, []) == ik.swap(graph, mine[0], other, [])
    patching = FeatureEdits(FrozenModel(model, PROMPT), clt)
    run = patching.run([[change for s in steers for change in s.changes(patching)]])
    assert (run.logits[0, -1] - patching.frozen.logits[-1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="neither a feature nor a supernode"):
        ik.swap(graph, ["0_99_1"], other, "Dallas")
    with pytest.raises(ValueError, match="before the beginning"):
        other = ik.attribute(model, clt, "is the capital of Dallas is", zero_first_position=False)
        ik.swap(graph, mine, other, other.features.query("position == 0")["id"].tolist())


# ------------------------------------------------------------------ generating


def test_generation_goes_on_as_the_plain_model_does(setting):
    model, clt, graph = setting
    steer = ik.Steer(graph.nodes["id"][0], 1.0)
    result = ik.intervene(model, clt, PROMPT, steer, generate=6)
    assert result.text_before == model.complete(PROMPT, max_new_tokens=6)
    assert result.text_after == result.text_before
    assert result.text_before in result._repr_html_().replace("&lt;", "<").replace("&gt;", ">")


def test_an_open_slice_keeps_acting_on_new_tokens_and_a_closed_one_does_not(setting):
    """Against recomputing everything from the prompt and the tokens so far, without a cache."""
    model, clt, _ = setting
    for positions in (slice(3, None), slice(3, 6)):
        steer = ik.Steer("2_5", add=6.0, positions=positions)
        result = ik.intervene(model, clt, PROMPT, steer, generate=5, freeze_attention=False)
        ids = model.encode(PROMPT).tolist()
        start, n = len(ids), []
        while len(n) < 5:
            patching = FeatureEdits(FrozenModel(model, torch.tensor(ids)), clt)
            change = FeatureEdit(2, 5, slice(3, len(ids) if positions.stop is None else 6), "add", 6.0)
            token = int(patching.run([[change]], freeze_attention=False).logits[0, -1].argmax())
            if token == model.tokenizer.eos_token_id:
                break
            n.append(token)
            ids.append(token)
        assert result.text_after == model.decode(ids[start:])


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("E_3_1", "not a feature's id"),
        ("1_-1_2", "not a feature's id"),
        ("1_2", "not a feature's id"),
        ("1_2_3_4", "not a feature's id"),
        ("Texas", "not a feature's id"),
        (NodeId(1, 2), "not a feature's id"),
        ("0_7_44", "positions 0 to 5"),
        ("9_1_1", "layers 0 to 3"),
    ],
)
def test_bad_nodes(setting, node, message):
    model, clt, _ = setting
    with pytest.raises(ValueError, match=message):
        ik.intervene(model, clt, PROMPT, [ik.Steer(node, 0.0)])


@pytest.mark.parametrize(
    "positions",
    [slice(4, 9), 6, -7, -8, -12, range(3, 3), slice(5, 2), slice(-20, None), slice(None, None, -1), slice(2, None, 2),
     "3", [1, 2], 2.0],
)  # fmt: skip
def test_bad_positions(setting, positions):
    model, clt, _ = setting
    with pytest.raises(ValueError, match="positions"):
        ik.intervene(model, clt, PROMPT, ik.Steer("1_7", value=1.0, positions=positions))


@pytest.mark.parametrize("how", [{}, {"factor": 1.0, "value": 2.0}])
def test_a_steer_is_one_change(how):
    with pytest.raises(ValueError, match="exactly one of factor, value and add"):
        ik.Steer("1_7_2", **how)


@pytest.mark.parametrize("layers", [3, range(0), range(2, 9)])
def test_bad_layers(setting, layers):
    model, clt, graph = setting
    with pytest.raises(ValueError, match="expected a range of layers, from 0 to 3"):
        ik.intervene(model, clt, PROMPT, ik.Steer(graph.nodes["id"][0], 0.0), constrained_layers=layers)


def test_what_is_no_steer(setting):
    model, clt, graph = setting
    with pytest.raises(TypeError, match="should be ik.Steer"):
        ik.intervene(model, clt, PROMPT, graph.nodes["id"].head(2).tolist())


def test_a_feature_changed_twice(setting):
    model, clt, graph = setting
    node = graph.nodes["id"][0]
    for twice in ([ik.Steer(node, 0.0)] * 2, ik.Steer([node, node], 0.0)):
        with pytest.raises(ValueError, match="changed twice"):
            ik.intervene(model, clt, PROMPT, twice)
    other = ik.attribute(model, clt, "is the capital of Dallas is")
    assert ik.swap(graph, [node, node], other, []) == [ik.Steer(node, value=0.0)]


def test_generation_ends_where_the_model_ends(setting):
    model, clt, graph = setting
    steer = ik.Steer(graph.nodes["id"][0], 1.0)
    plain = model.complete(PROMPT, max_new_tokens=8)
    model.hf.generation_config.eos_token_id = [1, model.token_id("Texas")]  # a word of that text ends it now
    result = ik.intervene(model, clt, PROMPT, steer, generate=8)
    assert result.text_before == result.text_after == model.complete(PROMPT, max_new_tokens=8) != plain
    gpt2 = tiny_model("gpt2")  # learnt positions: there are 32
    clt = tiny_transcoder(gpt2)
    node = ik.attribute(gpt2, clt, "the " * 30).nodes["id"][0]
    found = ik.intervene(gpt2, clt, "the " * 30, ik.Steer(node, 1.0), generate=9)
    assert found.text_before == found.text_after == gpt2.complete("the " * 30, max_new_tokens=9)


def test_an_inactive_feature(setting):
    model, clt, graph = setting
    active = set(graph.nodes["id"])
    idle = next(node for f in range(20) if str(node := NodeId(0, f, 1)) not in active)
    with pytest.raises(ValueError, match="not active"):
        ik.intervene(model, clt, PROMPT, [ik.Steer(idle, 0.0)])
