"""Whatever happened to the files of a transcoder or a checkpoint: read and good, or refused with their name."""

import json
import os
import struct
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pytest
import torch
from accidents import REFUSALS, outcome
from accidents.mutations import parts_of
from accidents.transcoders import READERS, D, F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.storage.npz import npz_names
from interp_kit.transcoders import TranscoderConfig
from interp_kit.transcoders.folder import save_transcoder

BY_NAME = {reader.name: reader for reader in READERS}
QUICK = settings(max_examples=20, deadline=None, derandomize=True, database=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(TranscoderConfig.__dataclass_fields__)


def said(reader, folder):
    """What `reader` says of `folder`, which it has to refuse, naming the folder or a file."""
    with pytest.raises((*REFUSALS, OSError)) as error:
        reader.use(folder)
    assert outcome(reader, folder, "").kind == "refused"
    return str(error.value)


@QUICK
@given(field=st.sampled_from(FIELDS), value=JSON)
def test_any_value_of_any_field_of_our_description(field, value):
    reader = BY_NAME["ours, cross-layer"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        reader.write(folder)
        path = folder / "interp_kit.json"
        about = json.loads(path.read_text()) | {field: value}
        path.write_text(json.dumps(about))
        assert outcome(reader, folder, f"{field}: {value!r}").kind != "odd"


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "checkpoint of a training"])
@QUICK
@given(content=st.binary(max_size=300))
def test_any_bytes_in_place_of_any_file(name, content):
    with TemporaryDirectory() as place:
        folder = Path(place)
        BY_NAME[name].write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        files[len(content) % len(files)].write_bytes(content)
        assert outcome(BY_NAME[name], folder, f"{content!r}").kind != "odd"


@pytest.mark.parametrize("name", ["ours, int8", "gemma_scope", "checkpoint"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself"])
def test_what_is_no_file_is_named(name, kind, tmp_path):
    BY_NAME[name].write(tmp_path)
    path = next(path for path in sorted(tmp_path.rglob("*")) if path.suffix in (".safetensors", ".npz"))
    path.unlink()
    {"pipe": os.mkfifo, "folder": Path.mkdir, "link to itself": lambda p: p.symlink_to(p)}[kind](path)
    assert path.name in said(BY_NAME[name], tmp_path)


@pytest.mark.parametrize(
    "name", ["ours, per-layer", "circuit-tracer, cross-layer", "sparsify", "saelens", "gemma_scope_2"]
)
def test_a_pointer_of_git_lfs_says_what_to_do(name, tmp_path):
    BY_NAME[name].write(tmp_path)
    path = sorted(tmp_path.rglob("*.safetensors"))[-1]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert "git lfs pull" in said(BY_NAME[name], tmp_path)


# ---------------------------------------------------------------- silently wrong until they were refused


def changed(folder, file, change):
    """A safetensors file of the folder with other tensors."""
    tensors = load_file(folder / file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)


def relabelled(folder, file, name, dtype):
    """The same bits, called another type in the header."""
    header, data = parts_of((folder / file).read_bytes())
    header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("W_enc_scale"), "W_enc should be floating-point numbers, found int8"),
        (lambda t: t.pop("W_dec_scale"), "W_dec should be floating-point numbers, found int8"),
        (lambda t: t.update(W_dec_scale=t["W_dec_scale"][:1]), "W_dec_scale should have one number for each row"),
        (lambda t: t.update(W_dec_scale=t["W_dec_scale"] * float("nan")), "W_dec_scale holds NaN"),
        (lambda t: t.update(W_enc_scale=-t["W_enc_scale"]), "W_enc_scale holds NaN, negative or too large"),
        (lambda t: t.update(W_enc_scale=t["W_enc_scale"].int()), "W_enc_scale should be floating-point"),
        (lambda t: t.update(W_enc=t["W_enc"].float()), "W_enc should be int8 beside its W_enc_scale"),
        (lambda t: t.update(b_enc=t["b_enc"].int()), "b_enc should be floating-point numbers, found int32"),
        (lambda t: t.update(W_skip=torch.ones(16, 16)), "has W_skip, and its description says that it has none"),
        (lambda t: t.update(threshold=torch.ones(F)), "has threshold, and its description says that it has none"),
        (lambda t: t.update(b_dec=t["b_dec"] * 1e30), "b_dec holds NaN or infinite weights"),
    ],
)
def test_numbers_that_are_not_what_they_seem(change, message, tmp_path):
    reader = BY_NAME["ours, int8, per-layer"]
    reader.write(tmp_path)
    changed(tmp_path, "layer_1.safetensors", change)
    assert message in said(reader, tmp_path)


