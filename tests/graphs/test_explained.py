"""A graph of a chosen target: a token, one rather than another, a mean, a direction, a feature at a position."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs import NodeId
from interp_kit.models.frozen import FrozenModel

PROMPT = "the capital of Texas is"
EXACT = {"dtype": torch.float64, "zero_first_position": False}


@pytest.fixture(scope="module", params=[{}, {"span": 1, "skip": True}, {"layers": [1, 3]}], ids=["CLT", "skip", "some"])
def setting(request):
    model = tiny_model()
    return model, tiny_transcoder(model, **request.param)


def graph_of(setting, *target, **options):
    return ik.attribute(*setting, PROMPT, *target, **EXACT, **options)


def row(graph):
    """What is explained: its edges by source, and its bias."""
    assert len(graph.logits) == 1 and graph.kinds[-1] == "logit"
    return graph.adjacency[-1, :-1], graph.nodes["bias"].iloc[-1]


def check_sum(graph):
    """Every row and its bias add up to what the node does."""
    targets = np.isin(graph.kinds, ["feature", "logit"])
    total = graph.adjacency.sum(1) + graph.nodes["bias"]
    np.testing.assert_allclose(total[targets], graph.nodes["activation"][targets], rtol=1e-9, atol=1e-12)


def test_a_token_has_the_row_that_it_has_among_the_likeliest(setting):
    likeliest = graph_of(setting)
    n = len(likeliest.logits)
    for k, token in enumerate(likeliest.logits["token"]):
        graph = graph_of(setting, token)
        np.testing.assert_allclose(row(graph)[0], likeliest.adjacency[k - n, :-n], rtol=1e-9, atol=1e-12)
        assert graph.logits["probability"].item() == pytest.approx(likeliest.logits["probability"].iloc[k])
        assert graph.logits["token"].item() == graph.logits["label"].item() == token
        check_sum(graph)


def test_a_contrast_is_the_difference_and_a_list_the_mean(setting):
    austin, ohio, texas = (row(graph_of(setting, token)) for token in ("Austin", "Ohio", "Texas"))
    contrast, mean = graph_of(setting, "Austin", "Ohio"), graph_of(setting, "Austin", ["Ohio", "Texas"])
    for graph, minus in ((contrast, ohio), (mean, [(a + b) / 2 for a, b in zip(ohio, texas, strict=True)])):
        for found, plus, less in zip(row(graph), austin, minus, strict=True):
            np.testing.assert_allclose(found, plus - less, rtol=1e-9, atol=1e-11)
        check_sum(graph)
    assert contrast.logits["label"].item() == contrast.asked["name"] == "'Austin' rather than 'Ohio'"
    assert contrast.asked["target"] == [setting[0].token_id("Austin")] == contrast.logits["feature"].tolist()
    best = graph_of(setting, None, "Ohio")
    assert best.asked["target"] == [int(setting[0].logits(PROMPT)[-1].argmax())]


def test_a_direction_is_read_off_the_last_stream(setting):
    direction = torch.randn(setting[0].d_model, dtype=torch.float64)
    frozen = FrozenModel(setting[0], PROMPT, torch.float64)
    graph = graph_of(setting, direction)
    assert graph.logits["activation"].item() == pytest.approx(float(frozen.residual_final[-1] @ direction))
    check_sum(graph)
    np.testing.assert_allclose(row(graph_of(setting, direction.numpy()))[0], row(graph)[0])


def test_a_feature_is_explained_by_what_is_below_it(setting):
    whole = graph_of(setting)
    places = whole.features[(whole.features["layer"] == 3) & (whole.features["position"] == 4)]
    node = NodeId.parse(places["id"].iloc[0])
    for target in (node, str(node)):
        graph = graph_of(setting, target)
        assert graph.tokens == whole.tokens[:5] and graph.features["layer"].max() < 3
        assert graph.prompt.endswith("Texas") and graph.asked["feature"] == str(node)
        check_sum(graph)
        assert graph.logits["activation"].item() == pytest.approx(places["activation"].iloc[0])
        edges = dict(zip(graph.nodes["id"], graph.adjacency[-1], strict=True))
        mine = dict(zip(whole.nodes["id"], whole.adjacency[places.index[0]], strict=True))
        inputs = [i for i in edges if i in mine]
        np.testing.assert_allclose([edges[i] for i in inputs], [mine[i] for i in inputs], rtol=1e-9, atol=1e-12)
        assert sum(map(abs, edges.values())) == pytest.approx(sum(map(abs, mine.values())))


@pytest.mark.parametrize("target", [("Austin", "Ohio"), (["Austin", "Texas"],), "feature"])
def test_validation_measures_what_is_explained(setting, target):
    """Constrained to all layers, a measured effect is the graph's edge."""
    model, clt = setting
    if target == "feature":
        features = graph_of(setting).features
        target = (features["id"][(features["layer"] == 3) & (features["position"] == 4)].iloc[0],)
    graph = ik.attribute(model, clt, PROMPT, *target)
    found = ik.validate(graph, model, clt, constrained_layers=range(model.n_layers)).effects
    to_it = found[found["target"] == graph.logits["id"].item()]
    assert len(to_it) > 5
    np.testing.assert_allclose(to_it["measured"], to_it["direct"], rtol=1e-3, atol=1e-4)


