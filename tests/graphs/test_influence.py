"""The public definitions, checked against graphs small enough to work out by hand and against matrix inverses."""

import numpy as np
import pytest

from interp_kit.graphs import influence as public

# token 0 -> feature 1 (3), error 2 -> feature 1 (-1), feature 1 -> logit 3 (2), token 0 -> logit 3 (2)
ADJACENCY = np.array([[0, 0, 0, 0], [3, 0, -1, 0], [0, 0, 0, 0], [2, 2, 0, 0]], dtype=float)
KINDS = np.array(["embedding", "feature", "error", "logit"])
LAYERS = np.array([-1, 1, 0, 2])
WEIGHTS = np.array([0, 0, 0, 0.8])


def random_graph(n=40, seed=0):
    rng = np.random.default_rng(seed)
    adjacency = np.tril(rng.normal(size=(n, n)), -1) * (rng.random((n, n)) < 0.4)
    kinds = np.array(["embedding"] * 6 + ["error"] * 8 + ["feature"] * (n - 17) + ["logit"] * 3)
    adjacency[:14] = 0
    adjacency[-3:, -3:] = 0
    weights = np.zeros(n)
    weights[-3:] = [0.6, 0.3, 0.06]
    return adjacency, kinds, np.arange(n), weights


def test_influence_by_hand():
    np.testing.assert_allclose(public.influence(ADJACENCY, LAYERS, WEIGHTS), [0.8 * (0.5 + 0.5 * 0.75), 0.4, 0.1, 0])


def test_influence_is_the_sum_over_all_paths():
    adjacency, _, layers, weights = random_graph()
    share = public.shares(adjacency)
    wanted = weights @ (np.linalg.inv(np.eye(len(share)) - share) - np.eye(len(share)))
    for known in (layers, np.zeros(len(layers), int), -layers):  # edges that lead upwards, within a layer, downwards
        np.testing.assert_allclose(public.influence(adjacency, known, weights), wanted, atol=1e-12)


def test_a_loop_is_refused():
    with pytest.raises(ValueError, match="loop"):
        public.influence(np.array([[0, 1.0], [1.0, 0]]), np.array([0, 1]), np.array([0, 1.0]))
    with pytest.raises(ValueError, match="loop"):
        public.contributions(np.array([[0, 1.0], [1.0, 0]]), np.array([0, 1]), np.ones(2), np.zeros(2), 1)


def test_scores_by_hand():
    total = public.influence(ADJACENCY, LAYERS, WEIGHTS)
    found = public.scores(ADJACENCY, KINDS, WEIGHTS, total)
    assert found["replacement"] == pytest.approx(0.7 / 0.8)
    # influence + weight: token .7, feature .4, error .1, logit .8; explained 1, .75, 1, 1
    assert found["completeness"] == pytest.approx((0.7 + 0.3 + 0.1 + 0.8) / 2.0)
    assert found["completeness_of_inputs"] == pytest.approx((0.3 + 0.8) / 1.2)
    assert "left_out" not in found
    with_left_out = np.array(["left_out", "feature", "error", "logit"])
    found = public.scores(ADJACENCY, with_left_out, WEIGHTS, total)
    assert found["left_out"] == pytest.approx(0.7 / 0.8) and found["replacement"] == 0
    assert found["completeness_of_inputs"] == pytest.approx(0.8 * 0.5 / 1.2)  # half of the logit's inputs: the feature


def test_cumulative_share_and_threshold():
    values = np.array([1.0, 5.0, 3.0, 1.0])
    np.testing.assert_allclose(public.cumulative_share(values), [0.9, 0.5, 0.8, 1.0])
    assert public.threshold_for(values, 0.8) == 3.0
    assert public.threshold_for(values, 0.81) == 1.0
    assert public.threshold_for(values, 1.0) == 1.0


def pruned(adjacency, kinds, layers, weights, node_threshold, edge_threshold):
    """As `AttributionGraph.prune` does it: the nodes that stay, and which of the edges between them."""
    total = public.influence(adjacency, layers, weights)
    stay = public.keep_nodes(total, kinds, node_threshold)
    among = adjacency[np.ix_(stay, stay)]
    kept, edges = public.prune(among, kinds[stay], layers[stay], weights[stay], edge_threshold)
    return stay[kept], edges


