import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.transcoders import TranscoderConfig
from interp_kit.transcoders.files import save_transcoder

KINDS = {"cross-layer": {}, "per-layer": {"span": 1}, "span 2": {"span": 2}, "threshold": {"activation": "threshold"}}


def test_encode_keeps_the_k_largest_or_what_exceeds_the_threshold():
    model = tiny_model()
    x = torch.randn(4, 7, 16)
    top = tiny_transcoder(model)
    pre = torch.einsum("lpd,lfd->lpf", x, top.W_enc) + top.b_enc[:, None]
    features = top.encode(x)
    assert ((features > 0).sum(-1) <= 5).all()
    kth = pre.sort(-1, descending=True).values[..., 4:5]
    torch.testing.assert_close(features, torch.where(pre >= kth, pre.relu(), torch.zeros(())))
    jump = tiny_transcoder(model, activation="threshold")
    torch.testing.assert_close(jump.encode(x), torch.where(pre > jump.threshold[:, None], pre, torch.zeros(())))


@pytest.mark.parametrize("kind", KINDS)
def test_decode_is_the_written_sum(kind):
    clt = tiny_transcoder(tiny_model(), **KINDS[kind])
    a = clt.encode(torch.randn(4, 7, 16))
    wanted = clt.b_dec[:, None].repeat(1, 7, 1)
    for source in range(4):
        for target in range(source, min(4, source + clt.config.span)):
            wanted[target] += a[source] @ clt.W_dec[source][:, target - source]
    torch.testing.assert_close(clt.decode(a), wanted)
    rows = clt.decoder_rows(1, torch.tensor([3, 0]), 1)
    torch.testing.assert_close(rows, clt.W_dec[1][[3, 0], 0])


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
    clt = tiny_transcoder(tiny_model(), activation="threshold")
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


def test_only_keeps_the_named_features_and_what_they_do(tmp_path):
    clt = tiny_transcoder(tiny_model(), activation="threshold")
    kept = [torch.randperm(20)[:n] for n in (12, 3, 20, 7)]
    clt.only(kept).save(tmp_path / "t")
    smaller = ik.load_transcoder(tmp_path / "t")
    assert smaller.counts == [12, 3, 20, 7] and smaller.n_features == 20
    x = torch.randn(4, 7, 16)
    features, found = clt.encode(x), smaller.encode(x)
    rest = features.clone()
    for i, indices in enumerate(kept):
        torch.testing.assert_close(found[i][:, : len(indices)], features[i][:, indices])
        assert not found[i][:, len(indices) :].any()
        rest[i][:, indices] = 0
    torch.testing.assert_close(smaller(x) + clt.decode(rest) - clt.b_dec[:, None], clt(x), rtol=1e-4, atol=1e-4)


def test_float16_files_load_as_float32_and_stay_close(tmp_path):
    clt = tiny_transcoder(tiny_model())
    save_transcoder(clt, tmp_path / "t", torch.float16)
    back = ik.load_transcoder(tmp_path / "t")
    assert back.W_enc.dtype == torch.float32 and back.b_enc.equal(clt.b_enc)
    torch.testing.assert_close(back.W_dec[0], clt.W_dec[0], rtol=1e-3, atol=1e-3)


def test_wrong_shape_names_both_shapes():
    with pytest.raises(ValueError, match=r"\[4, \*, 16\], got \[3, 7, 16\]"):
        tiny_transcoder(tiny_model()).encode(torch.zeros(3, 7, 16))


@pytest.mark.parametrize(
    "wrong", [{"activation": "gelu"}, {"span": 5}, {"span": 0}, {"k": 0}, {"k": 99}, {"reads": "resid"}]
)
def test_configurations_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        TranscoderConfig(**{"d_model": 16, "n_features": 20, "layers": [0, 1], "span": 2} | wrong)


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

    monkeypatch.setattr("interp_kit.transcoders.files.save_file", breaks)
    with pytest.raises(OSError, match="disk full"):
        tiny_transcoder(tiny_model(), seed=9).save(saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["t"]
