"""Plans against what they plan: the module's parameters, the model's counted FLOPs, the bytes that a trainer holds."""

import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_transcoder
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, LlamaConfig

import interp_kit as ik
from interp_kit.text.rows import TextRows
from interp_kit.transcoders.training.config import TrainingConfig
from interp_kit.transcoders.training.parallel import Processes
from interp_kit.transcoders.training.planning import DEVICES, forward_flops
from interp_kit.transcoders.training.stream import ActivationStream
from interp_kit.transcoders.training.trainer import Trainer

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20
STATE = "GB, weights, gradients and Adam"


def hours(*arguments, **options):
    return ik.plan_training(*arguments, **options).table["hours"].tolist()


@pytest.mark.parametrize(("span", "layers"), [(None, None), (1, None), (2, None), (None, [1, 3]), (2, [0, 2, 3])])
def test_parameters_are_those_of_the_module(span, layers):
    model = tiny_model()
    clt = tiny_transcoder(model, span=span, layers=layers)
    plan = ik.plan_training(model, 20, span, layers=layers, devices="T4", k=5)
    assert plan.summary["parameters"] == sum(weights.numel() for weights in clt.parameters())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3", "gpt_neox"])
def test_flops_of_the_model_are_those_that_torch_counts(family):
    model = tiny_model(family)
    with FlopCounterMode(display=False) as counter:
        model.hf.base_model(input_ids=torch.randint(15, (2, 32)), use_cache=False)
    assert forward_flops(model.hf) == pytest.approx(counter.get_total_flops() / 64, rel=0.03)


def test_a_config_plans_as_the_model_does():
    model = tiny_model("gemma2")
    plans = [ik.plan_training(m, 20, k=5, devices="T4") for m in (model, model.hf.config)]
    pd.testing.assert_series_equal(plans[0].summary, plans[1].summary)


def test_the_size_of_a_known_model():
    plan = ik.plan_training(GPT2Config(), 24_576, 1, devices="H100")
    assert plan.summary["GB, the model in bfloat16"] == pytest.approx(2 * 0.12444, rel=1e-3)
    assert plan.summary["GFLOP a token, reading the model"] == pytest.approx(2 * 0.085, rel=0.1)


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
@pytest.mark.parametrize("span", [None, 1])
def test_memory_is_what_a_trainer_holds(activation, span, monkeypatch):
    model = tiny_model()
    config = TrainingConfig(n_features=48, activation=activation, k=5, span=span, batch=32)
    stream = ActivationStream(model.hf, TextRows(model, TEXTS), config.transcoder(model), 32, 1e6)
    trainer = Trainer(config, stream.config, stream, Processes("data", torch.device("cpu")))
    trainer.normalise(*stream.first_block())
    gradients, step = [], trainer.optimizer.step
    keep = lambda: gradients.extend(weights.grad for weights in trainer.trained) or step()  # noqa: E731
    monkeypatch.setattr(trainer.optimizer, "step", keep)
    trainer.step(next(stream.batches()))
    moments = [t for state in trainer.optimizer.state.values() for name, t in state.items() if name != "step"]
    held = sum(t.nbytes for t in (*trainer.trained, *gradients, *moments))
    plan = ik.plan_training(model, 48, span, k=5, activation=activation, devices="T4")
    assert plan.summary[STATE] * 1e9 == pytest.approx(held)


def test_the_buffer_is_that_of_the_stream():
    model = tiny_model(dtype=torch.bfloat16)
    model.hf.bfloat16()
    config = TrainingConfig(n_features=48, layers=[1, 2]).transcoder(model)
    stream = ActivationStream(model.hf, TextRows(model, TEXTS), config, 32, 50_000)
    stream.first_block()
    _, x, y, _ = stream.buffer
    plan = ik.plan_training(model, 48, layers=[1, 2], batch=32, memory=50_000, devices="T4")
    a_token = 2 * 2 * 16 * 2
    assert plan.summary["GB, buffer"] * 1e9 == stream.size * a_token
    assert stream.size * a_token <= x.nbytes + y.nbytes < stream.size * a_token + 20 * a_token  # whole rows


def test_hours_grow_with_tokens_and_features_and_fall_with_devices():
    config = GPT2Config()
    few, many = (hours(config, 4096, tokens=tokens, devices=list(DEVICES)) for tokens in (1e6, 3e6))
    assert many == pytest.approx([3 * h for h in few])
    assert hours(config, 4096, devices="A100-80GB") < hours(config, 8192, devices="A100-80GB")
    assert hours(config, 4096, 1, devices="A100-80GB") < hours(config, 4096, devices="A100-80GB")
    several = hours(config, 4096, devices=["H100", "2 x H100", "4 x H100", "8 x H100"])
    assert several == sorted(several, reverse=True)


def test_larger_batches_mean_fewer_updates():
    config = GPT2Config()
    assert hours(config, 24_576, batch=8192, devices="H100") < hours(config, 24_576, batch=1024, devices="H100")


def test_what_outgrows_one_device_is_shared_by_features():
    table = ik.plan_training(GPT2Config(), 65_536, devices=["A100-40GB", "8 x A100-40GB", "4 x T4"]).table
    assert table["split"].tolist() == ["does not fit", "features", "does not fit"]
    assert table["hours"].isna().tolist() == [True, False, True]
    assert table["GB a device"][1] < 40 < table["GB a device"][0]


def test_features_that_cannot_be_shared_equally_are_not():
    assert ik.plan_training(GPT2Config(), 1001, devices="8 x H100").table["split"].tolist() == ["data"]


def test_this_machine_is_measured():
    plan = ik.plan_training(tiny_model(), 48, devices=["cpu", "2 X h100"])
    assert plan.table["devices"].tolist() == ["cpu", "2 X h100"]
    assert (plan.table["hours"] > 0).all()
    assert "GFLOP" in repr(plan) and "<table" in plan._repr_html_()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": "V100"}, "'V100' is not one of cpu, T4, L4, A100-40GB, A100-80GB, H100, H200"),
        ({"devices": ["T4", "0 x T4"]}, "'0 x T4' is not one of"),
        ({"n_features": 4}, "k 8, 4 features"),
        ({"batch": 0}, "batch 0"),
        ({"tokens": 100}, "at least one batch, 1024"),
        ({"tokens": float("nan")}, "at least one batch"),
        ({"span": 5}, "span 5 is not between 1 and the 4 layers"),
        ({"span": 0}, "span 0"),
        ({"layers": [4]}, "expected some of 0 to 3"),
        ({"layers": []}, "expected some of 0 to 3"),
        ({"activation": "relu"}, "not one of topk, batchtopk, jumprelu"),
        ({"memory": "much"}, "no amount"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4)
    with pytest.raises(ValueError, match=message):
        ik.plan_training(config, **{"n_features": 64, "devices": "T4"} | changes)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="expected a LanguageModel or a transformers config, got str"):
        ik.plan_training("gpt2", 64)
