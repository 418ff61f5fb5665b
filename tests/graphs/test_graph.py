import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs import AttributionGraph, NodeId

PROMPT = "the capital of Texas is"


@pytest.fixture(scope="module")
def graph():
    model = tiny_model()
    return ik.attribute(model, tiny_transcoder(model), PROMPT)


def by_hand():
    """Dallas -> Texas (two features) -> say Austin -> Austin, and a shortcut Dallas -> say Austin."""
    rows = [
        ("E_7_1", "embedding", -1, 1, "Dallas"),
        ("E_5_0", "embedding", -1, 0, "capital"),
        ("1_10_1", "feature", 1, 1, "Texas"),
        ("2_11_1", "feature", 2, 1, "Texas"),
        ("3_12_2", "feature", 3, 2, "say Austin"),
        ("5_6_2", "logit", 4, 2, "Austin"),
    ]
    nodes = pd.DataFrame(rows, columns=["id", "kind", "layer", "position", "label"])
    nodes["token"], nodes["activation"], nodes["bias"] = nodes["label"], 1.0, 0.0
    nodes["feature"] = [7, 5, 10, 11, 12, 6]
    nodes["probability"] = [np.nan] * 5 + [0.9]
    adjacency = np.zeros((6, 6))
    adjacency[2, 0], adjacency[3, 0], adjacency[3, 2] = 2.0, 1.0, 1.0
    adjacency[4, 2], adjacency[4, 3], adjacency[4, 1], adjacency[4, 0] = 3.0, 3.0, -3.0, 1.0
    adjacency[5, 4], adjacency[5, 0] = 1.0, 3.0
    graph = AttributionGraph(PROMPT, ["a", "Dallas", "is"], 4, nodes, adjacency)
    graph.nodes["label"] = nodes["label"]
    return graph


def test_nodes_and_edges_tables(graph):
    assert graph.nodes["id"].is_unique
    assert len(graph.embeddings) == 6 and len(graph.errors) == 4 * 6
    by_kind = pd.concat([graph.features, graph.errors, graph.embeddings, graph.logits])
    pd.testing.assert_frame_equal(by_kind, graph.nodes)
    assert graph.logits["probability"].sum() >= 0.95
    edge = graph.edges.iloc[0]
    i, j = (graph.nodes.index[graph.nodes["id"] == edge[end]][0] for end in ("target", "source"))
    assert graph.adjacency[i, j] == edge["weight"] and abs(edge["weight"]) == np.abs(graph.adjacency).max()
    assert len(graph.edges) == np.count_nonzero(graph.adjacency)
    by_target = graph.edges.groupby("target")["share"].sum()
    np.testing.assert_allclose(by_target, 1, rtol=1e-5)


def test_pruning_makes_a_smaller_graph_with_the_full_ones_numbers(graph):
    smaller = graph.prune(0.7, 0.9)
    assert len(smaller.nodes) < len(graph.nodes) and len(smaller.edges) < len(graph.edges)
    both = smaller.nodes.merge(graph.nodes, on="id")
    assert (both["influence_x"] == both["influence_y"]).all()
    assert smaller.scores == graph.scores
    with pytest.raises(ValueError, match="node_threshold is a share"):
        graph.prune(80)


def test_paths_by_label_and_by_node():
    graph = by_hand()
    best = graph.paths().iloc[0]
    assert best["steps"] == "Dallas → Texas → say Austin → Austin" and best["sign"] == 1
    assert best["nodes"] == [["E_7_1"], ["1_10_1", "2_11_1"], ["3_12_2"], ["5_6_2"]]
    assert graph.paths()["token"].tolist() == ["Dallas", "capital"]
    single = graph.paths(10, by_label=False)
    # Dallas -> 1_10 -> 3_12 -> Austin: 1 * .3 * .25
    strongest = single[single["nodes"].map(len) == 4].iloc[0]
    assert strongest["nodes"] == [["E_7_1"], ["1_10_1"], ["3_12_2"], ["5_6_2"]]
    assert strongest["strength"] == pytest.approx(1 * 0.3 * 0.25)
    assert (single["strength"].diff().dropna() <= 1e-12).all()
    negative = single[single["token"] == "capital"].iloc[0]
    assert negative["sign"] == -1 and negative["strength"] == pytest.approx(0.3 * 0.25)
    assert not (single["nodes"].map(len) == 2).any()  # a direct edge is no path through a feature


def test_paths_to_something_that_is_no_logit():
    with pytest.raises(ValueError, match=r"'E_7_1' is not a logit of this graph; its logits: 'Austin' \(5_6_2\)"):
        by_hand().paths(target="E_7_1")


def test_paths_to_a_logit_by_token_or_id():
    graph = by_hand()
    other = graph.nodes.iloc[[5]].assign(id="5_9_2", feature=9, token="Texas", label="Texas", probability=0.05)
    adjacency = np.zeros((7, 7))
    adjacency[:6, :6], adjacency[6, 2] = graph.adjacency, 1.0
    graph = replace(graph, nodes=pd.concat([graph.nodes, other], ignore_index=True), adjacency=adjacency)
    for target in ("Texas", 9, "5_9_2", NodeId(5, 9, 2), np.int64(9)):
        assert graph.paths(target=target)["steps"].tolist() == ["Dallas → Texas → Texas"]
    pd.testing.assert_frame_equal(graph.paths(target="Austin"), graph.paths())
    with pytest.warns(DeprecationWarning, match=r"paths\(to=...\) is now target=..."):
        assert graph.paths(to="5_9_2")["steps"].tolist() == ["Dallas → Texas → Texas"]
    for target in ("Ohio", 7, "5_7_2"):
        with pytest.raises(ValueError, match=r"its logits: 'Austin' \(5_6_2\), 'Texas' \(5_9_2\)"):
            graph.paths(target=target)


