"""Each format is written here by hand as its own project writes it, and computed by that project's convention.

Sizes are all different and nothing is symmetric or zero, so that a transposed or forgotten matrix shows.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import interp_kit as ik

D, F, K, POSITIONS = 6, 10, 3, 8


def raw_layer(seed, **shapes):
    """Random tensors of the given shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def inputs(n_layers):
    return torch.randn(n_layers, POSITIONS, D, generator=torch.Generator().manual_seed(99)).double()


def doubles(raw):
    return {name: tensor.double() for name, tensor in raw.items()}


def write(path, raw, **cfg):
    """A weight file with its json (named as `cfg_name` says, if any) beside it."""
    name = cfg.pop("cfg_name", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in raw.items()})
    else:
        save_file(raw, path)
    if name:
        path.with_name(name).write_text(json.dumps(cfg))


def load_and_compare(name, x, features, outputs):
    """Loads in double precision, so that only a wrong formula can differ; returns the transcoder."""
    clt = ik.load_transcoder(name, dtype=torch.float64)
    for found, expected in ((clt.encode(x), torch.stack(features)), (clt(x), torch.stack(outputs))):
        assert (found - expected).norm() < 1e-6 * expected.norm()
    share = (clt.encode(x) > 0).double().mean()
    assert 0.05 < share < 0.95  # else the activation function is not tested
    return clt


def jump_relu(pre, threshold):
    """As Gemma Scope and SAELens have it: the relu's value, not the excess, where above the threshold."""
    return pre.relu() * (pre > threshold)


# ------------------------------------------------------------------ Gemma Scope


def gemma_scope_layer(folder, layer, l0=5, seed=0):
    raw = raw_layer(seed + layer, W_enc=(D, F), W_dec=(F, D), b_enc=F, b_dec=D, threshold=F)
    write(folder / f"layer_{layer}" / "width_16k" / f"average_l0_{l0}" / "params.npz", raw)
    return raw


def gemma_scope_forward(raw, x):
    t = doubles(raw)
    features = jump_relu(x @ t["W_enc"] + t["b_enc"], t["threshold"])
    return features, features @ t["W_dec"] + t["b_dec"]


def test_gemma_scope_keeps_values_above_thresholds_and_transposes_the_encoder(tmp_path):
    x = inputs(3)
    expected = [gemma_scope_forward(gemma_scope_layer(tmp_path, layer), x[layer]) for layer in range(3)]
    clt = load_and_compare(tmp_path, x, *zip(*expected))
    assert clt.config.activation == "jumprelu" and clt.config.span == 1 and clt.config.model == {}
    assert (clt.config.feature_input_hook, clt.config.feature_output_hook) == ("ln2.hook_normalized", "hook_mlp_out")


def test_gemma_scope_of_one_layer_in_the_middle(tmp_path):
    x = inputs(1)
    features, outputs = gemma_scope_forward(gemma_scope_layer(tmp_path, 2), x[0])
    clt = load_and_compare(tmp_path / "layer_2" / "width_16k" / "average_l0_5", x, [features], [outputs])
    assert clt.layers == [2]


def test_several_gemma_scope_sets_of_a_layer_ask_for_a_list(tmp_path):
    x = inputs(2)
    chosen = [gemma_scope_forward(gemma_scope_layer(tmp_path, i, l0=5 + 70 * i), x[i]) for i in range(2)]
    gemma_scope_layer(tmp_path, 1, l0=20, seed=5)
    with pytest.raises(ValueError, match=r"layer 1 has 2 .*average_l0_20.*average_l0_75.*a list with one folder"):
        ik.load_transcoder(tmp_path)
    folders = [str(tmp_path / "layer_1/width_16k/average_l0_75"), tmp_path / "layer_0/width_16k/average_l0_5"]
    clt = load_and_compare(folders, x, *zip(*chosen))
    assert clt.layers == [0, 1]
    with pytest.raises(ValueError, match=r"several files for one layer"):
        ik.load_transcoder([folders[0], tmp_path / "layer_1/width_16k/average_l0_20"])
    with pytest.raises(FileNotFoundError, match="no transcoder at .*average_l0_7'"):
        ik.load_transcoder([folders[1], tmp_path / "layer_1/width_16k/average_l0_7"])


