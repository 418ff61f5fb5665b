import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.models.anatomy import mlp_activations
from interp_kit.transcoders.activations import ActivationStream, encode_texts, pad
from interp_kit.transcoders.training import Trainer, decode_active

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20
SMALL = {"n_features": 48, "k": 5, "steps": 120, "batch": 64}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("activation", ["topk", "threshold"])
@pytest.mark.parametrize("kind", ["cross-layer", "per-layer"])
def test_training_explains_most_of_the_mlps(model, activation, kind):
    run = ik.train_transcoder(model, TEXTS, activation=activation, kind=kind, **SMALL)
    report = ik.evaluate_transcoder(model, run.transcoder, TEXTS)
    assert report.summary["NMSE"] < 0.1
    assert 3 <= report.summary["L0"] <= 8
    assert run.transcoder.config.span == (4 if kind == "cross-layer" else 1)
    assert run.history["step"].iloc[-1] == 120 and run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]


def test_sparse_step_equals_the_dense_one(model):
    """The training step's output and gradients, against the module's own encode and decode under autograd."""
    rows = encode_texts(model, TEXTS)
    stream = ActivationStream(model.hf, rows, [0, 1, 2, 3], "mlp.hook_in", False, 0)
    from interp_kit.transcoders import TranscoderConfig

    config = TranscoderConfig(16, 48, [0, 1, 2, 3], 4, k=5)
    trainer = Trainer(config, stream, 10, 32, 1e-3, 0)
    for weights in trainer.clt.W_dec:
        weights.data.normal_()
    x, y = torch.randn(2, 4, 32, 16)
    rebuilt, active = trainer._forward(x, 0)
    (rebuilt - y).pow(2).sum().backward()
    sparse = {name: p.grad.clone() for name, p in trainer.clt.named_parameters()}
    trainer.clt.zero_grad()
    features = trainer.clt.encode(x)
    dense = trainer.clt.decode(features)
    (dense - y).pow(2).sum().backward()
    torch.testing.assert_close(rebuilt, dense, rtol=1e-4, atol=1e-5)
    assert active == (features > 0).sum()
    for name, parameter in trainer.clt.named_parameters():
        torch.testing.assert_close(sparse[name], parameter.grad, rtol=1e-3, atol=1e-3)


def test_decode_active_with_tokens_that_have_no_feature():
    rows = torch.randn(6, 3)
    out = decode_active(torch.tensor([2.0, 1.0]), torch.tensor([1, 1]), torch.tensor([5, 0]), rows, 4)
    wanted = torch.zeros(4, 3)
    wanted[1] = 2 * rows[5] + rows[0]
    torch.testing.assert_close(out, wanted)


def test_folding_the_scales_changes_no_output(model):
    stream = ActivationStream(model.hf, encode_texts(model, TEXTS), [0, 1, 2, 3], "mlp.hook_in", False, 0)
    from interp_kit.transcoders import TranscoderConfig

    trainer = Trainer(TranscoderConfig(16, 48, [0, 1, 2, 3], 4, k=5), stream, 10, 32, 1e-3, 0)
    for weights in trainer.clt.W_dec:
        weights.data.normal_()
    x, _ = stream.activations(stream.rows)
    normalised = trainer.clt(x * trainer.x_scale) / trainer.y_scale + trainer.y_mean
    torch.testing.assert_close(trainer.finished()(x), normalised, rtol=1e-4, atol=1e-4)


def test_a_killed_run_ends_with_the_same_weights(model, tmp_path, monkeypatch):
    whole = ik.train_transcoder(model, TEXTS, **SMALL)
    real = Trainer._step

    def killed(self, step, *args):
        if step == 110:
            raise SystemExit("killed")
        real(self, step, *args)

    monkeypatch.setattr(Trainer, "_step", killed)
    with pytest.raises(SystemExit):
        ik.train_transcoder(model, TEXTS, checkpoint=tmp_path, **SMALL)
    monkeypatch.setattr(Trainer, "_step", real)
    resumed = ik.train_transcoder(model, TEXTS, checkpoint=tmp_path, **SMALL)
    for a, b in zip(whole.transcoder.parameters(), resumed.transcoder.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.history.equals(resumed.history)


def test_interrupting_returns_the_transcoder_so_far(model, monkeypatch):
    real = Trainer._step

    def stop(self, step, *args):
        if step == 60:
            raise KeyboardInterrupt
        real(self, step, *args)

    monkeypatch.setattr(Trainer, "_step", stop)
    run = ik.train_transcoder(model, TEXTS, **SMALL)
    assert run.history["step"].iloc[-1] == 50
    assert ik.evaluate_transcoder(model, run.transcoder, TEXTS).summary["NMSE"] < 0.5


def test_some_layers_only(model):
    run = ik.train_transcoder(model, TEXTS, layers=[1, 3], **SMALL)
    assert run.transcoder.layers == [1, 3]
    assert ik.evaluate_transcoder(model, run.transcoder, TEXTS).layers.index.tolist() == [1, 3]


def test_stream_leaves_out_padding_and_is_the_models_own(model):
    rows = encode_texts(model, TEXTS[:3])
    stream = ActivationStream(model.hf, rows, [0, 2], "mlp.hook_in", True, 0)
    x, y = stream.activations(rows)
    assert x.shape == y.shape == (2, stream.count(rows), 16)
    alone = sorted(rows, key=len)[0]
    ax, ay = mlp_activations(model.hf, torch.tensor([alone]), "mlp.hook_in", [0, 2])
    torch.testing.assert_close(x[:, : len(alone) - 1], ax[:, 0, 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y[:, : len(alone) - 1], ay[:, 0, 1:], rtol=1e-4, atol=1e-5)


def test_mlp_output_is_what_the_mlp_makes_of_its_input(model):
    ids, _ = pad(encode_texts(model, TEXTS[:2]))
    x, y = mlp_activations(model.hf, ids, "mlp.hook_in", [0, 1, 2, 3])
    for layer, block in enumerate(model.hf.model.layers):
        torch.testing.assert_close(block.mlp(x[layer]), y[layer])
    mid, _ = mlp_activations(model.hf, ids, "hook_resid_mid", [0, 1, 2, 3])
    torch.testing.assert_close(model.hf.model.layers[2].post_attention_layernorm(mid[2]), x[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "sideways"}, "cross-layer, per-layer"),
        ({"activation": "gelu"}, "topk, threshold"),
        ({"layers": [9]}, "some of 0 to 3"),
        ({"k": 500}, "between 1 and the 48"),
    ],
)
def test_bad_arguments(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        ik.train_transcoder(model, TEXTS, **SMALL | wrong)


def test_bad_texts(model):
    with pytest.raises(ValueError, match="no text to read"):
        ik.train_transcoder(model, ["", ""], **SMALL)
    with pytest.raises(TypeError, match="wrap it in a list"):
        ik.train_transcoder(model, "a string", **SMALL)
