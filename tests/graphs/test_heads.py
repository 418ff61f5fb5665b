"""Heads of an edge, against edges and against the model's own heads, in float64."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit import hardware
from interp_kit.graphs.heads import STAYS

PROMPT = "the capital of Texas is"
FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma2", "qwen3"]


def setting(family="llama", **changes):
    model = tiny_model(family)
    clt = tiny_transcoder(model, **changes)
    return model, clt, ik.attribute(model, clt, PROMPT, dtype=torch.float64)


def loadings(model, clt, graph, **ends):
    return ik.graphs.head_loadings(graph, model, clt, dtype=torch.float64, **ends)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_add_up_where_one_attention_layer_lies_between(family):
    model, clt, graph = setting(family)
    table = loadings(model, clt, graph)
    layer = graph.nodes.set_index("id")["layer"]
    # embeddings (layer -1) to features of layer 0, and from a layer to the next: one attention between
    near = table[table["target"].map(layer) - table["source"].map(layer) == 1]
    sums = near.groupby(["source", "target"]).agg(loading=("loading", "sum"), edge=("edge", "first"))
    assert len(sums) > 50
    np.testing.assert_allclose(sums["loading"], sums["edge"], rtol=1e-8, atol=1e-10)


def test_farther_edges_count_each_head_they_pass():
    model, clt, graph = setting()
    table = loadings(model, clt, graph)
    layer = graph.nodes.set_index("id")["layer"]
    far = table[table["target"].map(layer) - table["source"].map(layer) > 2]
    sums = far.groupby(["source", "target"]).agg(loading=("loading", "sum"), edge=("edge", "first"))
    assert (abs(sums["loading"] - sums["edge"]) > 1e-6).any()


@pytest.mark.parametrize("changes", [{}, {"span": 1}, {"skip": True}])
def test_a_head_that_is_switched_off_takes_its_loading_with_it(changes):
    """Without one head the frozen model's edge is smaller by its loading: the definition, by another computation."""
    model, clt, graph = setting(**changes)
    table = loadings(model, clt, graph)
    layer, head = 1, 0
    mine = table[(table["layer"] == layer) & (table["head"] == head)].set_index(["source", "target"])["loading"]
    without = edges_without_head(model, clt, layer, head)
    row = {node: i for i, node in enumerate(graph.nodes["id"])}
    for (source, target), loading in mine.head(60).items():
        ends = row[target], row[source]
        assert graph.adjacency[ends] - without[ends] == pytest.approx(loading, rel=1e-7, abs=1e-9)
    assert len(mine) > 60


def edges_without_head(model, clt, layer, head):
    """The adjacency of a sweep whose frozen attention lacks one head's pattern."""
    from interp_kit.graphs.attribution import activations_of, find_nodes, in_same_dtype
    from interp_kit.graphs.sweep import Sweep
    from interp_kit.models.frozen import FrozenModel

    frozen = FrozenModel(model, PROMPT, torch.float64)
    clt = in_same_dtype(clt, torch.float64)
    nodes = find_nodes(frozen, clt, int(frozen.ids[0]) in model.special_ids, activations_of(frozen, clt))
    sweep = Sweep(frozen, clt, nodes, 1e9)
    pattern = sweep.maps.attentions[layer].pattern
    group, within = divmod(head, pattern.shape[3])
    pattern[group, :, :, within] = 0
    n = len(nodes.features)
    adjacency = np.zeros((nodes.n_sources + len(nodes.logits),) * 2)
    for rows in sweep.rows(torch.arange(nodes.n_targets)):
        at = np.where(rows.targets < n, rows.targets, rows.targets + nodes.n_sources - n)
        adjacency[at, : nodes.n_sources] = rows.edges_from(sweep.order.sources).numpy()
    return adjacency


@pytest.mark.parametrize("question", ["contrast", "feature", "direction"])
def test_whatever_the_graph_explains(question):
    model, clt, graph = setting()
    asked = {
        "contrast": {"target": int(graph.logits["feature"].iloc[0]), "contrast": [3, 5]},
        "feature": {"target": graph.features.query("layer == 2")["id"].iloc[-1]},
        "direction": {"target": torch.randn(model.d_model)},
    }[question]
    graph = ik.attribute(model, clt, PROMPT, **asked, dtype=torch.float64)
    table = loadings(model, clt, graph, target=graph.logits["id"].iloc[0])
    below = graph.nodes.set_index("id")["layer"][table["source"]].to_numpy()
    top = {"feature": 2}.get(question, model.n_layers)
    near = table[below == top - 1].groupby("source").agg(loading=("loading", "sum"), edge=("edge", "first"))
    assert len(near) and np.allclose(near["loading"], near["edge"], rtol=1e-8)


def test_what_passes_no_head_stays_in_its_position():
    model, clt, graph = setting()
    table = loadings(model, clt, graph)
    place = graph.nodes.set_index("id")["position"]
    stays = table[table["layer"] == STAYS]
    assert len(stays) and (stays["source"].map(place) == stays["target"].map(place)).all()
    assert (table["share"] * table["edge"]).sub(table["loading"]).abs().max() < 1e-10


def test_the_edges_asked_for_and_no_others():
    model, clt, graph = setting()
    edge = graph.edges.iloc[0]
    table = loadings(model, clt, graph, source=edge["source"], target=[edge["target"]])
    assert set(table["source"]) == {edge["source"]} and set(table["target"]) == {edge["target"]}
    assert table["edge"].iloc[0] == edge["weight"]
    with pytest.raises(ValueError, match="source '9_9_9' is not the id of a node"):
        loadings(model, clt, graph, source="9_9_9")
    with pytest.raises(ValueError, match="no edge of the graph leads from"):
        loadings(model, clt, graph, source=graph.logits["id"].iloc[0])
    with pytest.raises(ValueError, match="do not belong together"):
        ik.graphs.head_loadings(graph, tiny_model(seed=3), clt)


def test_heads_that_are_not_known_and_memory_that_is_short(monkeypatch):
    granite = tiny_model("granite")
    clt = tiny_transcoder(granite)
    with pytest.raises(NotImplementedError, match="where the heads of 'granite' models are is not known"):
        ik.graphs.head_loadings(ik.attribute(granite, clt, PROMPT), granite, clt)
    model, clt, graph = setting()
    monkeypatch.setattr(hardware, "free_memory", lambda *_: 1e3)
    with pytest.raises(MemoryError, match="the heads of [0-9,]+ edges needs about"):
        loadings(model, clt, graph)


def test_errors_at_a_first_position_that_the_transcoder_leaves_out():
    model = tiny_model()
    clt = tiny_transcoder(model, excludes_first_position=True)
    graph = ik.attribute(model, clt, PROMPT, dtype=torch.float64, zero_first_position=False)
    first = graph.errors.query("position == 0 and layer < 3")
    table = loadings(model, clt, graph, source=first["id"].tolist())
    layer = graph.nodes.set_index("id")["layer"]
    near = table[table["target"].map(layer) - table["source"].map(layer) == 1]
    sums = near.groupby(["source", "target"]).agg(loading=("loading", "sum"), edge=("edge", "first"))
    assert len(sums) > 10
    np.testing.assert_allclose(sums["loading"], sums["edge"], rtol=1e-8, atol=1e-10)
