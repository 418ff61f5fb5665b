import numpy as np
import psutil
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs.attribution import assemble
from interp_kit.graphs.explained import choose_logits
from interp_kit.graphs.nodes import find_nodes
from interp_kit.graphs.sweep import FeatureOutputs, Sweep
from interp_kit.models.frozen.autograd import Autograd
from interp_kit.models.frozen.freezing import frozen_attention
from interp_kit.models.frozen.model import FrozenModel, in_dtype

PROMPT = "the capital of Texas is"
CASES = {
    "cross-layer": {},
    "per-layer": {"span": 1},
    "span 2": {"span": 2},
    "threshold": {"activation": "jumprelu"},
    "relu, raw residual": {"activation": "relu", "feature_input_hook": "hook_resid_mid"},
    "normalised": {"feature_input_hook": "ln2.hook_normalized"},
    "some layers": {"layers": [1, 3]},
    "first position left out": {"excludes_first_position": True},
    "skip, per-layer": {"skip": True, "span": 1, "feature_input_hook": "ln2.hook_normalized"},
    "skip, cross-layer": {"skip": True, "excludes_first_position": True},
}
# Tiny models of each family; the changes switch on what is particular to it.
FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 3},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"sliding_window": 3, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {"sliding_window": 3},
    "gpt2": {},
    "gpt_neox": {"use_parallel_residual": True},
    "gpt_neox, sequential": {"use_parallel_residual": False},
}
UNLISTED = {"granite": {"residual_multiplier": 0.7, "embedding_multiplier": 1.5}, "stablelm": {}, "starcoder2": {}}


def model_of(family):
    return tiny_model(family.split(",")[0], **(FAMILIES | UNLISTED)[family])


def stream_forward(sweep, features, embeddings, errors):
    """The local replacement model as transformers runs it: the real blocks, attention frozen at the prompt's patterns
    and norms at the prompt's denominators, each MLP writing features times decoders, biases and errors.

    `features` are given values, not recomputed, so that an effect never passes through another feature. Returns what
    every encoder reads and the last residual stream. It shares with the kit the attention interface, and nothing else.
    """
    frozen, clt = sweep.frozen, sweep.transcoder
    inputs, undo, current = [], [], {}

    def freeze(module):
        seen = {}

        def forward(x):
            centred = x - x.mean(-1, keepdim=True) if isinstance(module, torch.nn.LayerNorm) else x
            if "scale" not in seen:  # the first call is the plain run on the prompt
                eps = getattr(module, "variance_epsilon", None) or module.eps
                seen["scale"] = (centred.pow(2).mean(-1, keepdim=True) + eps).rsqrt().detach()
            gain = 1 + module.weight if "Gemma" in type(module).__name__ else module.weight
            bias = getattr(module, "bias", None)
            return centred * seen["scale"] * gain + (0 if bias is None else bias)

        undo.append((module, vars(module).get("forward")))
        module.forward = forward

    def mlp(layer):
        def write(out):
            if "plain" in current:
                return None
            rebuilt = errors[layer] + 0 * out[0]
            if layer in clt.layers:
                index = clt.layers.index(layer)
                rest = clt.b_dec[index].expand_as(rebuilt)
                if clt.W_skip is not None:
                    rest = rest + inputs[layer] @ clt.W_skip[index].T
                keep = torch.ones(len(rebuilt), 1).to(rest)
                keep[0] = 1 - int(clt.config.excludes_first_position)
                rebuilt = rebuilt + keep * rest
                for source in range(index + 1):
                    if index - source < clt.config.span:
                        rebuilt = rebuilt + features[source] @ clt.W_dec[source][:, index - source]
            return rebuilt[None]

        return write

    hf, parts, handles = frozen.hf, frozen.parts, []
    for module in hf.modules():
        if "Norm" in type(module).__name__:
            freeze(module)
    for layer, block in enumerate(parts.blocks):
        if (
            clt.config.feature_input_hook == "ln2.hook_normalized"
        ):  # undo gain and bias, which is not how the kit gets there
            gain = 1 + block.mlp_norm.weight if "Gemma" in type(block.mlp_norm).__name__ else block.mlp_norm.weight
            bias = getattr(block.mlp_norm, "bias", None)
            take = lambda _, args, out, g=gain, b=bias: inputs.append((out[0] - (0 if b is None else b)) / g)  # noqa: E731
            handles.append(block.mlp_norm.register_forward_hook(take))
        else:
            at = block.mlp if clt.config.feature_input_hook == "mlp.hook_in" else block.mlp_norm
            handles.append(at.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0])))
        write = mlp(layer)
        handles.append(block.writer.register_forward_hook(lambda _, args, out, write=write: write(out)))
    final = []
    handles.append(parts.final_norm.register_forward_pre_hook(lambda _, args: final.append(args[0][0])))
    positions = 0 if parts.positions is None else parts.positions.weight[: len(embeddings)]

    def own_embeddings(_, args, named):
        return None if "plain" in current else (((embeddings + positions)[None], *args[1:]), named)

    handles.append(parts.blocks[0].layer.register_forward_pre_hook(own_embeddings, with_kwargs=True))
    try:
        with frozen_attention(hf, frozen.patterns), torch.enable_grad():
            current["plain"] = True
            hf(input_ids=frozen.ids[None], use_cache=False)
            del current["plain"]
            inputs.clear()
            final.clear()
            hf(input_ids=frozen.ids[None], use_cache=False)
            logits = parts.unembedding(parts.final_norm(final[0][None]))[0]
    finally:
        for handle in handles:
            handle.remove()
        for module, forward in undo:
            del module.forward
            if forward is not None:
                module.forward = forward
    return torch.stack(inputs), logits


