import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik

PROMPT = "the capital of Texas is"


@pytest.fixture
def setting():
    model = tiny_model()
    clt = tiny_transcoder(model)
    return model, clt, ik.attribute(model, clt, PROMPT)


def last_layer_feature(graph):
    here = (graph.nodes["kind"] == "feature") & (graph.nodes["layer"] == 3) & (graph.nodes["position"] == 5)
    return graph.nodes[here].iloc[0]


def test_factor_one_changes_nothing(setting):
    model, clt, graph = setting
    result = ik.intervene(model, clt, PROMPT, [ik.Steer(graph.nodes["id"][0], 1.0)])
    assert result.table["change"].abs().max() < 1e-6


def test_ablating_a_last_layer_feature_moves_the_logits_by_its_decoder(setting):
    """Nothing lies between the last layer and the logits but the final norm, so the effect can be written down."""
    model, clt, graph = setting
    node = last_layer_feature(graph)
    from interp_kit.models.frozen import FrozenModel

    frozen = FrozenModel(model, PROMPT)
    residual = frozen.residual_final[-1] - node["activation"] * clt.W_dec[3][node["feature"], 0]
    wanted = model.hf.lm_head(model.hf.model.norm(residual)).softmax(-1)
    result = ik.intervene(model, clt, PROMPT, ik.Steer(node["id"], 0.0), k=15)
    found = dict(zip(result.table["token"], result.table["after"], strict=True))
    for i, name in enumerate(model.tokens(torch.arange(model.vocab_size))):
        assert found[name] == pytest.approx(wanted[i].item(), abs=1e-5)


def test_a_feature_writes_to_all_its_layers(setting):
    """An early feature's change is added wherever it writes: with decoders to later layers zeroed it differs."""
    model, clt, graph = setting
    node = graph.nodes[graph.nodes["kind"] == "feature"].iloc[0]["id"]
    both = []
    for _ in range(2):
        both.append(ik.intervene(model, clt, PROMPT, [ik.Steer(node, -2.0)]).table.set_index("token")["after"])
        clt.W_dec[0].data[:, 1:] = 0
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_the_model_is_as_it_was_afterwards(setting):
    model, clt, graph = setting
    before = model.logits(PROMPT)
    ik.intervene(model, clt, PROMPT, [ik.Steer(graph.nodes["id"][0], -5.0)])
    assert torch.equal(model.logits(PROMPT), before)


def test_the_table_and_the_chart(setting):
    model, clt, graph = setting
    result = ik.intervene(model, clt, PROMPT, [ik.Steer(graph.nodes["id"][0], -5.0)], k=3)
    assert result.table["after"].is_monotonic_decreasing
    assert result.show().data[0].name == "before"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("E_3_1", "not a feature's id"),
        ("1_-1_2", "not a feature's id"),
        ("0_7_44", "positions 0 to 5"),
        ("9_1_1", "layers 0 to 3"),
    ],
)
def test_bad_nodes(setting, node, message):
    model, clt, _ = setting
    with pytest.raises(ValueError, match=message):
        ik.intervene(model, clt, PROMPT, [ik.Steer(node, 0.0)])


def test_an_inactive_feature(setting):
    model, clt, graph = setting
    active = set(graph.nodes["id"])
    idle = next(f"0_{f}_1" for f in range(20) if f"0_{f}_1" not in active)
    with pytest.raises(ValueError, match="not active"):
        ik.intervene(model, clt, PROMPT, [ik.Steer(idle, 0.0)])
