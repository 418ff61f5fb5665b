"""Click an edge, see its heads; choose a head, see its pairs."""

import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik

PROMPT = "the capital of Texas is"


@pytest.fixture(scope="module")
def browser():
    model = tiny_model()
    clt = tiny_transcoder(model)
    graph = ik.attribute(model, clt, PROMPT).prune()
    return graph, model, clt, ik.graphs.browse_heads(graph, model, clt)


def shown(output):
    return output.outputs[0]["data"]


def test_it_opens_with_an_edge_between_positions(browser):
    graph, *_, view = browser
    source, target = view.view.edge
    place = graph.nodes.set_index("id")["position"]
    assert place[source] != place[target] and view.head.options
    assert "Through which heads" in str(shown(view._heads)) and "Why head" in str(shown(view._pairs))
    assert view.picture().svg


def test_a_click_shows_the_heads_of_that_edge(browser):
    graph, model, clt, view = browser
    drawn = {n["id"] for n in view.view.data["nodes"]}
    edges = graph.edges[graph.edges["source"].isin(drawn) & graph.edges["target"].isin(drawn)]
    edge = edges[edges["source"].str.startswith("E")].iloc[-1]
    view.view.edge = [edge["source"], edge["target"]]
    table = ik.graphs.head_loadings(graph, model, clt, edge["source"], edge["target"])
    top = table[table["layer"] >= 0].iloc[0]
    assert view.head.options[0][1] == (top["layer"], top["head"])
    before = shown(view._pairs)
    if len(view.head.options) > 1:
        view.head.value = view.head.options[-1][1]
        assert shown(view._pairs) != before
    view.view.edge = []  # nothing is chosen: what was shown stays


def test_an_edge_has_two_ends(browser):
    *_, view = browser
    with pytest.raises(ValueError, match=r"edge must be \[\], or the ids of its source and target"):
        view.view.edge = [view.view.data["nodes"][0]["id"]]
    with pytest.raises(ValueError, match="edge names nodes that the graph does not have"):
        view.view.edge = ["9_9_9", "8_8_8"]


def test_graphs_that_are_not_pruned_and_what_was_left_out(browser):
    _, model, clt, _ = browser
    whole = ik.attribute(model, clt, PROMPT + " Austin and the state of Dallas is", max_features=30)
    view = ik.graphs.browse_heads(whole, model, clt)
    left_out = whole.nodes.loc[whole.kinds == "left_out", "id"].item()
    drawn = {n["id"] for n in view.view.data["nodes"]}
    assert set(view.view.edge) <= drawn and left_out in drawn
    view.view.edge = [left_out, whole.logits["id"].iloc[0]]
    assert view.head.options == () and view._pairs.outputs == ()


def test_the_same_head_of_another_edge_is_shown_anew(browser):
    graph, *_, view = browser
    drawn = {n["id"] for n in view.view.data["nodes"]}
    edges = graph.edges[graph.edges["source"].isin(drawn) & graph.edges["target"].isin(drawn)]
    seen = []
    for source, target in edges[["source", "target"]].head(12).to_numpy().tolist():
        view.view.edge = [source, target]
        if view.head.options:
            place = graph.nodes.set_index("id")["position"]
            seen.append((view.head.value, place[source], place[target], str(shown(view._pairs))))
    by_head = {}
    for head, key, query, chart in seen:
        by_head.setdefault((head, key, query), set()).add(chart)
    assert all(len(charts) == 1 for charts in by_head.values())  # a head's chart follows its edge's positions
    assert len({key for key in by_head}) > 2
