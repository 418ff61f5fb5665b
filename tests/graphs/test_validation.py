import numpy as np
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.validation import Validation, agreement

PROMPT = "the capital of Texas is"
EVERYTHING = range(4)


def test_with_everything_frozen_measured_is_the_edge(setting):
    model, clt, graph = setting
    found = ik.validate(graph, model, clt, constrained_layers=EVERYTHING)
    place = {node: i for i, node in enumerate(graph.nodes["id"])}
    for row in found.effects.sample(200, random_state=0).itertuples():
        edge = graph.adjacency[place[row.target], place[row.source]]
        assert row.direct == pytest.approx(-edge, rel=1e-5)
        assert row.measured == pytest.approx(-edge, rel=1e-3, abs=1e-3)
    logits = set(graph.logits["id"])
    assert logits <= set(found.effects["target"]) and not logits & set(found.effects["source"])
    assert (found.effects["distance"] > 0).all()


def test_in_a_model_that_is_its_own_transcoder_predictions_hold_over_all_paths():
    """MLPs that are sparse linear features with all features on: ablation then spreads exactly as the graph says."""
    model = tiny_model(rms_norm_eps=1e6)  # so large that the norms' denominators hardly change
    for name, parameter in model.hf.named_parameters():
        parameter.data *= 1e3 if "norm" in name else 1
    clt = tiny_transcoder(model, activation="relu", span=1, n_features=6)
    clt.b_enc += 1000  # every feature far above zero, and small decoders: nothing switches off on the way
    for decoder in clt.W_dec:
        decoder *= 6e-4
    handles = []
    for layer, block in enumerate(model.hf.model.layers):

        def as_features(_, args, out, layer=layer):
            return clt.encode_layer(layer, args[0]) @ clt.W_dec[layer][:, 0] + clt.b_dec[layer]

        handles.append(block.mlp.register_forward_hook(as_features))
    try:
        graph = ik.attribute(model, clt, PROMPT)
        assert np.abs(graph.adjacency[:, graph.kinds == "error"]).max() < 1e-3
        names = graph.nodes.loc[graph.nodes["layer"] == 0, "id"].iloc[[0, 9, 20]].tolist()
        found = ik.validate(graph, model, clt, nodes=names)
    finally:
        for handle in handles:
            handle.remove()
    far = found.effects[(found.effects["distance"] > 1) & (found.effects["predicted"].abs() > 1e-3)]
    assert len(far) > 50
    np.testing.assert_allclose(far["measured"], far["predicted"], rtol=2e-2, atol=2e-2)
    assert (far["direct"] - far["predicted"]).abs().max() > 0.01  # the indirect paths matter


def test_supernodes_go_off_together_and_count_together(setting):
    model, clt, graph = setting
    here = graph.features["position"] == 4
    early = graph.nodes[here & (graph.nodes["layer"] == 0)]["id"].tolist()
    late = graph.nodes[here & (graph.nodes["layer"] == 2)]["id"].tolist()
    grouped = graph.group({"early": early, "late": late})
    found = ik.validate(grouped, model, clt, constrained_layers=EVERYTHING)
    assert not set(early + late) & set(found.nodes["node"])
    row = found.effects.query("source == 'early' and target == 'late'").iloc[0]
    place = {node: i for i, node in enumerate(graph.nodes["id"])}
    edges = graph.adjacency[np.ix_([place[i] for i in late], [place[i] for i in early])]
    assert row["measured"] == pytest.approx(-edges.sum(), rel=1e-3)
    assert row["predicted"] != pytest.approx(row["direct"])  # layer 1 lies between