@pytest.mark.parametrize("dtype", ["I32", "U32"])
@pytest.mark.parametrize(
    "reader, file, name",
    [
        ("ours, per-layer", "layer_2.safetensors", "W_enc"),
        ("sparsify", "layers.1.mlp/sae.safetensors", "encoder.bias"),
        ("saelens", "layer_1/sae_weights.safetensors", "W_dec"),
        ("clt-training", "layers.0.mlp/sae.safetensors", "in_norm"),
        ("gemma_scope_2", "layer_0_width_16k/params.safetensors", "threshold"),
    ],
)
def test_bits_of_floats_that_are_called_integers(reader, file, name, dtype, tmp_path):
    BY_NAME[reader].write(tmp_path)
    relabelled(tmp_path, file, name, dtype)
    assert "should be floating-point numbers" in said(BY_NAME[reader], tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layers": [3, 2, 1, 0]}, "layers should be the numbers of some layers, ascending"),
        ({"layers": [0, 1, 1, 2]}, "ascending"),
        ({"layers": [-1, 0, 1, 2]}, "layers[0] should be greater than or equal to 0"),
        ({"layers": []}, "ascending"),
        ({"layers": [0, 1, 2.0, 3]}, "layers[2] should be a valid integer"),
        ({"layers": "0123"}, "layers should be a valid list"),
        ({"skip": "false"}, "skip should be a valid boolean, got 'false'"),
        ({"skip": 1}, "skip should be a valid boolean"),
        ({"skip": False}, "has W_skip, and its description says that it has none"),
        ({"excludes_first_position": "false"}, "excludes_first_position should be a valid boolean"),
        ({"activation": "jumprelu"}, "threshold should be [10], found nothing"),
        ({"k": "5"}, "k should be a valid integer"),
        ({"k": True}, "k should be a valid integer"),
        ({"d_model": 0}, "d_model should be greater"),
        ({"n_features": 10**12}, "n_features should be less than"),
        ({"n_features": 2**30, "d_model": 2**30}, "W_enc should be [1073741824, 1073741824], found [10, 16]"),
        ({"n_features_per_layer": [10, 10]}, "n_features_per_layer should be for each layer"),
        ({"n_features_per_layer": [10, 11, 10, 10]}, "n_features_per_layer should be for each layer"),
        ({"n_features_per_layer": [10, -1, 10, 10]}, "n_features_per_layer[1] should be greater"),
        ({"model": {"name": 3}}, "model.name should be a valid string"),
        ({"model": "tiny"}, "model should be"),
        ({"reads": "mlp.hook_in"}, "'reads' and 'feature_input_hook' are the same field"),
        ({"slip": True}, "'slip' is not known"),
    ],
)
def test_descriptions_that_do_not_fit(change, message, tmp_path):
    reader = BY_NAME["ours, cross-layer"]
    reader.write(tmp_path)
    path = tmp_path / "interp_kit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in said(reader, tmp_path)