def test_groups_become_steps_and_survive_pruning():
    graph = by_hand().group({"the Lone Star state": ["1_10_1", "2_11_1"]})
    assert graph.paths()["steps"].iloc[0] == "Dallas → the Lone Star state → say Austin → Austin"
    assert graph.prune(1.0, 1.0).supernodes == graph.supernodes
    with pytest.raises(ValueError, match="not the id of a node"):
        graph.group({"x": ["9_9_9"]})
    with pytest.raises(ValueError, match="in another group"):
        graph.group({"x": ["1_10_1"], "y": ["1_10_1"]})
    assert graph.group({"x": [NodeId(1, 10, 1)]}).supernodes == {"x": ["1_10_1"]}


def test_annotate_brings_labels_and_cards():
    model = tiny_model()
    clt = tiny_transcoder(model)
    store = ik.collect_features(model, clt, [PROMPT + " Austin .", "Dallas is a city"])
    labels = ik.label_features(store)
    graph = ik.attribute(model, clt, PROMPT).annotate(store, labels)
    node = graph.features.iloc[0]
    named = labels.set_index(["layer", "feature"])["label"]
    assert node["label"] == named[node["layer"], node["feature"]]
    drawn = graph.view_data()["nodes"][0]
    assert drawn["label"] == node["label"] and drawn["examples"] and len(drawn["top_logits"]) == 6
    json.dumps(graph.view_data(), allow_nan=False)


def test_the_view_opens_on_a_real_graph(graph, tmp_path):
    view = graph.show()
    assert view.pinned == []
    graph.to_html(tmp_path / "graph.html")
    page = (tmp_path / "graph.html").read_text()
    assert "Content-Security-Policy" in page and PROMPT in page


def test_html_is_escaped():
    graph = by_hand()
    graph.prompt = "<script>alert(1)</script>"
    graph.nodes.loc[2, "label"] = "<img src=x onerror=alert(1)>"
    shown = graph._repr_html_()
    assert "<script>" not in shown and "<img" not in shown


def test_what_paths_of_each_length_carry(graph):
    table = graph.by_hops
    inputs = graph.nodes["kind"].isin(["embedding", "error"])
    assert table["hops"].tolist() == list(range(1, len(table) + 1)) and len(table) == graph.n_layers + 1
    assert table["net"].sum() == pytest.approx(graph.nodes.loc[inputs, "contribution"].sum(), rel=1e-4)
    assert table["inputs"].iloc[0] == pytest.approx(
        np.abs(graph.adjacency[graph.logits.index[0], inputs]).sum(), rel=1e-5
    )
    assert (table["inputs"] >= table["net"].abs() - 1e-9).all() and table["features"].iloc[-1] == 0


def test_paths_of_limited_length(graph):
    for longest in (2, 3, 4, None):
        found = graph.paths(3, by_label=False, longest=longest)
        assert found["nodes"].map(len).max() <= (longest or 100) + 1
    assert graph.paths().equals(graph.paths(longest=3))
    every, short = graph.paths(by_label=False, longest=None), graph.paths(by_label=False, longest=2)
    best = every.groupby("position")["strength"].max()
    assert (short.groupby("position")["strength"].max() <= best + 1e-12).all()
    for longest in (1, 2.5, "all"):
        with pytest.raises(ValueError, match="longest should be a number of edges of at least 2"):
            graph.paths(longest=longest)


def test_strongest_paths_are_those_of_a_search_through_all(graph):
    """Every path from a token, one by one."""
    small = graph.prune(1.0, 1.0, max_nodes=16)
    share = np.abs(small.adjacency) / np.maximum(np.abs(small.adjacency).sum(1, keepdims=True), 1e-30)
    end, start = small.logits.index[0], small.embeddings.index[-1]

    def all_from(node, strength, way):
        if node == end:
            yield strength, way
            return
        for target in np.flatnonzero(share[:, node]):
            if len(way) > 1 or target != end:
                yield from all_from(target, strength * share[target, node], [*way, target])

    wanted = sorted(all_from(start, 1.0, [start]), reverse=True)
    place = small.nodes["position"][start]
    for longest in (2, 3, None):
        these = [strength for strength, way in wanted if longest is None or len(way) - 1 <= longest][:5]
        found = small.paths(5, by_label=False, longest=longest).query(f"position == {place}")["strength"]
        np.testing.assert_allclose(found, these, rtol=1e-6)


def test_a_graph_whose_effects_cancel_says_so(graph):
    from dataclasses import replace as changed

    calm, wild = (changed(graph, conditioning={"absolute": r, "target": 1.0, "ratio": r}) for r in (2.0, 5000.0))
    assert "amplify and cancel" not in calm._repr_html_()
    assert "5,000 times as large as what they add up to" in wild._repr_html_()