def sweep_of(family="llama", **case):
    """A sweep in float64, and the activations [layer, position, feature] of its features."""
    model = model_of(family)
    clt = tiny_transcoder(model, **case).double()
    frozen = FrozenModel(model, PROMPT, torch.float64)
    sweep = Sweep(frozen, clt, find_nodes(frozen, clt), budget=1e9)
    activations = torch.zeros(len(clt.layers), frozen.n_positions, clt.n_features, dtype=torch.float64)
    found = sweep.nodes.features
    activations[found.source, found.position, found.feature] = found.activation
    return model, sweep, activations


def whole_graph(model, sweep):
    rows = sweep.rows(torch.arange(sweep.nodes.n_targets))
    return assemble(model, PROMPT, model.about, sweep, torch.arange(len(sweep.nodes.features)), rows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", [*FAMILIES, *UNLISTED])
def test_incoming_edges_and_bias_sum_to_the_preactivation(family, case):
    model = model_of(family)
    graph = ik.attribute(model, tiny_transcoder(model, **CASES[case]), PROMPT, dtype=torch.float64)
    targets = graph.nodes["kind"].isin(["feature", "logit"]).to_numpy()
    total = graph.adjacency.sum(1) + graph.nodes["bias"].to_numpy()
    wanted = graph.nodes["activation"].to_numpy()
    assert targets.sum() > 15
    np.testing.assert_allclose(total[targets], wanted[targets], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_algebra_and_autograd_agree(family, case, monkeypatch):
    model = model_of(family)
    clt = tiny_transcoder(model, **CASES[case])
    algebra = ik.attribute(model, clt, PROMPT, dtype=torch.float64)
    monkeypatch.setattr("interp_kit.graphs.sweep.linear_maps", Autograd)
    autograd = ik.attribute(model, clt, PROMPT, dtype=torch.float64)
    scale = np.abs(algebra.adjacency).max()
    np.testing.assert_allclose(autograd.adjacency, algebra.adjacency, rtol=1e-8, atol=1e-12 * scale)
    np.testing.assert_allclose(autograd.nodes["bias"], algebra.nodes["bias"], rtol=1e-8, atol=1e-12 * scale)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", [*FAMILIES, *UNLISTED])
def test_edges_equal_autograd_through_an_independent_forward(family, case):
    model, sweep, activations = sweep_of(family, **CASES[case])
    graph = whole_graph(model, sweep)
    clt, frozen, features, logits = sweep.transcoder, sweep.frozen, sweep.nodes.features, sweep.nodes.logits
    leaves = [activations, frozen.embeddings, sweep.errors_and_constants[:, :, 0]]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    inputs, final = stream_forward(sweep, *leaves)
    n, n_logits = len(features), len(logits)
    readouts = [
        inputs[features.layer[i], features.position[i]] @ clt.W_enc[features.source[i], features.feature[i]]
        for i in range(n)
    ] + [final[-1, v] - final[-1].mean() for v in logits.ids]
    rows = []
    for readout in readouts:
        gradients = torch.autograd.grad(readout, leaves, retain_graph=True, allow_unused=True)
        effect = [torch.zeros_like(a) if g is None else g * a for g, a in zip(gradients, leaves, strict=True)]
        on_features = effect[0][features.source, features.position, features.feature]
        rows.append(torch.cat([on_features, effect[2].sum(-1).flatten(), effect[1].sum(-1)]))
    wanted = torch.stack(rows).detach().numpy()
    found = np.concatenate([graph.adjacency[:n, :-n_logits], graph.adjacency[-n_logits:, :-n_logits]])
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-11)
    values = torch.stack(readouts).detach().numpy() + np.r_[features.encoder_bias, np.zeros(n_logits)]
    wanted = [*graph.features["activation"], *graph.logits["activation"]]
    np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-9)