@pytest.mark.parametrize(
    "reader, file, change, message",
    [
        ("sparsify", "layers.1.mlp/cfg.json", {"transcode": "false"}, "transcode should be a valid boolean"),
        ("sparsify", "layers.1.mlp/cfg.json", {"skip_connection": False}, "W_skip if and only if skip_connection"),
        ("sparsify", "layers.0.mlp/cfg.json", {"k": "3"}, "k should be a valid integer"),
        ("sparsify", "layers.0.mlp/cfg.json", {"k": None}, "k should be a valid integer"),
        ("sparsify", "layers.0.mlp/cfg.json", {"k": -3}, "k should be greater"),
        ("clt-training", "layers.1.mlp/cfg.json", {"normalize_io": "true"}, "normalize_io should be a valid boolean"),
        ("clt-training", "layers.1.mlp/cfg.json", {"n_sources": 10**6}, "a W_dec of 10000000 rows"),
        ("saelens", "layer_0/cfg.json", {"architecture": "transcoder"}, "expected no W_skip, threshold"),
        ("saelens", "layer_0/cfg.json", {"architecture": "jumprelu_transcoder"}, "expected no W_skip"),
        ("saelens", "layer_0/cfg.json", {"apply_b_dec_to_input": "false"}, "should be a valid boolean"),
        ("saelens", "layer_0/cfg.json", {"metadata": [1]}, "an object as its metadata"),
        ("saelens", "layer_0/activation_scaler.json", {"scaling_factor": 0}, "scaling_factor should be greater"),
        (
            "saelens",
            "layer_0/activation_scaler.json",
            {"scaling_factor": "2"},
            "scaling_factor should be a valid number",
        ),
        ("gemma_scope_2", "layer_1_width_16k/config.json", {"model_name": 3}, "model_name should be a valid string"),
    ],
)
def test_other_projects_descriptions_that_do_not_fit(reader, file, change, message, tmp_path):
    BY_NAME[reader].write(tmp_path)
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in said(BY_NAME[reader], tmp_path)


@pytest.mark.parametrize(
    "more, message",
    [
        ("activation: relu", "has threshold, and its description says that it has none"),
        ("activation: topk\nk: 3", "has threshold, and its description says that it has none"),
        ("activation: topk\nk: yes", "k should be a valid integer"),
        ("activation: topk\nk: 99", "k 99 is not between 1 and the 10 features"),
        ("model_name: 3", "model_name should be a valid string"),
        ("transcoders: layer_0.safetensors", "transcoders should be a valid list"),
        ("transcoders: [../layer_0.safetensors]", "leads out of the folder"),
        ("transcoders: [/layer_0.safetensors]", "leads out of the folder"),
        ("transcoders: ['hf://a/b/../../layer_0.safetensors']", "leads out of the folder"),
        ("transcoders: ['..\\layer_0.safetensors']", "leads out of the folder"),
        ("transcoders: ['C:/layer_0.safetensors']", "leads out of the folder"),
        ("transcoders: [pytorch_model.bin]", "is no weight file"),
        ("transcoders: [layer_1.safetensors, layer_0.safetensors]", "list the files by layer"),
        ("transcoders: [layer_0.safetensors, layer_0.safetensors]", "list the files by layer"),
        ("a: &a [1]\nb: *a", "alias"),
        ("c: !!python/object/apply:os.system [ls]", "is no readable YAML"),
        ("c: !!bool x", "is no readable YAML"),
    ],
)
def test_config_yaml_that_does_not_fit(more, message, tmp_path):
    reader = BY_NAME["circuit-tracer, per-layer"]
    reader.write(tmp_path)
    with open(tmp_path / "config.yaml", "a") as file:
        file.write(more + "\n")
    assert message in said(reader, tmp_path)


@pytest.mark.parametrize(("text", "said"), [("x" * 100_000, "at most 1000 characters"), ("a\x1b[2J", "be plain text")])
@pytest.mark.parametrize(
    ("reader", "file", "field"),
    [
        ("ours, cross-layer", "interp_kit.json", "feature_input_hook"),
        ("saelens", "layer_1/cfg.json", "hook_name"),
        ("gemma_scope_2", "layer_0_width_16k/config.json", "model_name"),
        ("sparsify", "layers.1.mlp/cfg.json", "activation"),
    ],
)
def test_names_that_could_not_stand_in_a_message(text, said, reader, file, field, tmp_path):
    BY_NAME[reader].write(tmp_path)
    path = tmp_path / file
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {field: text} | ({"metadata": {}} if reader == "saelens" else {})))
    message = outcome(BY_NAME[reader], tmp_path, "").error
    assert field in str(message) and len(str(message)) < 2000
    assert said in str(message) or field == "feature_input_hook"


