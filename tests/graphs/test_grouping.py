"""Automatic supernodes: likeness and merging by hand, and the picture of boxes."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.grouping import cosines, merge
from interp_kit.graphs.views import MAX_BOXES
from interp_kit.statistics import adjusted_rand

PROMPT = "the capital of Texas is"


def test_merge_by_hand():
    """0 and 1 are most alike; to both of them 2 is alike by .6 and .2, in the mean .4; 3 is like nothing."""
    alike = np.array([[1, 0.9, 0.6, 0], [0.9, 1, 0.2, 0], [0.6, 0.2, 1, 0.1], [0, 0, 0.1, 1]])
    assert merge(alike, 0.5) == [[0, 1], [2], [3]]
    assert merge(alike, 0.4) == [[0, 1, 2], [3]]
    assert merge(alike, -1) == [[0, 1, 2, 3]]
    assert merge(np.ones((1, 1)), 0.5) == [[0]]


def test_cosines_by_hand():
    found = cosines(np.array([[1.0, 0], [3, 3], [0, 0]]))
    np.testing.assert_allclose(found, [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 0]], atol=1e-12)


def twins(graph):
    """The graph with a copy of one feature beside it: it feeds and draws on the same."""
    row = int(graph.features.query("layer == 1").index[0])
    copy = graph.nodes.loc[[row]].assign(feature=99, id="1_99_" + str(graph.nodes["position"][row]))
    adjacency = np.insert(np.insert(graph.adjacency, row, graph.adjacency[row], 0), row, 0, 1)
    adjacency[:, row] = adjacency[:, row + 1]
    import pandas as pd

    nodes = pd.concat([graph.nodes.iloc[:row], copy, graph.nodes.iloc[row:]], ignore_index=True)
    return replace(graph, nodes=nodes, adjacency=adjacency), {copy["id"].item(), graph.nodes["id"][row]}


def test_features_that_do_the_same_are_one_group(setting):
    _, _, graph = setting
    doubled, pair = twins(graph)
    grouped = doubled.group("auto")
    assert any(pair <= set(ids) for ids in grouped.supernodes.values())
    members = [i for ids in grouped.supernodes.values() for i in ids]
    assert len(members) == len(set(members)), members
    assert set(members) <= set(doubled.features["id"])
    place = doubled.nodes.set_index("id")["position"]
    assert all(len(ids) > 1 and place[ids].nunique() == 1 for ids in grouped.supernodes.values())


def test_labels_and_decoders_count(setting):
    _, clt, graph = setting
    nodes = graph.nodes.copy()
    features = nodes["kind"] == "feature"
    nodes.loc[features, "label"] = "Dallas / Texas"
    same = replace(graph, nodes=nodes)
    assert sum(map(len, same.group("auto").supernodes.values())) > sum(
        map(len, graph.group("auto").supernodes.values())
    )
    assert graph.group("auto", clt).supernodes != graph.group("auto").supernodes
    with pytest.raises(ValueError, match="do not belong together"):
        graph.group("auto", tiny_transcoder(tiny_model(), seed=8))
    with pytest.raises(ValueError, match="a dict of ids by name, or \"auto\", got 'all'"):
        graph.group("all")


def test_names_are_told_apart(setting):
    _, _, graph = setting
    nodes = graph.nodes.copy()
    nodes.loc[nodes["kind"] == "feature", "label"] = "Texas"
    names = list(replace(graph, nodes=nodes).group("auto").supernodes)
    assert len(names) == len(set(names)) > 2 and names[0] == "Texas" and names[1].startswith("Texas, L")


def test_grouped_scores_count_the_others_as_left_out(setting):
    _, _, graph = setting
    everything = graph.group({"all": graph.features["id"].tolist()})
    assert {k: v for k, v in everything.grouped_scores.items() if k in graph.scores} == pytest.approx(graph.scores)
    nothing = graph.group({}).grouped_scores
    assert nothing["left_out"] > 0 and nothing["replacement"] < graph.scores["replacement"]


def test_the_picture_of_boxes(setting):
    model, clt, _ = setting
    graph = ik.attribute(model, clt, PROMPT + " Austin and the capital of the state of Dallas")
    data = graph.show(boxes=True).data
    boxes = [n for n in data["nodes"] if n["kind"] in ("feature", "error")]
    assert len(boxes) == MAX_BOXES and f"the {MAX_BOXES} most influential of" in data["title"]
    assert len({n["kind"] for n in data["nodes"]}) == 4
    single = graph.show(boxes=False).data
    assert len([n for n in single["nodes"] if n["kind"] == "feature"]) > MAX_BOXES
    assert graph.show().data == single  # a small graph


def test_edges_between_boxes_are_sums(setting):
    graph = setting[2].prune(1.0, 1.0, max_nodes=24)
    early = graph.features.query("layer <= 1")["id"].tolist()
    late = graph.features.query("layer > 1")["id"].tolist()
    grouped = graph.group({"early": early, "late": late})
    data = grouped.show(boxes=True).data
    at = {n["id"]: i for i, n in enumerate(data["nodes"])}
    drawn = grouped.prune(1.0, 0.98, max_nodes=300)
    row = {i: k for k, i in enumerate(drawn.nodes["id"])}
    wanted = drawn.adjacency[np.ix_([row[i] for i in late if i in row], [row[i] for i in early if i in row])].sum()
    found = next(weight for source, target, weight in data["edges"] if (source, target) == (at["early"], at["late"]))
    assert found == pytest.approx(wanted, rel=1e-4)
    assert data["nodes"][at["early"]]["label"] == f"early ×{len(early)}"


def test_boxes_are_as_sure_as_their_edges(setting):
    graph = setting[2].prune(1.0, 1.0, max_nodes=24)
    single = graph.features["id"].iloc[0]
    assert {len(edge) for edge in graph.show(boxes=True).data["edges"]} == {3}
    believed = graph.believe().group({"rest": graph.features["id"].iloc[1:].tolist()})
    data = believed.show(boxes=True).data
    at = {n["id"]: i for i, n in enumerate(data["nodes"])}
    assert all(0 <= edge[3] <= 1 for edge in data["edges"])
    drawn = believed.prune(1.0, 0.98, max_nodes=300)
    row = {i: k for k, i in enumerate(drawn.nodes["id"])}
    members = [row[i] for i in graph.features["id"].iloc[1:] if i in row]
    weights = np.abs(drawn.adjacency[members, row[single]])
    if weights.any():
        wanted = (weights * drawn.belief[members, row[single]]).sum() / weights.sum()
        found = next(edge[3] for edge in data["edges"] if edge[:2] == (at[single], at["rest"]))
        assert found == pytest.approx(wanted, rel=1e-4)


def test_adjusted_rand_by_hand():
    assert adjusted_rand([0, 0, 1, 1], [5, 5, 7, 7]) == 1
    assert adjusted_rand([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(-0.5)
    # Hubert and Arabie's kind of table: pairs together 2, of 4 and 3; of 10 in all
    assert adjusted_rand([0, 0, 0, 1, 1], [0, 0, 1, 1, 1]) == pytest.approx((2 - 1.6) / (4 - 1.6))
