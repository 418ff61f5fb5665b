"""The demo's two ways: with what ships, and with a transcoder trained on the spot."""

import pytest
from tiny import tiny_model

from interp_kit import demo


def test_pocket_from_prompt_to_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "OUT", tmp_path)
    demo.main("pocket")
    said = capsys.readouterr().out
    assert "Austin" in said and "replacement" in said and "make lab" in said
    assert any("Dallas →" in line and "→ Texas →" in line for line in said.splitlines())
    page = (tmp_path / "pocket.html").read_text()
    assert "<svg" in page and "Texas" in page


def test_a_chat_model_without_a_transcoder_gets_one_and_is_told(tmp_path, monkeypatch, capsys):
    model = tiny_model(num_hidden_layers=8, max_position_embeddings=64)
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    model.tokenizer.chat_template = template
    monkeypatch.setattr(demo, "OUT", tmp_path)
    monkeypatch.setattr(demo, "N_TEXTS", 300)
    monkeypatch.setattr(demo, "ON_THE_SPOT", demo.ON_THE_SPOT | {"n_features": 64, "steps": 20, "batch": 128})
    monkeypatch.setattr(demo.ik, "load_model", lambda name: model)
    demo.main("tiny")
    said = capsys.readouterr().out
    assert "No transcoder ships for this model yet" in said and "large error nodes" in said
    assert (tmp_path / "tiny.html").exists()


def test_an_unknown_model():
    with pytest.raises(ValueError, match="pocket"):
        demo.main("poket")