def test_pickles_in_an_npz_are_never_opened(tmp_path):
    path = tmp_path / "layer_0" / "params.npz"
    path.parent.mkdir()
    np.savez(path, W_enc=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="no npz of arrays .*allow_pickle=False"):
        ik.load_transcoder(tmp_path)


# ------------------------------------------------------------------ Gemma Scope 2

HOOKS = {
    "hf_hook_point_in": "model.layers.0.pre_feedforward_layernorm.output",
    "hf_hook_point_out": "model.layers.0.post_feedforward_layernorm.output",
}
LOWER_CASE = {"w_enc": (D, F), "b_enc": F, "b_dec": D, "threshold": F}


@pytest.mark.parametrize("affine", [False, True])
def test_gemma_scope_2_skip_is_stored_input_by_output(affine, tmp_path):
    x, expected = inputs(2), []
    for layer in range(2):
        shapes = LOWER_CASE | {"w_dec": (F, D)} | ({"affine_skip_connection": (D, D)} if affine else {})
        raw = raw_layer(layer, **shapes)
        path = tmp_path / f"layer_{layer}_width_16k_l0_small{'_affine' * affine}" / "params.safetensors"
        write(path, raw, cfg_name="config.json", model_name="google/gemma-3-270m", architecture="jump_relu", **HOOKS)
        t = doubles(raw)
        features = jump_relu(x[layer] @ t["w_enc"] + t["b_enc"], t["threshold"])
        skip = x[layer] @ t["affine_skip_connection"] if affine else 0
        expected.append((features, features @ t["w_dec"] + t["b_dec"] + skip))
    clt = load_and_compare(tmp_path, x, *zip(*expected))
    assert (clt.config.feature_input_hook, clt.config.feature_output_hook) == ("mlp.hook_in", "hook_mlp_out")
    assert clt.config.skip == affine and clt.config.model == {"name": "google/gemma-3-270m"}


def test_gemma_scope_2_autoencoders_and_unnamed_hooks_are_refused(tmp_path):
    path = tmp_path / "layer_0_width_16k_l0_small" / "params.safetensors"
    write(path, raw_layer(0, w_dec=(F, D), **LOWER_CASE))
    with pytest.raises(ValueError, match="config.json is missing"):
        ik.load_transcoder(tmp_path)
    write(
        path, raw_layer(0, w_dec=(F, D), **LOWER_CASE), cfg_name="config.json", hf_hook_point_in="model.layers.0.output"
    )
    with pytest.raises(ValueError, match="expected hooks around the MLP"):
        ik.load_transcoder(tmp_path)


def gemma_scope_2_clt(folder, n=3, affine=True):
    layers = []
    for layer in range(n):
        raw = raw_layer(layer, **LOWER_CASE, w_dec=(F, n, D), affine_skip_connection=(D, D))
        raw["w_dec"][:, :layer] = 0
        if not affine:
            del raw["affine_skip_connection"]
        write(folder / f"params_layer_{layer}.safetensors", raw)
        layers.append(doubles(raw))
    return layers


@pytest.mark.parametrize("affine", [False, True])
def test_gemma_scope_2_cross_layer_keeps_the_last_layer(affine, tmp_path):
    layers, x = gemma_scope_2_clt(tmp_path, affine=affine), inputs(3)
    features = [jump_relu(x[i] @ t["w_enc"] + t["b_enc"], t["threshold"]) for i, t in enumerate(layers)]
    outputs = [t["b_dec"] + (x[i] @ t["affine_skip_connection"] if affine else 0) for i, t in enumerate(layers)]
    outputs = [out + sum(a @ t["w_dec"][:, i] for a, t in zip(features, layers)) for i, out in enumerate(outputs)]
    clt = load_and_compare(tmp_path, x, features, outputs)
    assert clt.layers == [0, 1, 2] and clt.config.span == 3 and clt.config.skip == affine
    assert [tuple(w.shape) for w in clt.W_dec] == [(F, 3, D), (F, 2, D), (F, 1, D)]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gemma_scope_2_cross_layer_with_a_missing_layer(layer, tmp_path):
    gemma_scope_2_clt(tmp_path)
    (tmp_path / f"params_layer_{layer}.safetensors").unlink()
    with pytest.raises(ValueError, match="has files for layers 0 to .*copy the missing ones"):
        ik.load_transcoder(tmp_path)


