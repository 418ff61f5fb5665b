"""Which edges stay however the question is put, aligned and counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit import hardware
from interp_kit.graphs.alignment import align
from interp_kit.graphs.consensus import EDGE_THRESHOLDS, NODE_THRESHOLDS, classes

PROMPT = "the capital of Texas is"


@pytest.mark.parametrize(
    "mine, others, wanted",
    [
        ("a b c", "a b c", [0, 1, 2]),
        ("the capital of Texas is", "the capital of New York is", [0, 1, 2, None, 3, 4]),  # a longer filler
        ("the capital of New York is", "the capital of Texas is", [0, 1, 2, 4, 5]),  # a shorter one: where it ends
        ("the state of Dallas is", "Dallas is in the state whose", [3, None, None, 0, 1, 4]),  # other order: by text
        ("of the of is", "the of is", [1, 2, 3]),  # repeated tokens, counted from the end
        ("x y", "p q", [0, 1]),  # a template with nothing but a filler
        ("x", "p", [0]),
        ("x y z", "p", [2]),
    ],
)
def test_alignment(mine, others, wanted):
    assert align(mine.split(), others.split()) == wanted
    equal = [mine.split()[a] == b if a is not None else False for a, b in zip(wanted[:-1], others.split())]
    plain = align(mine.split(), others.split(), fillers=False)
    assert plain[:-1] == [a if same else None for a, same in zip(wanted[:-1], equal)]


def test_stability_is_the_share_of_settings(setting):
    _, _, graph = setting
    found = graph.believe()
    counts = np.zeros(graph.adjacency.shape)
    row = {node: i for i, node in enumerate(graph.nodes["id"])}
    for node_threshold in NODE_THRESHOLDS:
        for edge_threshold in EDGE_THRESHOLDS:
            for edge in graph.prune(node_threshold, edge_threshold).edges.itertuples():
                counts[row[edge.target], row[edge.source]] += 1
    np.testing.assert_allclose(found.stability, counts / 12)
    table = found.edges
    assert set(table["consensus"]) == {"core", "contingent", "noise"}
    assert (table["consensus"] == "core").equals(table["stability"] == 1)
    assert (table["consensus"] == "noise").equals(table["stability"] == 0)
    assert graph.stability is None and "consensus" not in graph.edges


def test_classes_by_hand():
    assert classes(np.array([0, 0.1, 1])).tolist() == ["noise", "contingent", "core"]


def test_the_same_prompt_again_changes_nothing(setting):
    _, _, graph = setting
    np.testing.assert_array_equal(graph.believe(graph).stability, graph.believe().stability)


def test_another_prompt_counts_where_it_has_the_tokens(setting):
    model, clt, graph = setting
    target = int(graph.logits["feature"].iloc[0])
    graph = ik.attribute(model, clt, PROMPT, target)
    other = ik.attribute(model, clt, "the capital of the state is", target)
    found, alone = graph.believe(other), graph.believe()
    place = align(graph.tokens, other.tokens, fillers=False)
    missing = set(range(len(graph.tokens))) - set(place)
    outside = graph.nodes["position"].isin(missing).to_numpy()
    np.testing.assert_array_equal(found.stability[outside], alone.stability[outside])  # nothing is said of them
    inside = ~outside[:, None] & ~outside
    assert (found.stability[inside] != alone.stability[inside]).any()
    kept = {
        (graph_id(edge.source, place), graph_id(edge.target, place))
        for edge in other.prune(0.9, 0.98).edges.itertuples()
    }
    core = found.edges[found.edges["consensus"] == "core"]
    both = core[~core["source"].isin(graph.nodes["id"][outside]) & ~core["target"].isin(graph.nodes["id"][outside])]
    ends = {(plain(edge.source), plain(edge.target)) for edge in both.itertuples()}
    assert ends <= kept


def graph_id(node, place):
    layer, feature, position = node.split("_")
    return plain(f"{layer}_{feature}_{place[int(position)]}")


def plain(node):
    """An embedding is the same whichever token fills the place."""
    layer, feature, position = node.split("_")
    return f"E_{position}" if layer == "E" else node


def test_another_transcoder_is_compared_by_label(setting):
    model, clt, graph = setting
    other_clt = tiny_transcoder(model, seed=5)
    target = int(graph.logits["feature"].iloc[0])
    graph, other = (ik.attribute(model, transcoder, PROMPT, target) for transcoder in (clt, other_clt))
    with pytest.raises(ValueError, match="compared by their labels, and a graph has none"):
        graph.believe(other)
    named = [renamed(one) for one in (graph, other)]
    found, alone = named[0].believe(named[1]), named[0].believe()
    assert found.stability.max() == 1 and not np.array_equal(found.stability, alone.stability)
    assert (found.stability <= (alone.stability + 1) / 2 + 1e-6).all()


def renamed(graph):
    nodes = graph.nodes.copy()
    features = nodes["kind"] == "feature"
    nodes.loc[features, "label"] = "of layer " + nodes.loc[features, "layer"].astype(str)
    return replace(graph, nodes=nodes)


def test_what_cannot_be_compared(setting):
    model, clt, graph = setting
    target = int(graph.logits["feature"].iloc[-1])
    with pytest.raises(ValueError, match="no token in common"):
        graph.believe(ik.attribute(model, clt, "x", int(graph.logits["feature"].iloc[0])))
    unlike = next(i for i in range(40) if i not in set(graph.logits["feature"]))
    with pytest.raises(ValueError, match=r"explains .*: give both the same target"):
        ik.attribute(model, clt, PROMPT, target).believe(ik.attribute(model, clt, PROMPT, unlike))
    with pytest.raises(ValueError, match="do not belong together"):
        graph.believe(ik.attribute(tiny_model(seed=9), tiny_transcoder(tiny_model(seed=9)), PROMPT))


def test_stability_survives_pruning_and_files(setting, tmp_path):
    _, _, graph = setting
    found = graph.believe()
    smaller = found.prune()
    both = smaller.edges.merge(found.edges, on=["source", "target"])
    assert (both["stability_x"] == both["stability_y"]).all() and len(both) == len(smaller.edges)
    found.save(tmp_path / "graph.json")
    loaded = ik.load_graph(tmp_path / "graph.json")
    np.testing.assert_array_equal(loaded.stability, found.stability)
    loaded.prune().save(tmp_path / "pruned.json")
    np.testing.assert_array_equal(ik.load_graph(tmp_path / "pruned.json").stability, loaded.prune().stability)


def test_the_picture_draws_solid_what_is_sure(setting):
    from interp_kit.widgets import graph_svg

    _, _, graph = setting
    assert "faint" not in graph_svg(graph.prune().view_data())
    drawn = graph.believe().prune().view_data()
    assert {len(edge) for edge in drawn["edges"]} == {4}
    assert "faint: sure by less than half" in graph_svg(drawn)
    solid = drawn | {"edges": [(*edge[:3], 1.0) for edge in drawn["edges"]]}
    assert graph_svg(solid) != graph_svg(drawn)


def test_memory_that_is_short(setting, monkeypatch):
    monkeypatch.setattr(hardware, "free_memory", lambda *_: 1e3)
    with pytest.raises(MemoryError, match="a graph of [0-9]+ nodes needs about"):
        setting[2].believe()


def test_other_questions_about_the_same_token_are_other_questions(setting):
    model, clt, graph = setting
    target, other = graph.logits["feature"].iloc[:2].tolist()
    plain, against = ik.attribute(model, clt, PROMPT, target), ik.attribute(model, clt, PROMPT, target, other)
    with pytest.raises(ValueError, match="give both the same target"):
        plain.believe(against)
    with pytest.raises(ValueError, match="no token in common"):
        plain.believe(ik.attribute(model, clt, "Dallas city Austin", target))