def test_without_error_nodes_it_does_not():
    _, sweep, activations = sweep_of()
    _, logits = stream_forward(sweep, activations, sweep.frozen.embeddings, 0 * sweep.errors_and_constants[:, :, 0])
    assert (logits - sweep.frozen.logits).abs().max() > 0.1


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
    monkeypatch.setattr("interp_kit.graphs.sweep.GRADIENT_BYTES", 7 * 6 * 16 * 8)  # seven targets at a time
    monkeypatch.setattr("interp_kit.graphs.sweep.MIN_BLOCK_TARGETS", 7)
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
    ids, probabilities = choose_logits(logits)
    assert ids.tolist() == [1, 2, 3] and probabilities.tolist() == pytest.approx([0.6, 0.3, 0.06])
    assert len(choose_logits(torch.zeros(100))[0]) == 10


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
    with pytest.raises(TypeError, match="whole numbers"):
        ik.attribute(model, clt, 7.5)
    with pytest.raises(TypeError, match="one prompt, as a string or as the ids"):
        ik.attribute(model, clt, [PROMPT, PROMPT])
    with pytest.raises(ValueError, match="32"):
        ik.attribute(model, clt, "the " * 40)


def test_another_models_transcoder():
    model, other, wider = tiny_model(seed=0), tiny_model(seed=5), tiny_model(hidden_size=32, head_dim=8)
    with pytest.raises(ValueError, match="do not belong together"):
        ik.attribute(model, tiny_transcoder(other), PROMPT)
    with pytest.raises(ValueError, match="d_model 32"):
        ik.attribute(model, tiny_transcoder(wider), PROMPT)


def test_a_graph_that_does_not_fit_says_what_it_needs_before_computing(monkeypatch):
    model = tiny_model()

    class Little:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    monkeypatch.setattr(FeatureOutputs, "to_layer", lambda self, index: pytest.fail("it computed"))
    with pytest.raises(MemoryError, match=r"needs about .* KB of memory and 1 KB are free"):
        ik.attribute(model, tiny_transcoder(model), PROMPT)


def test_an_unsupported_family_is_named():
    model = tiny_model("olmo2")  # norms after, and only after, attention and MLP
    with pytest.raises(ValueError, match="olmo2"):
        ik.attribute(model, tiny_transcoder(model), PROMPT)


def test_a_family_whose_attention_cannot_be_frozen_is_refused():
    model = tiny_model("gpt_neo", attention_types=[[["global"], 4]])
    with pytest.raises(ValueError, match="cannot be frozen"):
        ik.attribute(model, tiny_transcoder(model), PROMPT)


