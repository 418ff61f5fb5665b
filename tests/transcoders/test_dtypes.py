"""Whatever the types and devices of model and transcoder, what is measured of them is the same."""

import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.transcoders.folder import save_transcoder
from interp_kit.transcoders.replacement import replaced_mlps

TEXTS = tiny_texts(12)
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SMALL = {"n_features": 24, "k": 3, "steps": 4, "batch": 32, "progress": False}


def model_of(dtype):
    model = tiny_model()
    model.hf.to(dtype)
    return model


@pytest.mark.parametrize("theirs", DTYPES)
@pytest.mark.parametrize("ours", DTYPES)
def test_evaluation_of_any_model_and_transcoder(ours, theirs):
    clt = tiny_transcoder(tiny_model(), skip=True)
    wanted = ik.evaluate_transcoder(tiny_model(), clt, TEXTS)
    model = model_of(theirs)
    clt.config.model.clear()  # the fingerprint is of other numbers
    mine = clt.in_dtype(ours)
    found = ik.evaluate_transcoder(model, mine, TEXTS)
    assert model.dtype == theirs and mine.W_enc.dtype == ours
    close = {"rtol": 0.1, "atol": 0.1} if torch.bfloat16 in (ours, theirs) else {"rtol": 0.02, "atol": 0.02}
    pd.testing.assert_series_equal(found.summary, wanted.summary, **close)
    pd.testing.assert_frame_equal(found.baselines, wanted.baselines, **close)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_replaced_mlp_writes_in_the_models_type(dtype):
    model, clt = model_of(dtype), tiny_transcoder(tiny_model(), span=2, skip=True)
    with torch.no_grad(), replaced_mlps(model.hf, clt):
        logits = model.hf(input_ids=model.encode(TEXTS[0])[None]).logits
    assert logits.dtype == dtype and logits.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
def test_training_on_any_model(dtype, activation):
    run = ik.train_transcoder(model_of(dtype), TEXTS, activation=activation, **SMALL)
    assert run.transcoder.W_enc.dtype == torch.float32
    assert all(weights.isfinite().all() for weights in run.transcoder.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_module_computes_in_its_own_type(dtype):
    clt, x = tiny_transcoder(tiny_model(), skip=True), torch.randn(4, 3, 16)
    features = clt.encode(x.to(dtype))
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, clt.encode(x.to(dtype).float()))
    assert clt.decode(features.to(dtype), x.to(dtype)).dtype == torch.float32
    assert clt.encode_layer(1, x[1].to(dtype)).dtype == torch.float32


def test_a_copy_in_another_type_leaves_what_lies_on_the_disk_there(tmp_path, monkeypatch):
    monkeypatch.setattr("interp_kit.transcoders.folder.STAY_ON_DISK_BYTES", 1)
    save_transcoder(tiny_transcoder(tiny_model()), tmp_path, torch.float16)
    clt = ik.load_transcoder(tmp_path)
    double = clt.in_dtype(torch.float64)
    assert clt.in_dtype(torch.float32) is clt and double.W_enc.dtype == torch.float64
    assert {weights.dtype for weights in double.W_dec} == {torch.float16} and double.fingerprint == clt.fingerprint
    assert double.W_dec[0].data_ptr() == clt.W_dec[0].data_ptr() and double.on_disk == str(tmp_path)
    x = torch.randn(4, 3, 16)
    torch.testing.assert_close(double(x), clt(x).double(), rtol=1e-4, atol=1e-4)


def test_no_tensor_is_left_to_the_default_device(tmp_path):
    """With a default device that holds no numbers: what is made there cannot be used with the model's tensors."""
    model, clt = tiny_model(), tiny_transcoder(tiny_model(), skip=True, excludes_first_position=True)
    clt.save(tmp_path / "t")
    model.fingerprint  # noqa: B018 - it is kept from here on
    wanted = ik.evaluate_transcoder(model, clt, TEXTS), ik.train_transcoder(model, TEXTS, **SMALL).transcoder
    with torch.device("meta"):
        loaded = ik.load_transcoder(tmp_path / "t")
        found = ik.evaluate_transcoder(model, loaded, TEXTS), ik.train_transcoder(model, TEXTS, **SMALL).transcoder
    assert found[0].summary.equals(wanted[0].summary) and torch.equal(found[1].W_enc, wanted[1].W_enc)