def test_gemma_scope_2_cross_layer_must_not_write_backwards(tmp_path):
    gemma_scope_2_clt(tmp_path)
    raw = raw_layer(2, **LOWER_CASE, w_dec=(F, 3, D), affine_skip_connection=(D, D))
    write(tmp_path / "params_layer_2.safetensors", raw)
    with pytest.raises(ValueError, match="expected decoders to earlier layers are zero"):
        ik.load_transcoder(tmp_path)


# ------------------------------------------------------------------ SAELens


def saelens_layer(folder, layer, kind="transcoder", dtype=torch.float32, tensors=None, **cfg):
    raw = raw_layer(layer, W_enc=(D, F), W_dec=(F, D), b_enc=F, b_dec=D, threshold=F, W_skip=(D, D))
    raw = {k: v.to(dtype) for k, v in raw.items()}
    if "jumprelu" not in kind:
        del raw["threshold"]
    if "skip" not in kind:
        del raw["W_skip"]
    hooks = {"hook_name": f"blocks.{layer}.mlp.hook_in", "hook_name_out": f"blocks.{layer}.hook_mlp_out"}
    about = {"architecture": kind, "normalize_activations": "none", "apply_b_dec_to_input": False}
    metadata = {"model_name": "tiny"} | hooks | cfg.pop("metadata", {})
    path = folder / "sae_weights.safetensors"
    write(path, raw | (tensors or {}), cfg_name="cfg.json", metadata=metadata, **(about | cfg))
    return doubles(raw)


def saelens_forward(t, x, scale=1):
    pre = x * scale @ t["W_enc"] + t["b_enc"]
    features = jump_relu(pre, t["threshold"]) if "threshold" in t else pre.relu()
    outputs = (features @ t["W_dec"] + t["b_dec"]) / scale
    return features, outputs + (x @ t["W_skip"].T if "W_skip" in t else 0)


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"])
def test_saelens_layer_and_hooks_come_from_the_hook_name_not_the_folder(kind, tmp_path):
    x = inputs(2)
    layers = [saelens_layer(tmp_path / name, i, kind) for i, name in enumerate(("second", "first"))]
    clt = load_and_compare(tmp_path, x, *zip(*(saelens_forward(t, x[i]) for i, t in enumerate(layers))))
    assert clt.config.activation == ("jumprelu" if "jumprelu" in kind else "relu")
    assert clt.config.skip == ("skip" in kind) and clt.config.model == {"name": "tiny"}
    assert (clt.config.feature_input_hook, clt.config.feature_output_hook) == ("mlp.hook_in", "hook_mlp_out")
    one = load_and_compare(tmp_path / "first", x[1:], *zip(saelens_forward(layers[1], x[1])))
    assert one.layers == [1]


@pytest.mark.parametrize(
    "hook, more, feature_input_hook",
    [
        ("hook_resid_mid", {}, "hook_resid_mid"),
        ("ln2.hook_normalized", {}, "ln2.hook_normalized"),
        ("hook_mlp_in", {"hf_hook_name": "model.layers.0.pre_feedforward_layernorm.output"}, "mlp.hook_in"),
    ],
)
def test_saelens_hooks_that_are_known(hook, more, feature_input_hook, tmp_path):
    metadata = {"hook_name": f"blocks.0.{hook}", "hook_name_out": "blocks.0.mlp.hook_out"} | more
    saelens_layer(tmp_path, 0, metadata=metadata)
    config = ik.load_transcoder(tmp_path).config
    assert (config.feature_input_hook, config.feature_output_hook) == (feature_input_hook, "mlp.hook_out")


def test_saelens_norm_to_fold(tmp_path):
    """`expected_average_only_in` scales inputs by a constant that lies in activation_scaler.json."""
    x = inputs(1)
    t = saelens_layer(tmp_path, 0, "jumprelu_skip_transcoder", normalize_activations="expected_average_only_in")
    with pytest.raises(ValueError, match="activation_scaler.json beside it"):
        ik.load_transcoder(tmp_path)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25, "has_whitening": False}))
    features, outputs = saelens_forward(t, x[0], 0.25)
    load_and_compare(tmp_path, x, [features], [outputs])


def test_saelens_log_thresholds_are_exponentiated(tmp_path):
    x = inputs(1)
    t = saelens_layer(tmp_path, 0, "jumprelu_transcoder")
    raw = {k: v.float() for k, v in t.items() if k != "threshold"}
    save_file(raw | {"log_threshold": t["threshold"].float()}, tmp_path / "sae_weights.safetensors")
    t["threshold"] = t["threshold"].exp()
    load_and_compare(tmp_path, x, *zip(saelens_forward(t, x[0])))