@pytest.mark.parametrize("wrong", [{"max_features": -1}, {"max_features": 2.5}, {"dtype": torch.bfloat16}])
def test_options_that_make_no_sense(wrong):
    model = tiny_model()
    with pytest.raises(ValueError, match="should be"):
        ik.attribute(model, tiny_transcoder(model), PROMPT, **wrong)


def test_a_transcoder_that_is_being_trained():
    model = tiny_model()
    clt = tiny_transcoder(model).requires_grad_()
    graph = ik.attribute(model, clt, PROMPT)
    np.testing.assert_array_equal(graph.adjacency, ik.attribute(model, tiny_transcoder(model), PROMPT).adjacency)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_half_precision_model_is_computed_in_float32(family):
    model = tiny_model(family)
    clt = tiny_transcoder(model, feature_input_hook="ln2.hook_normalized")
    clt.config.model = {}
    wanted = ik.attribute(model, clt, PROMPT)
    model.hf.to(torch.bfloat16)
    graph = ik.attribute(model, clt, PROMPT)
    assert graph.adjacency.dtype == np.float32
    targets = graph.nodes["kind"].isin(["feature", "logit"])
    total = (graph.adjacency.sum(1) + graph.nodes["bias"])[targets]
    np.testing.assert_allclose(total, graph.nodes.loc[targets, "activation"], rtol=1e-3, atol=1e-3)
    assert len(graph.nodes) > 0.5 * len(wanted.nodes)


# ------------------------------------------------------------------ fewer features, less memory, the peer's convention


def test_max_features_keeps_the_same_edges_between_fewer_nodes(monkeypatch):
    monkeypatch.setattr("interp_kit.graphs.attribution.FEATURES_PER_RANKING", 7)
    model = tiny_model()
    clt = tiny_transcoder(model)
    whole = ik.attribute(model, clt, PROMPT, dtype=torch.float64)
    some = ik.attribute(model, clt, PROMPT, max_features=25, dtype=torch.float64)
    assert len(some.features) == 25 and some.kinds[-len(some.logits) - 1] == "left_out"
    others, left_out = some.nodes[some.kinds != "left_out"], some.adjacency[:, some.kinds == "left_out"]
    assert (left_out.shape[1], some.nodes["label"][some.kinds == "left_out"].item()[:10]) == (1, "left out: ")
    places = [whole.nodes.index[whole.nodes["id"] == i][0] for i in others["id"]]
    assert places == sorted(places)
    np.testing.assert_allclose(
        some.adjacency[np.ix_(others.index, others.index)], whole.adjacency[np.ix_(places, places)], rtol=1e-12
    )
    total = some.adjacency.sum(1) + some.nodes["bias"]
    targets = some.nodes["kind"].isin(["feature", "logit"])
    assert abs(left_out[targets]).max() > 0.01 and not left_out[~targets].any()
    np.testing.assert_allclose(total[targets], some.nodes.loc[targets, "activation"], rtol=1e-9)


def test_max_features_keeps_the_influential_ones(monkeypatch):
    """Ranked once over all rows that count, the choice is the whole graph's ranking; ranked in steps, close to it."""
    model = tiny_model()
    clt = tiny_transcoder(model, activation="relu", n_features=40)
    whole = ik.attribute(model, clt, PROMPT)
    features = whole.features
    monkeypatch.setattr("interp_kit.graphs.attribution.FEATURES_PER_RANKING", 20)
    n = len(features) // 4
    some = ik.attribute(model, clt, PROMPT, max_features=n)
    kept = features["id"].isin(some.nodes["id"])
    best = features["influence"].nlargest(n).sum()
    assert features.loc[kept, "influence"].sum() > 0.9 * best
    assert features["influence"].head(n).sum() < 0.6 * best  # an arbitrary choice would not


