"""The demo's two ways: with a feature store that ships, and with one collected on the spot."""

import pytest
from tiny import tiny_model

import interp_kit as ik
from interp_kit import __main__ as command
from interp_kit import hardware


def test_pocket_from_prompt_to_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "OUT", tmp_path)
    command.demo("pocket")
    said = capsys.readouterr().out
    assert "Austin" in said and "replacement" in said and "make lab" in said
    assert any("Dallas →" in line and "→ Texas →" in line for line in said.splitlines())
    page = (tmp_path / "pocket.html").read_text()
    assert "<svg" in page and "Texas" in page


def test_a_chat_model_whose_features_are_collected_now(tmp_path, monkeypatch, capsys):
    model = tiny_model(num_hidden_layers=3, max_position_embeddings=64)
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    texts = [s.text for s in ik.load_world("geography").sentences(100, "train")]
    about = {"n_features": 64, "steps": 20, "batch": 128, "progress": False}
    ik.train_transcoder(model, texts, **about).transcoder.save(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "N_TEXTS", 100)
    monkeypatch.setattr(command.ik, "load_model", lambda name: model)
    command.demo("tiny")
    said = capsys.readouterr().out
    assert "What is the capital of Texas?" in said and "looked up in 100 short texts" in said
    assert (tmp_path / "out" / "tiny.html").exists()


def test_an_unknown_model():
    with pytest.raises(ValueError, match="pocket"):
        command.demo("poket")


def test_doctor_says_what_is_there_and_what_brings_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INTERP_KIT_DATA", str(tmp_path))
    monkeypatch.setenv("INTERP_KIT_CACHE", str(tmp_path))
    (tmp_path / "pocket").mkdir()
    command.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert any("ok      pocket: ships" in line for line in lines)
    missing = [line for line in lines if "missing smollm2-transcoder" in line]
    assert missing and missing[0].endswith("python -m interp_kit fetch smollm2 ADDRESS")


def test_a_command_that_fails_says_why_without_a_traceback(tmp_path):
    with pytest.raises(SystemExit, match="nowhere"):
        command.main(["fetch", "smollm2", str(tmp_path / "nowhere.zip")])


def test_a_demo_that_does_not_fit_says_what_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "free_memory", lambda: 1e6)
    with pytest.raises(SystemExit, match="loading 'pocket' in torch.float32 needs about .* and 1 MB are free"):
        command.main(["demo", "pocket"])
