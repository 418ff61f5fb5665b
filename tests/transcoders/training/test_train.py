"""What `train_transcoder` promises: it learns, resumes to the last bit, stops when asked, refuses nonsense."""

import inspect
import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_model

import interp_kit as ik
from interp_kit.transcoders.training import trainer as module
from interp_kit.transcoders.training.config import TrainingConfig
from interp_kit.transcoders.training.trainer import Trainer

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20
SMALL = {"n_features": 48, "k": 5, "steps": 120, "batch": 64}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
@pytest.mark.parametrize("kind", ["cross-layer", "per-layer"])
def test_training_explains_most_of_the_mlps(model, activation, kind):
    run = ik.train_transcoder(model, TEXTS, activation=activation, kind=kind, sparsity=0.3, **SMALL)
    report = ik.evaluate_transcoder(model, run.transcoder, TEXTS)
    assert report.summary["NMSE"] < 0.1
    assert 3 <= report.summary["L0"] <= (18 if activation == "jumprelu" else 8)
    assert run.transcoder.config.span == (4 if kind == "cross-layer" else 1)
    assert run.history["step"].iloc[-1] == 120 and run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]


def test_a_stronger_penalty_keeps_fewer_features_on(model):
    weak, strong = (ik.train_transcoder(model, TEXTS, activation="jumprelu", sparsity=s, **SMALL) for s in (0.1, 5.0))
    assert strong.history["L0"].iloc[-1] < 0.8 * weak.history["L0"].iloc[-1]


def test_history_is_what_evaluation_measures(model):
    run = ik.train_transcoder(model, TEXTS, dtype=torch.float32, **SMALL)
    measured = ik.evaluate_transcoder(model, run.transcoder, TEXTS).summary
    last = run.history.iloc[-1]
    assert last["NMSE"] == pytest.approx(measured["NMSE"], rel=0.3)
    assert last["L0"] == pytest.approx(measured["L0"], rel=0.05)


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
def test_a_killed_run_ends_with_the_same_weights(model, tmp_path, monkeypatch, activation):
    whole = ik.train_transcoder(model, TEXTS, activation=activation, **SMALL)
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    real = Trainer.step

    def killed(self, batch):
        if batch.step == 77:
            raise SystemExit("killed")
        real(self, batch)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(SystemExit):
        ik.train_transcoder(model, TEXTS, activation=activation, checkpoint=tmp_path, **SMALL)
    steps = []
    monkeypatch.setattr(Trainer, "step", lambda self, batch: (steps.append(batch.step), real(self, batch)))
    resumed = ik.train_transcoder(model, TEXTS, activation=activation, checkpoint=tmp_path, **SMALL)
    assert steps == list(range(77, 120))
    for name, weights in whole.transcoder.state_dict().items():
        assert torch.equal(weights, resumed.transcoder.state_dict()[name])
    assert whole.history.equals(resumed.history)


def settings_of_old(folder):
    """Rewrites a checkpoint's settings as versions before 0.2 named them."""
    path = folder / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    notes = json.loads(about["notes"])
    activation = notes["settings"].pop("activation")
    names = {
        "feature_input_hook": "reads", "feature_output_hook": "writes", "excludes_first_position": "skips_first",
        "n_features_per_layer": "counts",
    }  # fmt: skip
    notes["settings"] = {names.get(name, name): value for name, value in notes["settings"].items()} | {
        "activation": "topk" if activation == "topk" else "threshold",
        "jumprelu": activation == "jumprelu",
    }
    save_file(tensors, path, about | {"notes": json.dumps(notes)})


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
def test_a_checkpoint_of_an_older_version_is_gone_on_from(model, tmp_path, monkeypatch, activation):
    whole = ik.train_transcoder(model, TEXTS, activation=activation, checkpoint=tmp_path, **SMALL)
    settings_of_old(tmp_path)
    monkeypatch.setattr(Trainer, "step", None)
    again = ik.train_transcoder(model, TEXTS, activation=activation, checkpoint=tmp_path, **SMALL)
    assert torch.equal(whole.transcoder.W_enc, again.transcoder.W_enc) and whole.history.equals(again.history)
    other = "jumprelu" if activation == "batchtopk" else "batchtopk"
    with pytest.raises(ValueError, match=f"activation '{activation}', now '{other}'"):
        ik.train_transcoder(model, TEXTS, activation=other, checkpoint=tmp_path, **SMALL)