def test_a_tensor_whose_name_could_not_stand_in_a_message(tmp_path):
    for name in ("x" * 1000, "\x1b[2J"):
        BY_NAME["saelens"].write(tmp_path)
        changed(tmp_path, "layer_1/sae_weights.safetensors", lambda t, name=name: t.update({name: torch.ones(1)}))
        assert "expected a short name of plain text" in said(BY_NAME["saelens"], tmp_path)
        np.savez(tmp_path / "params.npz", **{name: np.ones(1)})
        with pytest.raises(ValueError, match="expected a short name of plain text"):
            npz_names(tmp_path / "params.npz")


def test_thresholds_that_config_yaml_promises(tmp_path):
    reader = BY_NAME["circuit-tracer, per-layer"]
    reader.write(tmp_path)
    with open(tmp_path / "config.yaml", "a") as file:
        file.write("activation: jump_relu\n")
    assert outcome(reader, tmp_path, "").kind == "loaded"
    for i in range(2):
        changed(tmp_path, f"layer_{i}.safetensors", lambda t: t.pop("activation_function.threshold"))
    assert "threshold should be [10], found nothing" in said(reader, tmp_path)


def test_layers_listed_in_another_order_than_their_own(tmp_path):
    BY_NAME["gemma_scope"].write(tmp_path)
    BY_NAME["circuit-tracer, per-layer"].write(tmp_path)
    with open(tmp_path / "config.yaml", "a") as file:
        file.write("transcoders: [layer_1/params.npz, layer_0/params.npz]\n")
    assert "stands for layer 0" in said(BY_NAME["circuit-tracer, per-layer"], tmp_path)


# ---------------------------------------------------------------- a shade off, and read


@pytest.mark.parametrize(
    "shade",
    [
        lambda t, i: t.update({f"threshold_{i}": t[f"threshold_{i}"][None]}),
        lambda t, i: t.update({f"b_enc_{i}": t[f"b_enc_{i}"][None], f"b_dec_{i}": t[f"b_dec_{i}"][None]}),
        lambda t, i: t.update({f"b_enc_{i}": t[f"b_enc_{i}"][:, None]}),
        lambda t, i: t.update({f"W_enc_{i}": t[f"W_enc_{i}"][None]}),
    ],
)
def test_vectors_as_rows_or_columns(shade, tmp_path):
    reader = BY_NAME["circuit-tracer, cross-layer"]
    reader.write(tmp_path)
    wanted = reader.use(tmp_path)
    for i in range(2):
        changed(tmp_path, f"W_enc_{i}.safetensors", lambda t, i=i: shade(t, i))
    assert torch.equal(reader.use(tmp_path), wanted)


def test_one_threshold_for_all_features_and_a_last_decoder_without_its_dimension(tmp_path):
    reader = BY_NAME["circuit-tracer, cross-layer"]
    reader.write(tmp_path)
    for i in range(2):
        changed(tmp_path, f"W_enc_{i}.safetensors", lambda t, i=i: t.update({f"threshold_{i}": torch.full((F,), 0.25)}))
    wanted = reader.use(tmp_path)
    for i in range(2):
        changed(tmp_path, f"W_enc_{i}.safetensors", lambda t, i=i: t.update({f"threshold_{i}": torch.tensor(0.25)}))
    changed(tmp_path, "W_dec_1.safetensors", lambda t: t.update(W_dec_1=t["W_dec_1"][:, 0]))
    assert torch.equal(reader.use(tmp_path), wanted)


def test_gemma_scope_with_a_bias_as_a_row_and_in_the_other_byte_order(tmp_path):
    reader = BY_NAME["gemma_scope"]
    reader.write(tmp_path)
    wanted = reader.use(tmp_path)
    for path in tmp_path.rglob("*.npz"):
        raw = dict(np.load(path))
        np.savez_compressed(path, **raw | {"b_enc": raw["b_enc"][None], "W_enc": raw["W_enc"].astype(">f4")})
    assert torch.equal(reader.use(tmp_path), wanted)


# ---------------------------------------------------------------- memory


