import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.transcoders import TranscoderConfig

KINDS = {"cross-layer": {}, "per-layer": {"span": 1}, "span 2": {"span": 2}, "threshold": {"activation": "jumprelu"}}


def test_encode_keeps_the_k_largest_or_what_exceeds_the_threshold():
    model = tiny_model()
    x = torch.randn(4, 7, 16)
    top = tiny_transcoder(model)
    pre = torch.einsum("lpd,lfd->lpf", x, top.W_enc) + top.b_enc[:, None]
    features = top.encode(x)
    assert ((features > 0).sum(-1) <= 5).all()
    kth = pre.sort(-1, descending=True).values[..., 4:5]
    torch.testing.assert_close(features, torch.where(pre >= kth, pre.relu(), torch.zeros(())))
    jump = tiny_transcoder(model, activation="jumprelu")
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


def test_only_keeps_the_named_features_and_what_they_do(tmp_path):
    clt = tiny_transcoder(tiny_model(), activation="jumprelu")
    kept = [torch.randperm(20)[:n] for n in (12, 3, 20, 7)]
    clt.keep_features(kept).save(tmp_path / "t")
    smaller = ik.load_transcoder(tmp_path / "t")
    assert smaller.n_features_per_layer == [12, 3, 20, 7] and smaller.n_features == 20
    x = torch.randn(4, 7, 16)
    features, found = clt.encode(x), smaller.encode(x)
    rest = features.clone()
    for i, indices in enumerate(kept):
        torch.testing.assert_close(found[i][:, : len(indices)], features[i][:, indices])
        assert not found[i][:, len(indices) :].any()
        rest[i][:, indices] = 0
    torch.testing.assert_close(smaller(x) + clt.decode(rest) - clt.b_dec[:, None], clt(x), rtol=1e-4, atol=1e-4)


def test_wrong_shape_names_both_shapes():
    with pytest.raises(ValueError, match=r"\[4, \*, 16\], got \[3, 7, 16\]"):
        tiny_transcoder(tiny_model()).encode(torch.zeros(3, 7, 16))


@pytest.mark.parametrize(
    "wrong",
    [
        {"activation": "gelu"},
        {"span": 5},
        {"span": 0},
        {"k": 0},
        {"k": 99},
        {"feature_input_hook": "resid"},
        {"feature_output_hook": "resid"},
        {"activation": ["topk"]},
        {"layers": [1, 0]},
        {"layers": [0, 0]},
        {"layers": [-1, 0]},
        {"layers": [0, "1"]},
        {"skip": "false"},
        {"excludes_first_position": 1},
        {"n_features_per_layer": [20]},
        {"n_features_per_layer": [20, 21]},
        {"d_model": 16.0},
        {"n_features": True},
        {"model": {"name": None}},
    ],
)
def test_configurations_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        TranscoderConfig(**{"d_model": 16, "n_features": 20, "layers": [0, 1], "span": 2} | wrong)


def test_a_range_and_numpys_numbers_are_plain_afterwards():
    config = TranscoderConfig(np.int64(16), 20, range(2), np.int8(2), model={})
    assert (config.d_model, config.layers, config.span) == (16, [0, 1], 2) and type(config.d_model) is int


def test_a_transcoder_of_the_mlps_own_output_does_not_fit_a_model_with_a_norm_after_it():
    gemma, llama = tiny_model("gemma2"), tiny_model("llama")
    tiny_transcoder(llama, feature_output_hook="mlp.hook_out").check_model(llama)
    tiny_transcoder(gemma).check_model(gemma)
    with pytest.raises(ValueError, match="load one that rebuilds what the norm writes"):
        tiny_transcoder(gemma, feature_output_hook="mlp.hook_out").check_model(gemma)