def test_the_old_name_of_batchtopk_warns_and_works(model):
    short = SMALL | {"steps": 3}
    with pytest.warns(DeprecationWarning, match='now activation="batchtopk"') as warned:
        old = ik.train_transcoder(model, TEXTS, activation="threshold", **short)
    assert warned[0].filename == __file__
    new = ik.train_transcoder(model, TEXTS, activation="batchtopk", **short)
    assert torch.equal(old.transcoder.threshold, new.transcoder.threshold)


def test_keywords_are_the_fields_of_the_configuration():
    keywords = inspect.signature(ik.train_transcoder).parameters.values()
    given = {p.name: p.default for p in keywords}
    settings = {field.name: field.default for field in fields(TrainingConfig)}
    assert settings.items() <= given.items()
    assert given.keys() - settings.keys() == {"model", "texts", "checkpoint", "progress"}


def test_a_finished_run_is_not_trained_again(model, tmp_path, monkeypatch):
    whole = ik.train_transcoder(model, TEXTS, checkpoint=tmp_path, **SMALL)
    monkeypatch.setattr(Trainer, "step", None)
    again = ik.train_transcoder(model, TEXTS, checkpoint=tmp_path, **SMALL)
    for a, b in zip(whole.transcoder.parameters(), again.transcoder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_run_is_refused(model, tmp_path):
    ik.train_transcoder(model, TEXTS, checkpoint=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="of another run .*k 5, now 6"):
        ik.train_transcoder(model, TEXTS, checkpoint=tmp_path, **SMALL | {"k": 6})


def test_interrupting_returns_the_transcoder_so_far(model, monkeypatch):
    real = Trainer.step

    def stop(self, batch):
        if batch.step == 60:
            raise KeyboardInterrupt
        real(self, batch)

    monkeypatch.setattr(Trainer, "step", stop)
    run = ik.train_transcoder(model, TEXTS, **SMALL)
    assert run.history["step"].iloc[-1] == 50
    assert ik.evaluate_transcoder(model, run.transcoder, TEXTS).summary["NMSE"] < 0.5


def test_some_layers_only(model):
    run = ik.train_transcoder(model, TEXTS, layers=[1, 3], **SMALL)
    assert run.transcoder.layers == [1, 3]
    assert ik.evaluate_transcoder(model, run.transcoder, TEXTS).layers.index.tolist() == [1, 3]


def test_a_span_between_per_layer_and_cross_layer(model):
    run = ik.train_transcoder(model, TEXTS, span=2, **SMALL)
    assert [weights.shape[1] for weights in run.transcoder.W_dec] == [2, 2, 2, 1]


def test_a_model_in_half_precision(model):
    half = tiny_model()
    half.hf.to(torch.bfloat16)
    run = ik.train_transcoder(half, TEXTS, **SMALL)
    assert run.transcoder.W_enc.dtype == torch.float32 and run.history["NMSE"].iloc[-1] < 0.1


def test_the_model_is_left_as_it_was(model):
    ik.train_transcoder(model, TEXTS, **SMALL | {"steps": 3})
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "sideways"}, "cross-layer, per-layer"),
        ({"activation": "gelu"}, "topk, batchtopk, jumprelu"),
        ({"layers": [9]}, "some of 0 to 3"),
        ({"layers": [1, 1]}, "ascending"),
        ({"layers": [True]}, r"layers\[0\] should be a valid integer"),
        ({"k": 500}, "between 1 and the 48"),
        ({"k": 5.0}, "k should be a whole number of at least 1, got 5.0"),
        ({"n_features": "48"}, "n_features should be a whole number"),
        ({"steps": -1}, "steps should be a whole number of at least 0"),
        ({"batch": 0}, "batch should be a whole number of at least 1"),
        ({"batch": True}, "batch should be a whole number"),
        ({"seed": 2**70}, "seed should be a whole number"),
        ({"span": 0}, "span should be a whole number of at least 1"),
        ({"learning_rate": 0}, "learning_rate should be a finite number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate should be"),
        ({"sparsity": float("inf")}, "sparsity should be"),
        ({"sparsity": "2"}, "sparsity should be"),
        ({"dtype": torch.int8}, "dtype should be a floating-point type"),
        ({"dtype": "bfloat16"}, "dtype should be a floating-point type"),
        ({"k": 500, "activation": "batchtopk"}, "between 1 and the 48"),
        ({"span": 5}, "span 5"),
        ({"parallel": "layers"}, "data, features"),
        ({"memory": "much"}, "no amount"),
    ],
)
def test_bad_arguments(model, wrong, message):
    with pytest.raises(ValueError, match=message):
        ik.train_transcoder(model, TEXTS, **SMALL | wrong)