def npz(path, **arrays):
    """An npz of (header, data)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, (shape, data) in arrays.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
                member.write(data)


def rest():
    return {"b_enc": ((F,), bytes(4 * F)), "b_dec": ((D,), bytes(4 * D)), "threshold": ((F,), bytes(4 * F)),
            "W_dec": ((F, D), bytes(4 * F * D))}  # fmt: skip


@pytest.mark.parametrize(
    "large, message",
    [
        ({"W_enc": ((7_500, 5_000), bytes(150_000_000))}, "W_enc should be [10, 6], found [5000, 7500]"),
        ({"W_enc": ((D, F), bytes(100_000_000))}, "does not have the size that its header says"),
        ({"W_enc": ((2**40, 2**20), b"")}, "does not have the size that its header says"),
        ({"W_enc": ((-1, F), b"")}, "W_enc"),
        ({"W_enc": ((0, 2**62), b"")}, "does not have the size"),
    ],
)
def test_a_small_npz_that_unfolds_to_much(large, message, tmp_path):
    path = tmp_path / "layer_0" / "params.npz"
    path.parent.mkdir()
    npz(path, **rest(), **large)
    before = psutil.Process().memory_info().rss
    assert message in said(BY_NAME["gemma_scope"], tmp_path)
    assert psutil.Process().memory_info().rss - before < 50e6


def test_members_that_are_not_used_are_not_unpacked(tmp_path):
    path = tmp_path / "layer_0" / "params.npz"
    path.parent.mkdir()
    npz(path, **rest(), W_enc=((D, F), bytes(4 * F * D)), examples=((40_000_000,), bytes(160_000_000)))
    before = psutil.Process().memory_info().rss
    assert outcome(BY_NAME["gemma_scope"], tmp_path, "").kind == "loaded"
    assert psutil.Process().memory_info().rss - before < 50e6


def test_what_does_not_fit_into_memory_is_refused_beforehand(tmp_path, monkeypatch):
    BY_NAME["ours, cross-layer"].write(tmp_path)
    asked = []

    def none_free(needed, what):
        asked.append(needed)
        if "loading" in what:
            raise MemoryError(f"{what} needs more")

    monkeypatch.setattr("interp_kit.transcoders.folder.check_memory", none_free)
    with pytest.raises(MemoryError, match=str(tmp_path)), monkeypatch.context() as patch:
        patch.setattr(torch, "zeros", None)  # nothing is made before
        ik.load_transcoder(tmp_path)
    clt = tiny_transcoder(tiny_model(), n_features=F, skip=True)
    held = sum(t.nbytes for t in clt.state_dict().values()) - clt.threshold.nbytes
    assert asked == [held]


# ---------------------------------------------------------------- decoders that stay on the disk


def test_a_decoder_on_the_disk_is_searched_where_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("interp_kit.transcoders.folder.STAY_ON_DISK_BYTES", 1)
    save_transcoder(tiny_transcoder(tiny_model(), n_features=F), tmp_path)
    changed(tmp_path, "W_dec_2.safetensors", lambda t: t["W_dec_2"][3, 1].fill_(float("nan")))
    clt, x = ik.load_transcoder(tmp_path), torch.ones(4, 3, 16)
    assert clt.encode(x).isfinite().all() and clt.decoder_rows(2, torch.tensor([2, 3]), 2).isfinite().all()
    message = f"layer 2 of {tmp_path}: W_dec holds NaN"
    for use in (lambda: clt.decoder_rows(2, torch.tensor([2, 3]), 3), lambda: clt(x),
                lambda: clt.keep_features([torch.arange(5)] * 4), lambda: clt.in_dtype(torch.float64)(x)):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            use()


# ---------------------------------------------------------------- names and arguments


@pytest.mark.parametrize("name", [3, None, b"pocket", {"a": 1}, [1], [None]])
def test_what_is_no_name(name):
    with pytest.raises(TypeError, match="expected the name of a transcoder"):
        ik.load_transcoder(name)


def test_an_empty_list_and_types_that_are_none():
    with pytest.raises(ValueError, match="list of folders is empty"):
        ik.load_transcoder([])
    for dtype in (torch.int8, "float32", None):
        with pytest.raises(TypeError, match="dtype should be a floating-point type"):
            ik.load_transcoder("pocket", dtype)