def pruned_by_hand(adjacency, kinds, layers, weights, node_threshold, edge_threshold):
    """The definition, node by node and edge by edge: the nodes that stay, and {(target, source)}."""

    def largest(values, share):
        """Those that make up `share` of the total, with what is as large as the last of them."""
        some, total = [], 0.0
        for key in sorted(values, key=lambda key: -values[key]):
            if total >= share * sum(values.values()) - 1e-12 and values[key] < values[some[-1]]:
                break
            some.append(key)
            total += values[key]
        return set(some)

    fixed = set(np.flatnonzero(np.isin(kinds, ["embedding", "logit"])))
    stay = fixed | largest(dict(enumerate(public.influence(adjacency, layers, weights))), node_threshold)
    smaller = np.where([[t in stay and s in stay for s in range(len(kinds))] for t in range(len(kinds))], adjacency, 0)
    share = public.shares(smaller)
    reach = public.influence(smaller, layers, weights) + weights
    edges = largest({(t, s): share[t, s] * reach[t] for t, s in zip(*smaller.nonzero())}, edge_threshold)
    while True:
        sources, targets = {s for _, s in edges}, {t for t, _ in edges}
        left = {n for n in stay if n in fixed or (n in sources and (kinds[n] == "error" or n in targets))}
        if left == stay:
            return stay, edges
        stay, edges = left, {(t, s) for t, s in edges if t in left and s in left}


@pytest.mark.parametrize("node_threshold, edge_threshold", [(0.8, 0.98), (0.5, 0.9), (1.0, 0.95)])
@pytest.mark.parametrize("seed", range(5))
def test_prune_by_its_definition(seed, node_threshold, edge_threshold):
    graph = random_graph(seed=seed)
    kept, edges = pruned(*graph, node_threshold, edge_threshold)
    wanted = pruned_by_hand(*graph, node_threshold, edge_threshold)
    found = {(kept[t], kept[s]) for t, s in zip(*edges.nonzero())}
    assert (set(kept), found) == wanted
    assert 0 < len(found) < np.count_nonzero(graph[0])


def test_a_graph_without_edges_keeps_its_tokens_and_logits():
    kept, edges = pruned(np.zeros((4, 4)), KINDS, LAYERS, WEIGHTS, 0.8, 0.98)
    assert kept.tolist() == [0, 3] and not edges.any()


def test_contributions_by_hand():
    """Feature 1 is on with 3: token 0 gives it 3, error 2 takes 1, its bias adds 1. The logit has 2 of either, and a
    bias of .5."""
    activations, biases = np.array([0, 3, 0, 4.5]), np.array([0, 1, 0, 0.5])
    effects, from_biases = public.contributions(ADJACENCY, LAYERS, activations, biases, 3)
    np.testing.assert_allclose(effects, [2 + 2 * 3 / 3, 2, -2 / 3, 4.5])
    assert from_biases == pytest.approx(0.5 + 2 / 3)
    assert effects[0] + effects[2] + from_biases == pytest.approx(4.5)
    found = public.conditioning(effects, KINDS, 3)
    assert found == pytest.approx({"absolute": 4 + 2 / 3, "target": 4.5, "ratio": (4 + 2 / 3) / 4.5})


def test_contributions_are_the_sum_over_all_paths():
    adjacency, kinds, layers, _ = random_graph()
    activations = np.random.default_rng(1).uniform(0.5, 2, len(adjacency))
    wanted = np.linalg.inv(np.eye(len(adjacency)) - adjacency / activations[:, None])[-1] * activations[-1]
    found, _ = public.contributions(adjacency, layers, activations, np.zeros(len(adjacency)), len(adjacency) - 1)
    np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_effects_by_hops_are_the_powers_and_add_up_to_contributions():
    adjacency, kinds, layers, _ = random_graph()
    activations = np.random.default_rng(1).uniform(0.5, 2, len(adjacency))
    last, step = len(adjacency) - 1, adjacency / activations[:, None]
    found = list(public.effects_by_hops(adjacency, activations, last))
    for hops, effects in enumerate(found, 1):
        np.testing.assert_allclose(effects, np.linalg.matrix_power(step, hops)[last] * activations[last], atol=1e-10)
    wanted, _ = public.contributions(adjacency, layers, activations, np.zeros(len(adjacency)), last)
    np.testing.assert_allclose(np.sum(found, 0), np.where(np.arange(len(adjacency)) == last, 0, wanted), atol=1e-10)
    assert len(found) > 3


def test_effects_by_hops_end_in_a_graph_with_a_loop():
    assert len(list(public.effects_by_hops(np.array([[0, 1.0], [1.0, 0]]), np.ones(2), 1))) == 2
