import numpy as np
import psutil
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.attribution import Attribution, Logits
from interp_kit.models.frozen import FrozenModel, frozen_attention, in_dtype

PROMPT = "the capital of Texas is"
CASES = {
    "cross-layer": {},
    "per-layer": {"span": 1},
    "span 2": {"span": 2},
    "threshold": {"activation": "threshold"},
    "relu, raw residual": {"activation": "relu", "reads": "hook_resid_mid"},
    "some layers": {"layers": [1, 3]},
    "first position left out": {"skips_first": True},
}
FAMILIES = ["llama", "mistral", "qwen2", "qwen3"]


def frozen_forward(attribution, features, embeddings, errors):
    """The local replacement model written the obvious way, for autograd: inputs to every encoder, and logits.

    Frozen attention patterns and norm scales; MLP outputs are features times decoders, biases and errors. `features`
    are given values, not recomputed, so that an effect never passes through another feature.
    """
    frozen, clt = attribution.frozen, attribution.transcoder
    stream, inputs = embeddings, []
    for layer, block in enumerate(frozen.parts.blocks):
        x = stream * frozen.attention_scale[layer][:, None] * block.attention_norm.weight
        value = block.attention.v_proj(x).view(len(x), -1, block.attention.head_dim)
        value = value.repeat_interleave(frozen.patterns[layer].shape[0] // value.shape[1], dim=1)
        mixed = torch.einsum("hqk,khw->qhw", frozen.patterns[layer], value)
        stream = stream + block.attention.o_proj(mixed.flatten(1))
        normed = stream * frozen.mlp_scale[layer][:, None] * block.mlp_norm.weight
        inputs.append(normed if clt.config.reads == "mlp.hook_in" else stream)
        stream = stream + errors[layer]
        if layer in clt.layers:
            target = clt.layers.index(layer)
            keep = torch.ones(len(x), 1)
            keep[0] = 1 - int(clt.config.skips_first)
            stream = stream + keep.to(stream) * clt.b_dec[target]
            for source in range(target + 1):
                if target - source < clt.config.span:
                    stream = stream + features[source] @ clt.W_dec[source][:, target - source]
    logits = (stream * frozen.final_scale[:, None] * frozen.parts.final_norm.weight) @ frozen.parts.unembedding.weight.T
    return torch.stack(inputs), logits


def parts_of(family="llama", **case):
    model = tiny_model(family)
    clt = tiny_transcoder(model, **case).double()
    frozen = FrozenModel(model, PROMPT, torch.float64)
    attribution = Attribution(model, clt, frozen, PROMPT)
    features = torch.zeros(len(clt.layers), frozen.n_positions, clt.n_features, dtype=torch.float64)
    features[attribution.source, attribution.position, attribution.feature] = attribution.activation
    return attribution, features


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_incoming_edges_and_bias_sum_to_the_preactivation(family, case):
    model = tiny_model(family)
    graph = ik.attribute(model, tiny_transcoder(model, **CASES[case]), PROMPT, dtype=torch.float64)
    targets = graph.nodes["kind"].isin(["feature", "logit"]).to_numpy()
    total = graph.adjacency.sum(1) + graph.nodes["bias"].to_numpy()
    wanted = graph.nodes["activation"].to_numpy()
    assert targets.sum() > 15
    np.testing.assert_allclose(total[targets], wanted[targets], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_edges_equal_autograd_through_an_independent_forward(case):
    attribution, features = parts_of(**CASES[case])
    graph = attribution.graph()
    frozen, clt = attribution.frozen, attribution.transcoder
    leaves = [features, frozen.embeddings.clone(), attribution.error]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    inputs, logits = frozen_forward(attribution, *leaves)
    n, n_logits = attribution.n_features, len(attribution.logits.ids)
    readouts = [
        inputs[attribution.layer[i], attribution.position[i]] @ clt.W_enc[attribution.source[i], attribution.feature[i]]
        for i in range(n)
    ] + [logits[-1, v] - logits[-1].mean() for v in attribution.logits.ids]
    rows = []
    for readout in readouts:
        gradients = torch.autograd.grad(readout, leaves, retain_graph=True, allow_unused=True)
        effect = [torch.zeros_like(a) if g is None else g * a for g, a in zip(gradients, leaves, strict=True)]
        on_features = effect[0][attribution.source, attribution.position, attribution.feature]
        rows.append(torch.cat([on_features, effect[2].sum(-1).flatten(), effect[1].sum(-1)]))
    wanted = torch.stack(rows).detach().numpy()
    found = np.concatenate([graph.adjacency[:n, :-n_logits], graph.adjacency[-n_logits:, :-n_logits]])
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_with_error_nodes_the_local_replacement_gives_the_models_logits(family, case):
    attribution, features = parts_of(family, **CASES[case])
    _, logits = frozen_forward(attribution, features, attribution.frozen.embeddings, attribution.error)
    model_logits = tiny_model(family).logits(PROMPT).double()
    torch.testing.assert_close(logits, attribution.frozen.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits, model_logits, rtol=1e-4, atol=1e-4)  # the model itself runs in float32


def test_without_error_nodes_it_does_not():
    attribution, features = parts_of()
    _, logits = frozen_forward(attribution, features, attribution.frozen.embeddings, 0 * attribution.error)
    assert (logits - attribution.frozen.logits).abs().max() > 0.1


def test_float32_agrees_with_float64():
    model = tiny_model()
    clt = tiny_transcoder(model)
    single, double = (ik.attribute(model, clt, PROMPT, dtype=d) for d in (torch.float32, torch.float64))
    assert single.adjacency.dtype == np.float32 and double.adjacency.dtype == np.float64
    scale = np.abs(double.adjacency).max()
    assert np.abs(single.adjacency - double.adjacency).max() < 1e-5 * scale


def test_blocks_of_targets_change_nothing(monkeypatch):
    model = tiny_model()
    clt = tiny_transcoder(model)
    whole = ik.attribute(model, clt, PROMPT, dtype=torch.float64)
    monkeypatch.setattr("interp_kit.graphs.attribution.BLOCK_BYTES", 7 * 6 * 16 * 8)  # seven targets at a time
    np.testing.assert_allclose(
        ik.attribute(model, clt, PROMPT, dtype=torch.float64).adjacency, whole.adjacency, rtol=1e-12
    )


def test_an_edge_never_goes_down_in_layer_or_back_in_position():
    model = tiny_model()
    graph = ik.attribute(model, tiny_transcoder(model), PROMPT)
    table = graph.edges.merge(graph.nodes.add_prefix("s_"), left_on="source", right_on="s_id")
    table = table.merge(graph.nodes.add_prefix("t_"), left_on="target", right_on="t_id")
    assert (table["s_position"] <= table["t_position"]).all()
    below = table["s_layer"] < table["t_layer"]
    assert below.all()


def test_logits_are_the_fewest_that_reach_the_share():
    logits = torch.log(torch.tensor([0.02, 0.6, 0.3, 0.06, 0.02]))
    assert Logits.choose(logits).ids.tolist() == [1, 2, 3]
    flat = Logits.choose(torch.zeros(100))
    assert len(flat.ids) == 10 and flat.values.abs().max() == 0


def test_frozen_attention_gives_the_models_own_logits_and_is_undone():
    model = tiny_model("qwen2")
    frozen = FrozenModel(model, PROMPT)
    with frozen_attention(model.hf, frozen.patterns):
        inside = model.hf(input_ids=frozen.ids[None]).logits[0]
    torch.testing.assert_close(inside, frozen.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.logits(PROMPT), frozen.logits)


def test_float64_copy_computes_norms_in_float64():
    model = tiny_model()
    norm = in_dtype(model.hf, torch.float64).model.norm
    x = torch.randn(3, 16, dtype=torch.float64)
    wanted = x * (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt() * norm.weight
    torch.testing.assert_close(norm(x), wanted, rtol=1e-13, atol=0)


# ------------------------------------------------------------------ bad input


def test_bad_prompts():
    model = tiny_model()
    clt = tiny_transcoder(model)
    with pytest.raises(ValueError, match="has no tokens"):
        ik.attribute(model, clt, "")
    with pytest.raises(TypeError, match="string"):
        ik.attribute(model, clt, 7)
    with pytest.raises(ValueError, match="32"):
        ik.attribute(model, clt, "the " * 40)


def test_another_models_transcoder():
    model, other, wider = tiny_model(seed=0), tiny_model(seed=5), tiny_model(hidden_size=32, head_dim=8)
    with pytest.raises(ValueError, match="other weights"):
        ik.attribute(model, tiny_transcoder(other), PROMPT)
    with pytest.raises(ValueError, match="d_model 32"):
        ik.attribute(model, tiny_transcoder(wider), PROMPT)


def test_a_graph_that_does_not_fit_says_what_it_needs_before_computing(monkeypatch):
    model = tiny_model()

    class Little:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    monkeypatch.setattr(Attribution, "_sweep_all", lambda self: pytest.fail("it computed"))
    with pytest.raises(MemoryError, match=r"needs about .* GB .* are free"):
        ik.attribute(model, tiny_transcoder(model), PROMPT)


def test_an_unsupported_family_is_named():
    from tiny import tiny_tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    from interp_kit.models import LanguageModel

    hf = GPT2LMHeadModel(GPT2Config(vocab_size=15, n_embd=16, n_layer=4, n_head=2, n_positions=32))
    model = LanguageModel(hf, tiny_tokenizer(), "tiny-gpt2")
    with pytest.raises(ValueError, match="gpt2"):
        ik.attribute(model, tiny_transcoder(model), PROMPT)