def test_a_file_keeps_what_was_asked(setting, tmp_path):
    for target in (("Austin", "Ohio"), (torch.ones(setting[0].d_model),), ()):
        graph = graph_of(setting, *target)
        graph.save(tmp_path / "graph.json")
        back = ik.load_graph(tmp_path / "graph.json")
        assert back.asked == graph.asked and back.prune().asked == graph.asked
        assert back.ids is not None and back.ids.tolist() == setting[0].encode(PROMPT).tolist()
        assert back.logits["label"].tolist() == graph.logits["label"].tolist()
        np.testing.assert_array_equal(back.nodes["contribution"], graph.nodes["contribution"])
        assert back.conditioning == graph.conditioning == graph.prune(0.5).conditioning


def test_contributions_add_up_to_what_is_explained(setting):
    feature = graph_of(setting).features.query("layer == 3 and position == 4")["id"].iloc[0]
    for target in (("Austin",), ("Austin", "Ohio"), (torch.ones(setting[0].d_model),), (feature,), ()):
        for most in (None, 10):
            graph = graph_of(setting, *target, max_features=most)
            nodes, value = graph.nodes, graph.logits["activation"].iloc[0]
            is_input = nodes["kind"].isin(["embedding", "error", "left_out"])
            is_feature, place = graph.kinds == "feature", graph.logits.index[0]
            share = nodes["contribution"][is_feature] / nodes["activation"][is_feature]
            from_biases = (share * nodes["bias"][is_feature]).sum() + nodes["bias"][place]
            total = nodes["contribution"][is_input].sum() + from_biases
            assert total == pytest.approx(value, rel=1e-9, abs=1e-9)
            assert graph.conditioning["target"] == pytest.approx(abs(value))
            assert graph.conditioning["absolute"] == pytest.approx(nodes["contribution"][is_input].abs().sum())


def test_a_contribution_is_what_an_intervention_in_the_linear_model_takes_away(setting):
    """Of a feature: what is explained loses its effect over all paths, as the graph's own linear model has it."""
    model, clt = setting
    graph = ik.attribute(model, clt, PROMPT, "Austin", "Ohio")
    found = ik.validate(graph, model, clt, nodes=graph.features["id"].head(6)).effects
    to_it = found[found["target"] == graph.logits["id"].item()].set_index("source")
    mine = graph.nodes.set_index("id")["contribution"]
    np.testing.assert_allclose(-mine[to_it.index], to_it["predicted"], rtol=1e-4, atol=1e-5)


def test_a_capped_graph_of_a_contrast_keeps_its_sums(setting):
    graph = graph_of(setting, "Austin", "Ohio", max_features=10)
    assert len(graph.features) == 10 and graph.scores["left_out"] > 0
    check_sum(graph)


def test_prompts_are_text_or_ids_or_messages():
    model = tiny_model()
    clt = tiny_transcoder(model)
    model.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}is{% endif %}"
    )
    asked = [{"role": "user", "content": "the capital of Texas"}]
    begun = [{"role": "user", "content": "the capital of"}, {"role": "assistant", "content": "Texas is"}]
    text = ik.attribute(model, clt, PROMPT)
    for prompt in (model.encode(PROMPT), model.encode(PROMPT).tolist(), asked, begun):
        graph = ik.attribute(model, clt, prompt)
        np.testing.assert_array_equal(graph.adjacency, text.adjacency)
        assert graph.tokens == text.tokens and graph.ids.tolist() == model.encode(PROMPT).tolist()
        assert (model.logits(prompt) == model.logits(PROMPT)).all()
    with pytest.raises(TypeError, match="a message's content as a string; got int"):
        model.logits([{"role": "user", "content": 3}])


@pytest.mark.parametrize(
    "target, contrast, message",
    [
        ("Austin Ohio", None, "is several tokens|pieces|not one token"),
        ("Austin", "Austin", "'Austin' is target and contrast"),
        (["Austin", "Ohio"], ["Ohio"], "'Ohio' is target and contrast"),
        (torch.ones(3), None, r"one finite number for each of the 16 .*got the shape \[3\]"),
        (torch.full((16,), float("nan")), None, "one finite number"),
        (torch.ones(16), "Ohio", "a contrast is another token"),
        ("3_2_4", "Ohio", "a contrast is another token"),
        (NodeId(3, 2), None, "should be a feature at a position"),
        ("3_2_40", None, "position 40, and the prompt has 6 tokens"),
        ("9_2_4", None, "no such feature; its layers are 0, 1, 2, 3, each of 20 features"),
        ("3_99_4", None, "no such feature"),
        (2.5, None, "a token is its text"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_nearest_that_can(target, contrast, message):
    model = tiny_model()
    with pytest.raises((ValueError, TypeError), match=message):
        ik.attribute(model, tiny_transcoder(model), PROMPT, target, contrast)


def test_a_silent_feature_names_those_that_fire_there():
    model = tiny_model()
    clt = tiny_transcoder(model)
    here = ik.attribute(model, clt, PROMPT).features.query("layer == 3 and position == 4")
    silent = next(i for i in range(20) if i not in set(here["feature"]))
    strongest = here.sort_values("activation", ascending=False)["id"].iloc[0]
    with pytest.raises(ValueError, match=f"is silent on this prompt; the strongest that fire there: {strongest}, "):
        ik.attribute(model, clt, PROMPT, NodeId(3, silent, 4))
