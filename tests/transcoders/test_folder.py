"""Our files, circuit-tracer's without our json, what stays on the disk, names on the Hub, and damage."""

import copy
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import yaml
from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.transcoders import TranscoderConfig
from interp_kit.transcoders.folder import in_todays_words, save_transcoder
from interp_kit.transcoders.int8_rows import Int8Rows

D, F, L = 6, 10, 3
KINDS = {
    "cross-layer": {},
    "per-layer": {"span": 1},
    "span 2": {"span": 2},
    "threshold": {"activation": "jumprelu"},
    "relu": {"activation": "relu", "feature_input_hook": "hook_resid_mid"},
    "skip": {"skip": True, "feature_output_hook": "mlp.hook_out"},
    "per-layer, skip, threshold": {"span": 1, "skip": True, "activation": "jumprelu"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_files(kind, tmp_path):
    clt = tiny_transcoder(tiny_model(), **KINDS[kind])
    clt.save(tmp_path / "t")
    back = ik.load_transcoder(tmp_path / "t")
    x = torch.randn(4, 7, 16)
    assert back.config == clt.config
    assert torch.equal(back(x), clt(x)) and torch.equal(back.encode(x), clt.encode(x))
    assert [p.name for p in tmp_path.iterdir()] == ["t"]  # no temporary folder stays behind


def test_files_have_circuit_tracers_names_and_shapes(tmp_path):
    clt = tiny_transcoder(tiny_model(), activation="jumprelu")
    clt.save(tmp_path / "clt")
    about = yaml.safe_load((tmp_path / "clt" / "config.yaml").read_text())
    assert about["model_kind"] == "cross_layer_transcoder" and about["feature_input_hook"] == "mlp.hook_in"
    enc, dec = (load_file(tmp_path / "clt" / f"W_{side}_1.safetensors") for side in ("enc", "dec"))
    assert {k: tuple(v.shape) for k, v in enc.items()} == {
        "W_enc_1": (20, 16), "b_enc_1": (20,), "b_dec_1": (16,), "threshold_1": (20,)
    }  # fmt: skip
    assert tuple(dec["W_dec_1"].shape) == (20, 3, 16)
    tiny_transcoder(tiny_model(), span=1).save(tmp_path / "plt")
    one = load_file(tmp_path / "plt" / "layer_3.safetensors")
    assert {k: tuple(v.shape) for k, v in one.items()} == {
        "W_enc": (20, 16), "W_dec": (20, 16), "b_enc": (20,), "b_dec": (16,)
    }  # fmt: skip


def test_float16_files_load_as_float32_and_stay_close(tmp_path):
    clt = tiny_transcoder(tiny_model())
    save_transcoder(clt, tmp_path / "t", torch.float16)
    back = ik.load_transcoder(tmp_path / "t")
    assert back.W_enc.dtype == torch.float32 and back.b_enc.equal(clt.b_enc)
    torch.testing.assert_close(back.W_dec[0], clt.W_dec[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_circuit_tracers_files_alone(kind, tmp_path):
    clt = tiny_transcoder(tiny_model(), **KINDS[kind])
    clt.save(tmp_path)
    (tmp_path / "interp_kit.json").unlink()
    back, x = ik.load_transcoder(tmp_path), torch.randn(4, 7, 16)
    assert torch.equal(back(x), clt(x)) and torch.equal(back.encode(x), clt.encode(x))
    unknown = {"model": {"name": "tiny-llama"}} | ({} if clt.config.activation == "topk" else {"k": 8})
    assert vars(back.config) == vars(clt.config) | unknown


# ------------------------------------------------------------------ the names of versions before 0.2


OLD = Path(__file__).parent / "saved_before_0_2"  # written by `transcoder.save` of version 0.1
TODAY = {
    "activation": "jumprelu", "feature_input_hook": "hook_resid_mid", "feature_output_hook": "mlp.hook_out",
    "excludes_first_position": True, "n_features_per_layer": [2, 3],
}  # fmt: skip
RENAMED = {
    "activation": "activation", "reads": "feature_input_hook", "writes": "feature_output_hook",
    "skips_first": "excludes_first_position", "counts": "n_features_per_layer",
}  # fmt: skip


def test_a_folder_of_an_older_version_means_the_same():
    clt = ik.load_transcoder(OLD)
    model = {"name": "tiny", "fingerprint": "0123456789abcdef"}
    assert clt.config == TranscoderConfig(4, 3, [0, 2], 1, k=2, model=model, **TODAY)
    raw, x = load_file(OLD / "layer_2.safetensors"), torch.randn(2, 5, 4)
    pre = x[1, 1:] @ raw["W_enc"].T + raw["b_enc"]
    wanted = torch.where(pre > raw["activation_function.threshold"], pre, 0)
    torch.testing.assert_close(clt.encode(x)[1], torch.cat([torch.zeros(1, 3), wanted]))


@pytest.mark.parametrize("old", RENAMED)
def test_each_old_name_is_read_alone(old, tmp_path):
    copytree(OLD, tmp_path, dirs_exist_ok=True)
    about = json.loads((OLD / "interp_kit.json").read_text())
    assert old in about and (old != "activation" or about[old] == "threshold")
    rest = {name: TODAY.get(RENAMED.get(name, ""), value) for name, value in about.items() if name != old}
    mixed = {RENAMED.get(name, name): value for name, value in rest.items()} | {old: about[old]}
    (tmp_path / "interp_kit.json").write_text(json.dumps(mixed))
    assert ik.load_transcoder(tmp_path).config == ik.load_transcoder(OLD).config


def test_an_old_name_beside_todays_is_refused():
    with pytest.raises(ValueError, match="'counts' and 'n_features_per_layer' are the same field"):
        in_todays_words({"counts": [1], "n_features_per_layer": [2]})


# ------------------------------------------------------------------ circuit-tracer's files, written by hand


def write_yaml(folder, kind="transcoder_set", **more):
    hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "mlp.hook_out"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model_kind": kind} | hooks | more))


def raw_set(skip=False, threshold=False):
    """Tensors of a per-layer set in double precision; no size is another's and no matrix symmetric."""
    torch.manual_seed(0)
    shapes = {"W_enc": (F, D), "W_dec": (F, D), "b_enc": F, "b_dec": D}
    shapes |= {"W_skip": (D, D)} if skip else {}
    shapes |= {"activation_function.threshold": F} if threshold else {}
    return [{name: torch.randn(shape).double() for name, shape in shapes.items()} for _ in range(L)]


def compare(name, x, features, outputs):
    clt = ik.load_transcoder(name, dtype=torch.float64)
    for found, expected in ((clt.encode(x), torch.stack(features)), (clt(x), torch.stack(outputs))):
        assert (found - expected).norm() < 1e-6 * expected.norm()
    return clt


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_per_layer_sets_with_skip_and_with_the_decoders_of_june_2025(activation, skip, transposed, tmp_path):
    """W_skip [out, in] is used as x @ W_skip.T; the older decoders are [d, F]; a threshold keeps the value above it."""
    write_yaml(tmp_path, model_name="tiny", **({"activation": "topk", "k": 3} if activation == "topk" else {}))
    x, features, outputs = torch.randn(L, 8, D).double(), [], []
    for i, t in enumerate(raw_set(skip, activation == "jumprelu")):
        pre = x[i] @ t["W_enc"].T + t["b_enc"]
        a = pre.relu()
        if activation == "jumprelu":
            a = torch.where(pre > t["activation_function.threshold"], pre, 0)
        if activation == "topk":
            a = a * (pre >= pre.sort(-1).values[:, -3:-2])
        features.append(a)
        outputs.append(a @ t["W_dec"] + t["b_dec"] + (x[i] @ t["W_skip"].T if skip else 0))
        decoder = {"W_dec": t["W_dec"].T.contiguous()} if transposed else {}
        save_file(t | decoder, tmp_path / f"layer_{i}.safetensors")
    config = compare(tmp_path, x, features, outputs).config
    assert (config.activation, config.skip, config.span) == (activation, skip, 1)
    assert (config.feature_input_hook, config.feature_output_hook, config.model) == (
        "hook_resid_mid",
        "mlp.hook_out",
        {"name": "tiny"},
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("threshold", [False, True])
def test_cross_layer_sets_where_the_skip_is_the_other_way_round(skip, threshold, tmp_path):
    """W_skip_i [in, out] is used as x @ W_skip_i."""
    write_yaml(tmp_path, "cross_layer_transcoder")
    x, features = torch.randn(L, 8, D).double(), []
    outputs = [torch.zeros(8, D).double() for _ in range(L)]
    for i, t in enumerate(raw_set(skip)):
        level, decoder = torch.randn(F).double(), torch.randn(F, L - i, D).double()
        pre = x[i] @ t["W_enc"].T + t["b_enc"]
        features.append(torch.where(pre > level, pre, 0) if threshold else pre.relu())
        for j in range(L - i):
            outputs[i + j] += features[i] @ decoder[:, j]
        outputs[i] += t["b_dec"] + (x[i] @ t["W_skip"] if skip else 0)
        t |= {"threshold": level} if threshold else {}
        save_file({f"{k}_{i}": v for k, v in t.items() if k != "W_dec"}, tmp_path / f"W_enc_{i}.safetensors")
        save_file({f"W_dec_{i}": decoder}, tmp_path / f"W_dec_{i}.safetensors")
    config = compare(tmp_path, x, features, outputs).config
    assert (config.skip, config.activation, config.span) == (skip, "jumprelu" if threshold else "relu", L)


def test_a_list_of_files_in_config_yaml(tmp_path, monkeypatch):
    """`transcoders` names one file a layer, here or on the Hub: circuit-tracer's way to choose among many sets."""
    asked = []

    def download(repository, file, revision=None):
        asked.append((repository, file, revision))
        return tmp_path / "hub" / file

    monkeypatch.setattr("interp_kit.transcoders.folder.hf_hub_download", download)
    raw = [{k: v.float() for k, v in t.items()} for t in raw_set()]
    hub = ["hf://some/where/layer_0.safetensors?revision=new", "hf://some/where/deep/er/layer_1.safetensors"]
    for path, t in zip(("hub/layer_0", "hub/deep/er/layer_1", "set/layer_7"), raw):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(t, tmp_path / f"{path}.safetensors")
    write_yaml(tmp_path / "set", transcoders=[*hub, "layer_7.safetensors"])
    clt = ik.load_transcoder(tmp_path / "set")
    assert asked == [("some/where", "layer_0.safetensors", "new"), ("some/where", "deep/er/layer_1.safetensors", None)]
    assert clt.layers == [0, 1, 2] and all(torch.equal(clt.W_enc[i], t["W_enc"]) for i, t in enumerate(raw))


@pytest.mark.parametrize(
    "about, message",
    [
        ({"model_kind": "sae"}, "neither transcoder_set nor"),
        ({"activation": "groupmax"}, "activation 'groupmax' is none of"),
        ({"activation": "topk"}, "and k for activation: topk.*k should be how many"),
        ({"feature_input_hook": "hook_resid_pre"}, "feature_input_hook 'hook_resid_pre': expected one of"),
        ({"feature_output_hook": "hook_resid_post"}, "feature_output_hook 'hook_resid_post': expected one of"),
    ],
)
def test_what_config_yaml_must_say(about, message, tmp_path):
    save_file(raw_set()[0], tmp_path / "layer_0.safetensors")
    write_yaml(tmp_path, **about)
    with pytest.raises(ValueError, match=message):
        ik.load_transcoder(tmp_path)
    (tmp_path / "config.yaml").write_text("just words")
    with pytest.raises(ValueError, match="should have model_kind, feature_input_hook"):
        ik.load_transcoder(tmp_path)


def test_log_thresholds_are_not_passed_over_as_a_relu(tmp_path):
    save_file(raw_set()[0] | {"log_thresholds": torch.zeros(F)}, tmp_path / "layer_0.safetensors")
    write_yaml(tmp_path)
    with pytest.raises(ValueError, match="tensors that interp_kit does not know: log_thresholds"):
        ik.load_transcoder(tmp_path)


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("kind", ["cross-layer", "per-layer"])
def test_a_layer_missing_from_circuit_tracers_files(kind, layer, tmp_path):
    tiny_transcoder(tiny_model(), **KINDS[kind]).save(tmp_path)
    (tmp_path / "interp_kit.json").unlink()
    stem = "layer" if kind == "per-layer" else "W_enc"
    (tmp_path / f"{stem}_{layer}.safetensors").unlink()
    if (kind, layer) == ("per-layer", 3):
        assert ik.load_transcoder(tmp_path).layers == [0, 1, 2]  # nothing tells that there was a last layer
    else:
        with pytest.raises(ValueError, match=f"{stem}_{layer}.safetensors is missing|copy the missing ones"):
            ik.load_transcoder(tmp_path)


def test_layers_of_which_one_has_a_skip_connection(tmp_path):
    write_yaml(tmp_path)
    for i, t in enumerate(raw_set(skip=True)):
        save_file({k: v for k, v in t.items() if i != 2 or k != "W_skip"}, tmp_path / f"layer_{i}.safetensors")
    with pytest.raises(ValueError, match="should be alike, and these differ"):
        ik.load_transcoder(tmp_path)


# ------------------------------------------------------------------ what stays on the disk


def test_large_decoders_stay_on_the_disk_in_the_files_dtype(tmp_path, monkeypatch):
    n, f, d = 16, 1024, 256
    write_yaml(tmp_path, "cross_layer_transcoder")
    for i in range(n):
        small = {f"W_enc_{i}": torch.randn(f, d), f"b_enc_{i}": torch.randn(f), f"b_dec_{i}": torch.randn(d)}
        save_file(small, tmp_path / f"W_enc_{i}.safetensors")
        last = torch.randn(f, n - i, d).half()
        save_file({f"W_dec_{i}": last}, tmp_path / f"W_dec_{i}.safetensors")
    monkeypatch.setattr("interp_kit.transcoders.folder.STAY_ON_DISK_BYTES", 2**26)
    before = psutil.Process().memory_info().rss
    clt = ik.load_transcoder(tmp_path)
    grown = psutil.Process().memory_info().rss - before
    assert sum(w.nbytes for w in clt.W_dec) > 71e6 and clt.W_enc.nbytes > 16e6
    assert grown < 45e6  # the encoders, once in the page cache and once stacked; no decoders
    assert {w.dtype for w in clt.W_dec} == {torch.float16} and clt.W_enc.dtype == torch.float32
    rows = clt.decoder_rows(n - 1, torch.tensor([3, 700]), n - 1)
    assert torch.equal(rows, last[[3, 700], 0].float())
    assert clt.decode(torch.zeros(n, 1, f)).dtype == torch.float32


def test_small_decoders_are_converted(tmp_path):
    save_transcoder(tiny_transcoder(tiny_model()), tmp_path / "t", torch.float16)
    assert {w.dtype for w in ik.load_transcoder(tmp_path / "t").W_dec} == {torch.float32}


# ------------------------------------------------------------------ names on the Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with the folder `hub` as its one repository; records what was downloaded. No cache, no network."""
    repository, downloads = tmp_path / "hub", []
    tiny_transcoder(tiny_model()).save(repository / "sets" / "clt")

    def snapshot_download(name, revision=None, allow_patterns=None, dry_run=False):
        if name != "owner/repository":
            raise DryRunError("cannot be reached") if dry_run else LocalEntryNotFoundError("not in the cache")
        files = [path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()]
        files = [file for file in files if any(fnmatch(file, pattern) for pattern in allow_patterns)]
        if dry_run:
            return [SimpleNamespace(filename=file) for file in files]
        downloads.append((revision, sorted(files)))
        return str(repository)

    monkeypatch.setattr("interp_kit.transcoders.folder.snapshot_download", snapshot_download)
    return SimpleNamespace(folder=repository, downloads=downloads)


def test_a_folder_of_a_repository_at_a_revision(hub):
    (hub.folder / "sets" / "clt" / "training.pt").write_bytes(b"a pickle")
    (hub.folder / "sets" / "clt" / "examples.safetensors").write_bytes(b"texts")
    assert ik.load_transcoder("owner/repository/sets/clt@v2").n_features == 20
    ((revision, files),) = hub.downloads
    assert revision == "v2" and len(files) == 2 + 2 * 4
    assert all(re.fullmatch(r"sets/clt/(config.yaml|interp_kit.json|W_(enc|dec)_\d.safetensors)", f) for f in files)


def test_several_sets_in_a_repository_are_refused_before_the_download(hub):
    for l0 in (5, 80):
        (hub.folder / "layer_3" / f"average_l0_{l0}").mkdir(parents=True)
        (hub.folder / "layer_3" / f"average_l0_{l0}" / "params.npz").write_bytes(b"much")
    with pytest.raises(ValueError, match="layer 3 has 2 transcoders"):
        ik.load_transcoder("owner/repository")
    assert not hub.downloads


def test_a_repository_that_the_hub_does_not_hand_over(hub):
    with pytest.raises(OSError, match="no folder 'someone/else' here, and the Hugging Face Hub did not hand over"):
        ik.load_transcoder("someone/else")


def test_a_local_folder_comes_before_the_hub(hub, tmp_path, monkeypatch):
    tiny_transcoder(tiny_model(), n_features=12).save(tmp_path / "owner" / "repository")
    monkeypatch.chdir(tmp_path)
    assert ik.load_transcoder("owner/repository").n_features == 12 and not hub.downloads


@pytest.mark.parametrize("kind", KINDS)
def test_int8_files_take_a_byte_a_weight_and_stay_close(kind, tmp_path):
    clt = tiny_transcoder(tiny_model(), **KINDS[kind])
    clt.W_enc.data[1, 2] = 0  # a row of zeros has no scale of its own
    save_transcoder(clt, tmp_path / "t", torch.int8)
    back = ik.load_transcoder(tmp_path / "t")
    assert back.config == clt.config and back.W_enc.dtype == torch.float32
    for ours, theirs in zip([clt.W_enc, *clt.W_dec], [back.W_enc, *back.W_dec], strict=True):
        largest = ours.abs().amax(-1, keepdim=True)
        assert ((ours - theirs).abs() <= largest / 254 + 1e-9).all()
    file = load_file(tmp_path / "t" / ("layer_3.safetensors" if clt.config.span == 1 else "W_dec_3.safetensors"))
    decoder = next(tensor for name, tensor in file.items() if name in ("W_dec", "W_dec_3"))
    assert decoder.dtype == torch.int8


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_int8_transcoder_stays_int8_and_computes_the_same(kind, tmp_path, monkeypatch):
    model = tiny_model()
    clt = tiny_transcoder(model, **KINDS[kind])
    save_transcoder(clt, tmp_path / "t", torch.int8)
    floats = ik.load_transcoder(tmp_path / "t")
    monkeypatch.setattr("interp_kit.transcoders.folder.STAY_INT8_BYTES", 0)
    held = ik.load_transcoder(tmp_path / "t")
    assert isinstance(floats.W_enc, torch.nn.Parameter) and isinstance(held.W_enc, Int8Rows)
    assert held.W_enc.numbers.dtype == torch.int8 and {rows.numbers.dtype for rows in held.W_dec} == {torch.int8}
    assert held.fingerprint == floats.fingerprint and held.config == floats.config
    held.save(tmp_path / "saved")
    copies = [held, ik.load_transcoder(tmp_path / "saved")]  # the second in floats again
    copies.append(held.keep_features([torch.arange(n) for n in held.n_features_per_layer]))
    x = torch.randn(len(clt.layers), 5, model.d_model)
    for each in copies:
        torch.testing.assert_close(each(x), floats(x))
        assert torch.equal(each.encode(x) > 0, floats.encode(x) > 0)
        assert all(torch.equal(ours[:], theirs) for ours, theirs in zip(each.W_dec, floats.W_dec, strict=True))
    double = held.in_dtype(torch.float64)
    assert double(x).dtype == torch.float64 and double.W_enc.numbers.data_ptr() == held.W_enc.numbers.data_ptr()
    torch.testing.assert_close(double(x).float(), floats(x))
    ours, theirs = (ik.attribute(model, each, "Dallas is in Texas") for each in (held, floats))
    np.testing.assert_allclose(ours.adjacency, theirs.adjacency, rtol=1e-4, atol=1e-6)
    found, wanted = (ik.evaluate_transcoder(model, each, ["Dallas is in Texas"]).summary for each in (held, floats))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for cast in (torch.nn.Module.double, torch.nn.Module.half, lambda module: module.to(torch.bfloat16)):
        other, floats_there = cast(copy.deepcopy(held)), cast(copy.deepcopy(floats))
        assert other.W_enc[0].dtype == other.b_enc.dtype == other(x).dtype
        assert all(torch.equal(ours[:], theirs) for ours, theirs in zip(other.W_dec, floats_there.W_dec, strict=True))


def test_a_large_int8_transcoder_takes_a_quarter_of_the_memory(tmp_path, monkeypatch):
    clt = tiny_transcoder(tiny_model(), n_features=60_000)
    save_transcoder(clt, tmp_path / "t", torch.int8)
    before = psutil.Process().memory_info().rss
    monkeypatch.setattr("interp_kit.transcoders.folder.STAY_INT8_BYTES", 0)
    clt = ik.load_transcoder(tmp_path / "t")
    assert sum(t.nbytes for t in clt.state_dict().values() if t.dtype != torch.int8) < 8e6  # biases, thresholds, scales
    assert psutil.Process().memory_info().rss - before < 25e6  # of 60 as floats


def test_scales_that_do_not_fit_are_refused(tmp_path):
    save_transcoder(tiny_transcoder(tiny_model(), span=1), tmp_path / "t", torch.int8)
    path = tmp_path / "t" / "layer_2.safetensors"
    tensors = load_file(path)
    tensors["W_dec_scale"] = tensors["W_dec_scale"][:-1].clone()
    save_file(tensors, path)
    with pytest.raises(ValueError, match="W_dec_scale should have one number for each row"):
        ik.load_transcoder(tmp_path / "t")


# ------------------------------------------------------------------ damaged files


@pytest.fixture
def saved(tmp_path):
    tiny_transcoder(tiny_model()).save(tmp_path / "t")
    return tmp_path / "t"


def test_no_such_transcoder(tmp_path):
    with pytest.raises(FileNotFoundError, match="pocket"):
        ik.load_transcoder(tmp_path / "nothing")


def test_a_missing_file(saved):
    (saved / "W_dec_2.safetensors").unlink()
    with pytest.raises(ValueError, match="W_dec_2.safetensors is missing"):
        ik.load_transcoder(saved)


def test_a_truncated_file(saved):
    path = saved / "W_dec_2.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or cut short"):
        ik.load_transcoder(saved)


def test_non_finite_weights(saved):
    tensors = load_file(saved / "W_enc_1.safetensors")
    tensors["W_enc_1"][3, 4] = float("nan")
    save_file(tensors, saved / "W_enc_1.safetensors")
    with pytest.raises(ValueError, match="W_enc holds NaN"):
        ik.load_transcoder(saved)


def test_wrong_shapes_in_a_file(saved):
    tensors = load_file(saved / "W_enc_1.safetensors")
    tensors["W_enc_1"] = tensors["W_enc_1"].T.contiguous()
    save_file(tensors, saved / "W_enc_1.safetensors")
    with pytest.raises(ValueError, match=r"should be \[20, 16\], found \[16, 20\]"):
        ik.load_transcoder(saved)


def test_a_corrupt_description(saved):
    (saved / "interp_kit.json").write_text(json.dumps({"d_model": 16}))
    with pytest.raises(ValueError, match="not a transcoder's description"):
        ik.load_transcoder(saved)


def test_saving_fails_whole(saved, monkeypatch):
    """A save that breaks half-way leaves the old transcoder as it was."""
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    calls = []

    def breaks(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError("disk full")
        save_file(*args, **kwargs)

    monkeypatch.setattr("interp_kit.transcoders.folder.save_file", breaks)
    with pytest.raises(OSError, match="disk full"):
        tiny_transcoder(tiny_model(), seed=9).save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["t"]
