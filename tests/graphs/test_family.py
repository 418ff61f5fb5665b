"""One graph of many prompts: aligned, averaged, and what is in all of them."""

import numpy as np
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik

PROMPTS = [f"the capital of the state of {place} is" for place in ("Texas", "Dallas", "New <unk>")]


@pytest.fixture(scope="module")
def setting():
    model = tiny_model()
    clt = tiny_transcoder(model)
    return model, clt, [ik.attribute(model, clt, prompt) for prompt in PROMPTS]


def test_a_family_of_one_prompt_is_its_graph(setting):
    _, _, (graph, *_) = setting
    twice = ik.graphs.family([graph, graph])
    best = graph.logits["id"].iloc[0]
    kept = graph.nodes[(graph.kinds != "logit") | (graph.nodes["id"] == best)]
    assert set(twice.nodes["id"]) == set(kept["id"]) and (twice.nodes["prompts"] == 1).all()
    both = twice.nodes.merge(graph.nodes, on="id")
    for name in ("influence", "contribution", "activation", "position", "layer"):
        np.testing.assert_allclose(both[f"{name}_x"], both[f"{name}_y"], rtol=1e-6)
    edges = twice.edges.merge(graph.edges, on=["source", "target"])
    assert len(edges) == len(twice.edges) and np.allclose(edges["weight_x"], edges["weight_y"], rtol=1e-5)
    assert set(twice.edges["consensus"]) == {"core"}


def test_means_and_shares_by_hand(setting):
    _, _, graphs = setting
    found = ik.graphs.family(graphs)
    is_texas = found.nodes["token"].str.contains("/")
    assert found.nodes[is_texas]["token"].iloc[0].strip() == "Texas / Dallas / <unk>"
    assert found.prompt.replace(" ", "").endswith("thestateof{Texas/Dallas/<unk>}is")
    feature = found.features.query("position == 2").iloc[0]
    mine = [g.nodes[g.nodes["id"] == feature["id"]] for g in graphs]  # position 2 is the same in all of them
    assert feature["prompts"] == pytest.approx(sum(len(one) for one in mine) / 3)
    assert feature["influence"] == pytest.approx(sum(one["influence"].sum() for one in mine) / 3)
    assert feature["activation"] == pytest.approx(np.mean([one["activation"].item() for one in mine if len(one)]))
    edge = found.edges[found.edges["source"] == feature["id"]].iloc[0]
    assert 0 < edge["stability"] <= 1 and (edge["consensus"] == "core") == (edge["stability"] == 1)
    assert len(found.logits) == 1 and found.nodes["id"].is_unique
    assert found.show().data["tokens"] == found.tokens


def test_it_is_saved_and_pruned(setting, tmp_path):
    found = ik.graphs.family(setting[2])
    found.save(tmp_path / "family.json")
    loaded = ik.load_graph(tmp_path / "family.json")
    np.testing.assert_array_equal(loaded.stability, found.stability)
    assert len(found.prune(0.5).nodes) < len(found.nodes) and len(found.paths())


def test_what_is_no_family(setting):
    model, clt, graphs = setting
    with pytest.raises(ValueError, match="at least two graphs, got 1"):
        ik.graphs.family(graphs[:1])
    with pytest.raises(ValueError, match="not one template with other fillers"):
        ik.graphs.family([graphs[0], ik.attribute(model, clt, "Dallas is a city")])
    with pytest.raises(ValueError, match="do not belong together"):
        ik.graphs.family([graphs[0], ik.attribute(tiny_model(seed=9), tiny_transcoder(tiny_model(seed=9)), PROMPTS[1])])


def test_what_a_family_is_not_asked(setting):
    model, clt, graphs = setting
    found = ik.graphs.family(graphs)
    with pytest.raises(ValueError, match="the graph of a family of prompts"):
        found.believe()
    with pytest.raises(ValueError, match="the graph of a family of prompts"):
        ik.graphs.head_loadings(found, model, clt)
    assert found.by_hops.empty


def test_a_filler_at_the_beginning_stays_in_the_prompt(setting):
    model, clt, _ = setting
    places = ("Texas", "Dallas")
    found = ik.graphs.family([ik.attribute(model, clt, f"{place} is the capital of the state") for place in places])
    assert found.prompt.replace(" ", "").startswith("{Texas/Dallas}is")
