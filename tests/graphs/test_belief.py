"""Belief in edges: by their share, and by what leads around them."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.belief import CONFIRMED, belief, over_all_paths
from interp_kit.graphs.influence import shares

PROMPT = "the capital of Texas is"


@pytest.fixture(scope="module")
def graph():
    model = tiny_model()
    return ik.attribute(model, tiny_transcoder(model), PROMPT)


@pytest.mark.parametrize("layered", [True, False])
def test_effects_over_all_paths_are_the_inverse(graph, layered):
    rows = np.flatnonzero(np.isin(graph.kinds, ["feature", "logit"]))
    edges = graph.adjacency[np.ix_(rows, rows)].astype(float)
    activations = graph.nodes["activation"].to_numpy()[rows]
    wanted = (np.linalg.inv(np.eye(len(rows)) - edges / activations) - np.eye(len(rows))) * activations
    if not layered:  # as in a file whose edges do not lead upwards
        graph = replace(graph, nodes=graph.nodes.assign(layer=0))
    np.testing.assert_allclose(over_all_paths(graph, rows), wanted, rtol=1e-3, atol=1e-3)
    assert (np.abs(wanted - edges) > 0.1).any()


def test_rows_and_columns_of_the_table(graph):
    """Each edge of a feature, by hand: its share, and the direct effect over that of all paths."""
    found = belief(graph)
    rows = np.flatnonzero(np.isin(graph.kinds, ["feature", "logit"]))
    edges = graph.adjacency[np.ix_(rows, rows)].astype(float)
    activations = graph.nodes["activation"].to_numpy()[rows]
    step = edges / activations
    everywhere = sum(np.linalg.matrix_power(step, n) for n in range(1, 6)) * activations
    share = shares(graph.adjacency)[np.ix_(rows, rows)]
    for target, source in zip(*edges.nonzero()):
        ratio = edges[target, source] / everywhere[target, source]
        octaves = abs(np.log2(ratio)) if ratio > 0 else np.inf
        row = 3 if ratio <= 0 else 0 if octaves <= 0.1 else 1 if octaves <= 1 else 2
        column = sum(share[target, source] >= limit for limit in (0.01, 0.03, 0.1, 0.2))
        wanted = CONFIRMED[row][column]
        assert (
            found[rows[target], rows[source]] == pytest.approx(wanted) or min(abs(octaves - x) for x in (0.1, 1)) < 1e-2
        )
    assert (found[graph.adjacency == 0] == 0).all()


def test_edges_from_tokens_are_judged_by_their_share(graph):
    found, share = belief(graph), shares(graph.adjacency)
    tokens = np.flatnonzero(graph.kinds == "embedding")
    weak = (share[:, tokens] > 0) & (share[:, tokens] < 0.01)
    assert weak.any() and (found[:, tokens][weak] == np.float32(CONFIRMED[0][0])).all()


def test_the_table_is_of_shares_and_rises():
    table = np.array(CONFIRMED)
    assert table.shape == (4, 5) and (0 < table).all() and (table < 1).all()
    assert (np.diff(table, axis=1) > -0.02).all() and (np.diff(table, axis=0) < 0.03).all()


def test_in_the_table_of_edges_and_in_files(graph, tmp_path):
    found = graph.believe()
    at = {node: i for i, node in enumerate(graph.nodes["id"])}
    edge = found.edges.iloc[3]
    assert edge["belief"] == found.belief[at[edge["target"]], at[edge["source"]]]
    found.prune().save(tmp_path / "graph.json")
    np.testing.assert_array_equal(ik.load_graph(tmp_path / "graph.json").belief, found.prune().belief)
    drawn = found.prune().view_data()["edges"]
    assert {edge[3] for edge in drawn} == {float(x) for x in np.unique(found.prune().edges["belief"])}


def test_without_activations_the_share_alone_tells(graph):
    bare = replace(graph, nodes=graph.nodes.assign(activation=np.nan))
    found, share = belief(bare), shares(graph.adjacency)
    strong = share >= 0.2
    assert strong.any() and (found[strong] == np.float32(CONFIRMED[0][-1])).all()