def test_numpys_numbers_are_numbers(model, tmp_path):
    some = {"n_features": np.int64(48), "k": np.int32(5), "steps": np.int16(3), "batch": np.int64(64)}
    run = ik.train_transcoder(model, TEXTS, layers=np.array([3, 1]), learning_rate=np.float32(1e-3), **some)
    run.transcoder.save(tmp_path)
    assert ik.load_transcoder(tmp_path).layers == [1, 3]


def test_a_layer_that_is_constant_is_named(model):
    still = tiny_model()
    for weights in still.hf.model.layers[2].mlp.parameters():
        weights.data.zero_()
    with pytest.raises(ValueError, match="MLP of layer 2 reads or writes on these texts is constant"):
        ik.train_transcoder(still, TEXTS, **SMALL)
    assert ik.train_transcoder(still, TEXTS, layers=[0, 1, 3], **SMALL | {"steps": 3}).transcoder.layers == [0, 1, 3]


class Stream:
    """As a data set that streams gives them."""

    def __iter__(self):
        return ({"text": text} for text in TEXTS)


def test_a_stream_trains_as_a_generator_does(model):
    stream = ik.train_transcoder(model, Stream(), **SMALL)
    assert len(stream.history) == 5
    short = SMALL | {"steps": 7}
    once = ik.train_transcoder(model, iter(TEXTS), **short)
    assert torch.equal(ik.train_transcoder(model, Stream(), **short).transcoder.W_enc, once.transcoder.W_enc)


def test_text_that_ends_before_the_last_step(model, capsys):
    run = ik.train_transcoder(model, iter(TEXTS), **SMALL)
    assert "the text ended before the last step" in capsys.readouterr().out
    assert run.history.empty or run.history["step"].iloc[-1] < 120
    with pytest.raises(ValueError, match="fewer tokens than a batch of 64"):
        ik.train_transcoder(model, iter(TEXTS[:2]), **SMALL)


def test_bad_texts(model):
    with pytest.raises(ValueError, match="no text to read"):
        ik.train_transcoder(model, ["", ""], **SMALL)
    with pytest.raises(TypeError, match="wrap it in a list"):
        ik.train_transcoder(model, "a string", **SMALL)


def test_layers_side_by_side_give_the_same_weights_every_time(model, monkeypatch):
    """Each layer is computed on one core, and layers are summed in their order, whichever is done first."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: True)
    before, weights = torch.get_num_threads(), []
    for cores in (1, 2, 2):
        torch.set_num_threads(cores)
        weights.append(ik.train_transcoder(model, TEXTS, dtype=torch.float32, **SMALL).transcoder.W_enc)
    torch.set_num_threads(before)
    assert torch.equal(weights[1], weights[2])
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-2)
