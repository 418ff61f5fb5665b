"""Edges graded by interventions, beside matched ones."""

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.edge_grades import EdgeGrades, _matched, belief_class
from interp_kit.graphs.validation import confirmed
from interp_kit.statistics import bootstrap_share


@pytest.fixture(scope="module")
def graded():
    model = tiny_model()
    clt = tiny_transcoder(model)
    graphs = [ik.attribute(model, clt, f"the capital of {place} is").believe() for place in ("Texas", "Dallas")]
    return model, clt, graphs, ik.graphs.grade_edges(model, clt, graphs, n_sources=6)


def test_each_edge_of_the_strongest_features_is_graded(graded):
    model, clt, graphs, grades = graded
    for number, graph in enumerate(graphs):
        mine = grades.edges[grades.edges["graph"] == number]
        sources = graph.features.nlargest(6, "influence")["id"]
        wanted = graph.edges[graph.edges["source"].isin(sources)]
        assert set(zip(mine["source"], mine["target"])) == set(zip(wanted["source"], wanted["target"]))
        both = mine.merge(wanted, on=["source", "target"])
        np.testing.assert_allclose(both["direct"], -both["weight"], rtol=1e-5)
        assert (both["consensus_x"] == both["consensus_y"]).all()
        assert (both["belief_x"] == belief_class(both["belief_y"].to_numpy())).all()
    ratio = grades.edges["measured"] / grades.edges["predicted"]
    assert (grades.edges["confirmed"] == ratio.between(0.5, 2)).all()


def test_the_table_counts(graded):
    *_, grades = graded
    for table, column in ((grades.by_belief, "belief"), (grades.by_consensus, "consensus")):
        assert table["edges"].sum() == len(grades.edges)
        last = table.iloc[-1]
        mine = grades.edges[grades.edges[column] == last[column]]
        assert last["confirmed"] == pytest.approx(mine["confirmed"].mean())
        for matched in {"at_random", "of_equal_size"} & set(table):
            assert last[matched] == pytest.approx(mine[matched].dropna().mean())
        found = table[table["edges"] > 0]
        assert (found["confirmed low"] <= found["confirmed"]).all()
    assert grades.by_consensus["consensus"].tolist() == ["core", "contingent", "noise"]
    assert "75 to 100 %" in repr(grades)
    assert len(grades.show().data) == 3


def test_matches_by_hand():
    rows = [("core", 1.0, True), ("noise", 0.9, False), ("noise", 5.0, True), ("core", 4.9, False)]
    edges = pd.DataFrame(rows, columns=["belief", "direct", "confirmed"]).assign(source_layer=0, target_layer=1)
    alone = pd.DataFrame([("core", 1.0, True)], columns=["belief", "direct", "confirmed"])
    edges = pd.concat([edges, alone.assign(source_layer=0, target_layer=2)], ignore_index=True)
    found = _matched(edges, np.random.default_rng(0))
    assert found["of_equal_size"].tolist()[:4] == [0, 1, 0, 1]
    assert found["at_random"].notna().tolist() == [True] * 4 + [False]  # the last one is alone between its layers
    assert np.isnan(found["of_equal_size"].iloc[4])


def test_confirmed_by_hand():
    effects = pd.DataFrame({"predicted": [1.0, 1.0, 1.0, -1.0, 0.0], "measured": [1.9, 2.1, -1.0, -0.6, 0.0]})
    assert confirmed(effects).tolist() == [True, False, False, True, False]


def test_bootstrap_of_a_share():
    share, low, high = bootstrap_share([1, 3], [4, 4])
    assert share == 0.5 and low == 0.25 and high == 0.75
    assert np.isnan(bootstrap_share([0], [0])[0])


def test_what_cannot_be_graded(graded):
    model, clt, graphs, _ = graded
    with pytest.raises(ValueError, match="no graph to grade"):
        ik.graphs.grade_edges(model, clt, [])
    with pytest.raises(ValueError, match="graph 0 does not say which of its edges to believe"):
        ik.graphs.grade_edges(model, clt, [ik.attribute(model, clt, "Texas is")])
    assert isinstance(graded[3], EdgeGrades)


def test_beliefs_belief_class():
    found = belief_class(np.array([0, 0.2, 0.25, 0.5, 0.74, 0.75, 1]))
    assert found.tolist() == ["0 to 25 %"] * 2 + ["25 to 50 %"] + ["50 to 75 %"] * 2 + ["75 to 100 %"] * 2