def test_more_max_features_than_there_are_is_the_whole_graph():
    model = tiny_model()
    clt = tiny_transcoder(model)
    whole, same = ik.attribute(model, clt, PROMPT), ik.attribute(model, clt, PROMPT, max_features=10**6)
    np.testing.assert_array_equal(same.adjacency, whole.adjacency)
    assert "left_out" not in same.kinds and "left_out" not in same.scores


@pytest.mark.parametrize("case", [{}, {"skip": True, "span": 1}, {"layers": [1, 3]}])
def test_zero_first_position_leaves_out_features_and_errors_there_and_counts_them_as_bias(case):
    model = tiny_model()
    clt = tiny_transcoder(model, **case)
    whole = ik.attribute(model, clt, PROMPT, zero_first_position=False, dtype=torch.float64)
    without = ik.attribute(model, clt, PROMPT, zero_first_position=True, dtype=torch.float64)
    first = (whole.nodes["position"] == 0) & whole.nodes["kind"].isin(["feature", "error"])
    others = ~(first & (whole.kinds == "feature")).to_numpy()
    assert without.nodes["id"].tolist() == whole.nodes.loc[others, "id"].tolist()
    wanted = np.where(first.to_numpy()[None], 0, whole.adjacency)[others][:, others]
    wanted[first[others]] = 0
    np.testing.assert_allclose(without.adjacency, wanted, rtol=1e-9, atol=1e-12)
    targets = without.nodes["kind"].isin(["feature", "logit"])
    total = without.adjacency.sum(1) + without.nodes["bias"]
    np.testing.assert_allclose(total[targets], without.nodes.loc[targets, "activation"], rtol=1e-9)


def test_the_first_position_is_a_bias_where_every_prompt_begins_alike(monkeypatch):
    model = tiny_model()
    clt = tiny_transcoder(model)
    asked, zeroed, whole = (ik.attribute(model, clt, PROMPT, zero_first_position=z) for z in (None, True, False))
    assert asked.nodes["id"].tolist() == zeroed.nodes["id"].tolist() and asked.scores == zeroed.scores
    assert asked.scores != whole.scores and len(asked.features) < len(whole.features)
    monkeypatch.setattr(type(model), "special_ids", property(lambda self: set()))  # the first token is one like others
    np.testing.assert_array_equal(ik.attribute(model, clt, PROMPT).adjacency, whole.adjacency)


def test_zero_first_position_under_its_old_name():
    model = tiny_model()
    clt = tiny_transcoder(model)
    with pytest.warns(DeprecationWarning, match=r"attribute\(zero_first=...\) is now zero_first_position=..."):
        old = ik.attribute(model, clt, PROMPT, zero_first=True)
    new = ik.attribute(model, clt, PROMPT, zero_first_position=True)
    np.testing.assert_array_equal(old.adjacency, new.adjacency)
    with pytest.raises(TypeError, match="unexpected keyword argument 'zero_last'"):
        ik.attribute(model, clt, PROMPT, zero_last=True)


def test_decoders_read_again_for_each_block_change_nothing(monkeypatch):
    model, sweep, _ = sweep_of()
    whole = whole_graph(model, sweep)
    assert len(sweep.outputs.cache) == 4
    monkeypatch.setattr("interp_kit.graphs.sweep.DECODER_CACHE_SHARE", 0.0)
    again = Sweep(sweep.frozen, sweep.transcoder, sweep.nodes, budget=1e9)
    assert again.outputs.cache is None
    np.testing.assert_array_equal(whole_graph(model, again).adjacency, whole.adjacency)


def test_a_graph_over_budget_names_a_number_of_features_that_fits():
    model = tiny_model()
    clt = tiny_transcoder(model, n_features=400, activation="relu")
    with pytest.raises(MemoryError, match=r"max_features=\d+") as error:
        ik.attribute(model, clt, PROMPT, memory="40MB")
    fits = int(str(error.value).split("max_features=")[1].split(",")[0])
    graph = ik.attribute(model, clt, PROMPT, memory="40MB", max_features=fits)
    assert len(graph.features) == fits