def test_agreement_by_hand():
    perfect = agreement([1.0, -2.0, 3.0], [1.0, -2.0, 3.0])
    assert perfect == {"spearman": pytest.approx(1), "cosine": pytest.approx(1), "nmse": pytest.approx(0)}
    half = agreement([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert half["cosine"] == pytest.approx(1) and half["nmse"] == pytest.approx(0.25)
    assert agreement([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])["spearman"] == pytest.approx(-1)


def test_edges_not_to_trust():
    import pandas as pd

    columns = ["source", "target", "distance", "share", "direct", "predicted", "measured"]
    rows = [
        ("a", "b", 1, 0.5, -1.0, -1.0, -1.1),  # true
        ("a", "c", 2, 0.5, -1.0, -1.0, 0.5),  # the other way
        ("a", "d", 2, 0.5, -1.0, -1.0, -4.0),  # too much
        ("a", "e", 2, 0.5, -1.0, -1.0, -0.1),  # too little
        ("a", "f", 2, 0.01, -1.0, -1.0, 9.0),  # no claim
    ]
    found = Validation(pd.DataFrame(rows, columns=columns), pd.DataFrame()).distrust()
    assert dict(zip(found["target"], found["why"], strict=True)) == {
        "d": "more than 2 times as much",
        "c": "the other way",
        "e": "less than 1/2 as much",
    }


def test_ablation_is_the_divergence_of_the_next_token(setting):
    model, clt, graph = setting
    node = graph.nodes["id"].iloc[3]
    found = ik.validate(graph, model, clt, nodes=[node])
    after = ik.intervene(model, clt, PROMPT, ik.Steer(node, 0.0)).after.logits[-1].log_softmax(-1)
    before = model.logits(PROMPT)[-1].log_softmax(-1)
    wanted = (before.exp() * (before - after)).sum()
    assert found.nodes["ablation"].iloc[0] == pytest.approx(wanted.item(), rel=1e-3)
    assert found.nodes["influence"].iloc[0] == graph.nodes["influence"].iloc[3]


def test_it_shows_itself(setting):
    model, clt, graph = setting
    found = ik.validate(graph.prune(), model, clt)
    assert "Spearman" in found._repr_html_() and found.by_distance["distance"].iloc[-1] == "all"
    assert len(found.show().data[1].x) == len(found.effects)
    assert -1 <= found.spearman <= 1


def test_bad_input(setting, monkeypatch):
    model, clt, graph = setting
    with pytest.raises(ValueError, match="neither a feature nor a supernode"):
        ik.validate(graph, model, clt, nodes=["E_0_0"])
    with pytest.raises(ValueError, match="nothing to switch off"):
        ik.validate(graph.prune(0.0), model, clt)
    with pytest.raises(ValueError, match="the graph and the transcoder do not belong together"):
        ik.validate(graph, model, tiny_transcoder(model, seed=9))
    other = tiny_model(seed=5)
    with pytest.raises(ValueError, match="the graph and the model do not belong together"):
        ik.validate(graph, other, tiny_transcoder(other))
    monkeypatch.setattr("interp_kit.graphs.validation.MAX_EFFECTS", 100)
    with pytest.raises(ValueError, match="pruned"):
        ik.validate(graph, model, clt)


def test_hops_are_the_length_of_the_paths_that_carry_the_most(setting):
    """Against the powers of the matrix of edges, feature by feature."""
    model, clt, graph = setting
    small = graph.prune(1.0, 1.0, max_nodes=40)
    effects = ik.validate(small, model, clt).effects
    rows = small.kinds != "error"
    rows &= small.kinds != "embedding"
    place = {node: i for i, node in enumerate(small.nodes["id"][rows])}
    activation = small.nodes["activation"][rows].to_numpy()
    step = small.adjacency[np.ix_(rows, rows)].astype(float) / activation
    powers = [np.linalg.matrix_power(step, n) for n in range(1, 6)]
    for row in effects.sample(80, random_state=0).itertuples():
        arrives = [-power[place[row.target], place[row.source]] * activation[place[row.source]] for power in powers]
        assert row.predicted == pytest.approx(sum(arrives), rel=1e-6, abs=1e-9)
        assert row.hops == (0 if not any(arrives) else 1 + np.abs(arrives).argmax())
    assert set(effects["hops"]) >= {1, 2}


def test_agreement_by_hops(setting):
    model, clt, graph = setting
    found = ik.validate(graph.prune(max_nodes=40), model, clt)
    table = found.by_hops
    assert table["hops"].tolist()[-1] == "all" and table["pairs"].iloc[:-1].sum() == (found.effects["hops"] > 0).sum()
    one = found.effects[found.effects["hops"] == 1]
    assert table["spearman"].iloc[0] == pytest.approx(agreement(one["predicted"], one["measured"])["spearman"])


def test_a_direction_is_measured_too(setting):
    """With everything frozen, what switching a feature off does to a direction is the graph's edge."""
    model, clt, _ = setting
    graph = ik.attribute(model, clt, PROMPT, np.linspace(-1, 1, model.d_model))
    found = ik.validate(graph, model, clt, constrained_layers=EVERYTHING).effects
    rows = found[found["target"] == graph.logits["id"].iloc[0]]
    assert len(rows) > 20
    np.testing.assert_allclose(rows["measured"], rows["direct"], rtol=2e-3, atol=2e-4)
