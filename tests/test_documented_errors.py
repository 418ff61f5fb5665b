"""Errors that docstrings name and that no other test raises."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_transcoder
from torch import nn

import interp_kit as ik
from interp_kit import hardware
from interp_kit.features.store import _with_new_names
from interp_kit.formats import graph_schema
from interp_kit.formats.json import json_text, write_json
from interp_kit.lenses.confidence import answers
from interp_kit.lenses.tokens.words import first_token
from interp_kit.models.families import Norm
from interp_kit.models.frozen import FrozenModel
from interp_kit.models.frozen.algebra import FrozenAttention
from interp_kit.storage import shipped
from interp_kit.storage.atomic import always
from interp_kit.storage.folders import opened_folder
from interp_kit.storage.reading import check_names
from interp_kit.worlds.sentences import Sentence, fill, token_concepts

PROMPT = "the capital of Texas is"


def test_formats(tmp_path):
    with pytest.raises(ValueError, match="lacks"):
        graph_schema.check({"metadata": {}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json([float("inf")], tmp_path / "a.json", always)
    assert not list(tmp_path.iterdir())


def test_folders_and_what_ships(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"), opened_folder(tmp_path / "none"):
        pass
    with pytest.raises(OSError, match="none.zip"):
        shipped.fetch("smollm2", str(tmp_path / "none.zip"))


def test_models():
    with pytest.raises(ValueError, match="Linear is no RMSNorm"):
        Norm.of(nn.Linear(2, 2))
    frozen = FrozenModel(tiny_model("granite"), PROMPT)
    if frozen.parts.layout is None:
        with pytest.raises(NotImplementedError, match="granite"):
            FrozenAttention.of(frozen, 0)
    else:
        pytest.fail("granite is in the table now: take a family that is not")
    with pytest.raises(ValueError, match="no token"):
        first_token(tiny_model(), "")


def test_lenses(monkeypatch, tmp_path):
    model = tiny_model()
    with pytest.raises(ValueError, match="one position"):
        ik.lenses.decompose(model, PROMPT, " Austin", position="all").heads_by_source()
    with pytest.raises(ValueError, match="text"):
        ik.lenses.calibration(model, [])
    with pytest.raises(ValueError, match="problems"):
        ik.lenses.reliance(model, tiny_transcoder(model), [])
    (tmp_path / "a.json").write_text("[]")
    monkeypatch.setattr(hardware, "free_memory", lambda *_: 0.0)
    with pytest.raises(MemoryError, match="a.json"):
        answers.plain(Path(tmp_path / "a.json"))


@pytest.mark.parametrize("study", ["polysemanticity", "recover_concepts"])
def test_studies(study):
    model, other = tiny_model(), tiny_model(seed=3)
    sentences = [Sentence("Dallas is a city", ((0, 6, ("city:Dallas",)),))] * 4
    texts = (sentences,) if study == "polysemanticity" else (sentences, sentences)
    with pytest.raises(ValueError, match="belong together"):
        getattr(ik.studies, study)(model, {"theirs": tiny_transcoder(other)}, *texts)
    with pytest.raises(TypeError, match="features"):
        getattr(ik.studies, study)(model, {"none": torch.ones(2)}, *texts)


def test_worlds():
    with pytest.raises(KeyError, match="a"):
        fill("{a} is a city.")
    model = tiny_model()
    with pytest.raises(ValueError, match="no token holds"):
        token_concepts(Sentence("Dallas is", ((0, 7, ("city:Dallas",)),)), model.tokenizer)


def test_names_in_files():
    with pytest.raises(ValueError, match="names an array"):
        check_names(Path("a.npz"), ["W_enc", "\x1b[2J"])
    with pytest.raises(ValueError, match="'max_activation' under its old and its new name"):
        _with_new_names(pd.DataFrame([[1, 2]], columns=["highest", "max_activation"]))