@pytest.mark.parametrize(
    "wrong, expected",
    [
        ({"kind": "standard"}, "architecture: transcoder"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is none"),
        ({"normalize_activations": "constant_norm_rescale"}, "normalize_activations is none"),
        ({"apply_b_dec_to_input": True}, "apply_b_dec_to_input"),
        ({"activation_fn": "topk"}, "activation_fn: relu"),
        ({"tensors": {"scaling_factor": torch.full((F,), 2.0)}}, "scaling_factor is 1"),
        ({"metadata": {"hook_name": "blocks.0.hook_mlp_in"}}, "either side of the norm"),
        ({"metadata": {"hook_name": "blocks.0.attn.hook_z"}}, "hook_name ends in hook_resid_mid"),
        ({"metadata": {"hook_name": "model.layers.0.mlp"}}, "such as blocks.3.mlp.hook_in"),
        ({"metadata": {"hook_name_out": "blocks.1.hook_mlp_out"}}, "in the layer of hook_name"),
    ],
)
def test_saelens_files_that_cannot_be_represented(wrong, expected, tmp_path):
    saelens_layer(tmp_path, 0, **wrong)
    with pytest.raises(ValueError, match=expected):
        ik.load_transcoder(tmp_path)


# ------------------------------------------------------------------ sparsify


def sparsify_layer(folder, tensors=None, **cfg):
    """Weights and cfg as saved; W_dec has the rows of `n_sources` layers where they are stacked."""
    rows = F * (cfg.get("n_sources", 1) if cfg.get("coalesce_topk") == "per-layer" else 1)
    raw = raw_layer(
        len(folder.name) + int(folder.name.split(".")[1]),
        **{"encoder.weight": (F, D), "encoder.bias": F, "W_dec": (rows, D), "b_dec": D, "W_skip": (D, D)},
    )
    about = {"activation": "topk", "k": K, "transcode": True, "skip_connection": True, "d_in": D}
    if cfg.get("skip_connection") is False:
        del raw["W_skip"]
    raw |= tensors or {}
    write(folder / "sae.safetensors", raw, cfg_name="cfg.json", **(about | cfg))
    return doubles(raw)


def sparsify_encode(t, x):
    pre = (x @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    top = pre.topk(K, dim=-1, sorted=False)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


@pytest.mark.parametrize("prefix", ["layers", "h"])
@pytest.mark.parametrize("skip", [True, False])
def test_sparsify_per_layer_topk_and_skip(prefix, skip, tmp_path):
    x, expected = inputs(2), []
    for i, layer in enumerate((3, 11)):
        t = sparsify_layer(tmp_path / f"{prefix}.{layer}.mlp", skip_connection=skip)
        features = sparsify_encode(t, x[i])
        expected.append((features, features @ t["W_dec"] + t["b_dec"] + (x[i] @ t["W_skip"].T if skip else 0)))
    clt = load_and_compare(tmp_path, x, *zip(*expected))
    assert clt.layers == [3, 11] and clt.config.activation == "topk" and clt.config.k == K
    assert (clt.config.feature_input_hook, clt.config.feature_output_hook, clt.config.skip) == (
        "mlp.hook_in",
        "mlp.hook_out",
        skip,
    )


def norms(i):
    return {"in_norm": torch.tensor([3.0 + i]), "out_norm": torch.tensor([0.5 + i])}


def test_clt_training_norms_to_fold(tmp_path):
    """normalize_io: inputs x sqrt(d) / in_norm, outputs x out_norm / sqrt(d); a skip has both."""
    x = inputs(1)
    t = sparsify_layer(tmp_path / "h.0.mlp", {**norms(0), "post_enc": torch.zeros(F)}, normalize_io=True)
    scaled = x[0] * D**0.5 / t["in_norm"]
    features = sparsify_encode(t, scaled)
    outputs = (features @ t["W_dec"] + t["b_dec"] + scaled @ t["W_skip"].T) * t["out_norm"] / D**0.5
    load_and_compare(tmp_path, x, [features], [outputs])


@pytest.mark.parametrize("kind", ["per-layer", "concat"])
def test_clt_training_cross_layer_decoders_lie_with_their_target(kind, tmp_path):
    """per-layer: a block of rows for each source; concat: one decoder of the target for all sources."""
    n, x = 3, inputs(3)
    layers = [
        sparsify_layer(
            tmp_path / f"h.{i}.mlp", norms(i), normalize_io=True, coalesce_topk=kind, n_targets=n - i, n_sources=i + 1
        )
        for i in range(n)
    ]
    scaled = [x[i] * D**0.5 / t["in_norm"] for i, t in enumerate(layers)]
    features = [sparsify_encode(t, scaled[i]) for i, t in enumerate(layers)]
    outputs = []
    for i, t in enumerate(layers):
        out = t["b_dec"] + scaled[i] @ t["W_skip"].T
        for source in range(i + 1):
            rows = slice(source * F, (source + 1) * F) if kind == "per-layer" else slice(F)
            out = out + features[source] @ t["W_dec"][rows]
        outputs.append(out * t["out_norm"] / D**0.5)
    clt = load_and_compare(tmp_path, x, features, outputs)
    assert clt.config.span == 3


@pytest.mark.parametrize(
    "wrong, expected",
    [
        ({"transcode": False}, "transcode: true"),
        ({"activation": "groupmax"}, "activation: topk"),
        ({"activation": "batchtopk"}, "activation: topk"),
        ({"tensors": {"post_enc": torch.ones(F)}}, "post_enc is zero"),
        ({"tensors": {"post_enc_scale": torch.zeros(F)}}, "post_enc_scale is 1"),
        ({"n_targets": 1, "n_sources": 1, "coalesce_topk": "none"}, "coalesce_topk: per-layer or concat"),
        ({"n_targets": 1, "n_sources": 1, "coalesce_topk": "concat", "topk_coalesced": True}, "topk_coalesced: false"),
        ({"n_targets": 1, "n_sources": 2, "coalesce_topk": "per-layer"}, "none is missing"),
    ],
)
def test_sparsify_files_that_cannot_be_represented(wrong, expected, tmp_path):
    sparsify_layer(tmp_path / "h.0.mlp", **wrong)
    with pytest.raises(ValueError, match=expected):
        ik.load_transcoder(tmp_path)


def test_sparsify_folders_of_other_modules(tmp_path):
    sparsify_layer(tmp_path / "layers.3.attn")
    with pytest.raises(ValueError, match="named layers.3.mlp or h.3.mlp"):
        ik.load_transcoder(tmp_path)


def test_layers_that_are_not_of_one_transcoder(tmp_path):
    sparsify_layer(tmp_path / "h.0.mlp")
    sparsify_layer(tmp_path / "h.1.mlp", k=K + 1)
    with pytest.raises(ValueError, match=r"should be alike.*'k': 3.*'k': 4"):
        ik.load_transcoder(tmp_path)


# ------------------------------------------------------------------ whatever the format


def test_a_missing_tensor_and_a_missing_description(tmp_path):
    raw = raw_layer(0, W_enc=(D, F), W_dec=(F, D), b_enc=F, b_dec=D)
    write(tmp_path / "layer_0" / "params.npz", raw)
    with pytest.raises(ValueError, match=r"the tensors threshold too \(it has W_dec, W_enc, b_dec, b_enc\)"):
        ik.load_transcoder(tmp_path)
    write(tmp_path / "b" / "sae_weights.safetensors", raw)
    with pytest.raises(ValueError, match="cfg.json is missing"):
        ik.load_transcoder(tmp_path / "b")


def test_a_transposed_tensor_is_named_with_both_shapes(tmp_path):
    raw = gemma_scope_layer(tmp_path, 0)
    raw["W_enc"] = raw["W_enc"].T.contiguous()
    write(tmp_path / "layer_0" / "width_16k" / "average_l0_5" / "params.npz", raw)
    with pytest.raises(ValueError, match=r"W_enc should be \[10, 6\], found \[6, 10\]"):
        ik.load_transcoder(tmp_path)


def test_what_is_loaded_can_be_saved_and_read_again(tmp_path):
    saelens_layer(tmp_path / "a", 0, "jumprelu_skip_transcoder")
    clt = ik.load_transcoder(tmp_path / "a")
    clt.save(tmp_path / "ours")
    back, x = ik.load_transcoder(tmp_path / "ours"), inputs(1).float()
    assert back.config == clt.config and torch.equal(back(x), clt(x))
