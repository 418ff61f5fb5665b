"""Circuits of components: the split run is the model, the scores are derivatives, the areas are MIB's."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from interp_kit.studies.component_circuits import Components, areas, edge_faithfulness, edge_scores

CLEAN, CORRUPT = "the capital of Texas is", "the capital of Dallas is"


def setting(family="llama"):
    model = tiny_model(family)
    ids = [model.encode(text) for text in (CLEAN, CORRUPT)]
    components, other = (Components(model, i) for i in ids)
    metric = torch.zeros(model.hf.config.vocab_size)
    metric[5], metric[9] = 1, -1
    return model, ids, components, components.embedded, other.embedded, metric


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_with_all_edges_it_is_the_model(family):
    model, ids, components, clean, corrupt, _ = setting(family)
    for embeddings, prompt in ((clean, ids[0]), (corrupt, ids[1])):
        with torch.no_grad():
            wanted = model.hf(input_ids=prompt[None]).logits[0, -1]
        np.testing.assert_allclose(components.run(embeddings)[0].detach(), wanted, rtol=1e-3, atol=1e-4)


def test_without_an_edge_it_is_the_corrupted_run():
    """Every receiver then reads what the senders wrote there, the logits too."""
    _, _, components, clean, corrupt, _ = setting()
    other = components.run(corrupt)
    found = components.run(clean, torch.zeros_like(components.edges), other[1])[0]
    np.testing.assert_allclose(found.detach(), other[0].detach(), rtol=1e-4, atol=1e-4)


def test_edges_lead_upwards_and_from_heads_to_their_mlp():
    _, _, components, *_ = setting()
    n_heads, n_layers = components.n_heads, components.n_layers
    per_layer = [n_heads * (1 + l * (n_heads + 1)) + 1 + l * (n_heads + 1) + n_heads for l in range(n_layers)]
    assert int(components.edges.sum()) == sum(per_layer) + 1 + n_layers * (n_heads + 1)


def test_eap_is_the_derivative_of_patching_an_edge():
    """A little of the corrupted input through one edge moves the metric by a little of its score."""
    _, _, components, clean, corrupt, metric = setting()
    scores = edge_scores(components, clean, corrupt, metric, "EAP")
    written, other = components.run(clean)[1].detach(), components.run(corrupt)[1].detach()
    little = 1e-3
    mixed = written + little * (other - written)
    base = float(components.run(clean)[0].double() @ metric.double())
    strongest = scores.flatten().topk(3).indices.numpy()
    for receiver, sender in zip(*np.unravel_index(strongest, scores.shape)):
        kept = torch.ones_like(components.edges)
        kept[receiver, sender] = False
        moved = float(components.run(clean, kept, mixed)[0].double() @ metric.double()) - base
        assert abs(moved) / little == pytest.approx(float(scores[receiver, sender]), rel=0.05)


def test_better_orders_are_more_faithful():
    _, _, components, clean, corrupt, metric = setting()
    found = {m: edge_scores(components, clean, corrupt, metric, m) for m in ("EAP", "EAP-IG", "random")}
    areas_of = {m: areas(edge_faithfulness(components, clean, corrupt, metric, s))["CMD"] for m, s in found.items()}
    assert areas_of["EAP-IG"] < areas_of["random"] and areas_of["EAP"] < areas_of["random"]
    assert edge_faithfulness(components, clean, corrupt, metric, found["EAP"])[-1] == pytest.approx(1)


def test_areas_by_hand():
    assert areas(np.array([1.0, 1.0]), [0.5, 1.0]) == pytest.approx({"CPR": 0.75, "CMD": 0.25})
    assert areas(np.array([2.0, 1.0]), [0.5, 1.0]) == pytest.approx({"CPR": 1.25, "CMD": 0.75})


def test_families_that_are_not_split():
    with pytest.raises(NotImplementedError, match="circuits of 'gemma2' models"):
        Components(tiny_model("gemma2"), tiny_model("gemma2").encode(CLEAN))
