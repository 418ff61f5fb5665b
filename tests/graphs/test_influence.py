"""The public definitions, checked against graphs small enough to work out by hand and against matrix inverses."""

import numpy as np
import pytest

from interp_kit.graphs import influence as public

# token 0 -> feature 1 (3), error 2 -> feature 1 (-1), feature 1 -> logit 3 (2), token 0 -> logit 3 (2)
ADJACENCY = np.array([[0, 0, 0, 0], [3, 0, -1, 0], [0, 0, 0, 0], [2, 2, 0, 0]], dtype=float)
KINDS = np.array(["embedding", "feature", "error", "logit"])
WEIGHTS = np.array([0, 0, 0, 0.8])


def random_graph(n=40, seed=0):
    rng = np.random.default_rng(seed)
    adjacency = np.tril(rng.normal(size=(n, n)), -1) * (rng.random((n, n)) < 0.4)
    kinds = np.array(["embedding"] * 6 + ["error"] * 8 + ["feature"] * (n - 17) + ["logit"] * 3)
    adjacency[:14] = 0
    adjacency[-3:, -3:] = 0
    weights = np.zeros(n)
    weights[-3:] = [0.6, 0.3, 0.06]
    return adjacency, kinds, weights


def test_influence_by_hand():
    np.testing.assert_allclose(
        public.influence(public.shares(ADJACENCY), WEIGHTS), [0.8 * (0.5 + 0.5 * 0.75), 0.4, 0.1, 0]
    )


def test_influence_is_the_sum_over_all_paths():
    adjacency, _, weights = random_graph()
    share = public.shares(adjacency)
    wanted = weights @ (np.linalg.inv(np.eye(len(share)) - share) - np.eye(len(share)))
    np.testing.assert_allclose(public.influence(public.shares(adjacency), weights), wanted, atol=1e-12)


def test_a_loop_is_refused():
    with pytest.raises(ValueError, match="loop"):
        public.influence(np.array([[0, 1.0], [1.0, 0]]), np.array([0, 1.0]))


def test_scores_by_hand():
    share = public.shares(ADJACENCY)
    found = public.scores(share, KINDS, WEIGHTS, public.influence(share, WEIGHTS))
    assert found["replacement"] == pytest.approx(0.7 / 0.8)
    # influence + weight: token .7, feature .4, error .1, logit .8; explained 1, .75, 1, 1
    assert found["completeness"] == pytest.approx((0.7 + 0.3 + 0.1 + 0.8) / 2.0)
    assert found["completeness_of_inputs"] == pytest.approx((0.3 + 0.8) / 1.2)


def test_cumulative_share_and_threshold():
    values = np.array([1.0, 5.0, 3.0, 1.0])
    np.testing.assert_allclose(public.cumulative_share(values), [0.9, 0.5, 0.8, 1.0])
    assert public.threshold_for(values, 0.8) == 3.0
    assert public.threshold_for(values, 0.81) == 1.0
    assert public.threshold_for(values, 1.0) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_prune_keeps_the_asked_share_and_leaves_no_loose_ends(seed):
    adjacency, kinds, weights = random_graph(seed=seed)
    keep, edges = public.prune(adjacency, kinds, weights, 0.8, 0.98)
    total = public.influence(public.shares(adjacency), weights)
    assert keep[(kinds == "embedding") | (kinds == "logit")].all()
    assert not (edges & ~(keep[:, None] & keep)).any() and not edges[adjacency == 0].any()
    inner = keep & (kinds == "feature")
    assert edges.any(0)[keep & np.isin(kinds, ["feature", "error"])].all() and edges.any(1)[inner].all()
    for node in np.flatnonzero(~keep):  # what went is less influential, or hangs loose
        least = total[keep & np.isin(kinds, ["feature", "error"])].min()
        assert total[node] <= least or not edges[:, node].any()
    everything, _ = public.prune(adjacency, kinds, weights, 1.0, 1.0)
    assert everything.sum() >= keep.sum()
