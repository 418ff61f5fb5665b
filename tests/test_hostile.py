"""Whatever happened to a file: every reader of the kit reads it, or refuses it with its name; `benchmarks/hostile.py`
tries more."""

import json
import os
import pickle
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from accidents import Reader, harm, outcome, trial
from accidents.folders import mutate_folder
from accidents.readers import BY_NAME
from hypothesis import given, settings
from hypothesis import strategies as st

TRIALS = 200
NAMES = list(BY_NAME)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
# (reader, its file of JSON)
FILES = [
    ("graph, ours", "a-graph.json"), ("graph, Neuronpedia", "a-graph.json"), ("list of graphs", "graph-metadata.json"),
    ("store", "about.json"), ("feature JSON", "19.json"), ("verdicts", "answer.json"),
    ("log-probabilities, chat.json", "chat.json"), ("log-probabilities, responses.json", "responses.json"),
    ("log-probabilities, records.json", "records.json"), ("log-probabilities, ollama.json", "ollama.json"),
    ("log-probabilities, llama.json", "llama.json"), ("log-probabilities, stream.jsonl", "stream.jsonl"),
    ("text, .jsonl", "texts.jsonl"), ("model", "config.json"), ("model", "tokenizer.json"),
    ("model", "tokenizer_config.json"), ("model", "generation_config.json"),
    ("model in parts", "model.safetensors.index.json"), ("ours, cross-layer", "interp_kit.json"),
    ("sparsify", "layers.0.mlp/cfg.json"), ("saelens", "layer_1/cfg.json"),
    ("saelens", "layer_0/activation_scaler.json"), ("gemma_scope_2", "layer_0_width_16k/config.json"),
    ("save to be finished", "clt/.interp_kit-ready/.interp_kit-files.json"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_good_example_is_loaded(name, tmp_path):
    BY_NAME[name].write(tmp_path)
    found = outcome(BY_NAME[name], tmp_path, "nothing")
    assert found.kind == "loaded", found.error


@pytest.mark.parametrize("name", NAMES)
def test_an_accident_is_refused_or_does_no_harm(name, tmp_path):
    """All readers together: 200 accidents."""
    for number in range(NAMES.index(name), TRIALS, len(NAMES)):
        place = tmp_path / str(number)
        place.mkdir()
        found = trial(BY_NAME[name], place, random.Random(number))
        assert found.kind != "odd", f"{number}, {found.what}: {type(found.error).__name__} {found.error}"


@pytest.mark.parametrize(("name", "file"), FILES)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(value=JSON, data=st.data())
def test_any_json_in_place_of_a_file_or_of_a_value_in_it(name, file, value, data):
    with TemporaryDirectory() as place:
        folder = Path(place)
        BY_NAME[name].write(folder)
        path = folder / file
        assert path.is_file(), sorted(p.name for p in path.parent.iterdir())
        content = json.loads(path.read_text().splitlines()[0] if file.endswith("l") else path.read_text())
        if isinstance(content, dict) and data.draw(st.booleans()):
            value = content | {data.draw(st.sampled_from(sorted(content))): value}
        path.write_text(json.dumps(value))
        found = outcome(BY_NAME[name], folder, f"{value!r}")
        assert found.kind != "odd", f"{found.what}: {type(found.error).__name__} {found.error}"


# ---------------------------------------------------------------- the engine itself


@pytest.mark.parametrize("name", ["ours, cross-layer", "gemma_scope", "store", "world", "GGUF", "text, .jsonl"])
def test_the_same_seed_does_the_same(name, tmp_path):
    def files(seed, folder):
        BY_NAME[name].write(folder)
        what = mutate_folder(folder, random.Random(seed))
        return what, {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    found = [[files(seed, tmp_path / f"{i}-{seed}") for seed in range(8) if not os.makedirs(tmp_path / f"{i}-{seed}")]
             for i in range(2)]  # fmt: skip
    assert found[0] == found[1] and len({what for what, _ in found[0]}) > 2


def odd(use, folder):
    """Why a reader that does `use` is odd."""
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    found = outcome(Reader("a reader", lambda folder: None, use), folder, "")
    assert found.kind == "odd"
    return str(found.error)


@pytest.mark.parametrize("content", harm.PICKLES[:3], ids=["protocol 0", "protocol 2", "protocol 4"])
def test_a_pickle_that_is_loaded_is_noticed(content, tmp_path):
    assert "pickle.find_class" in odd(lambda folder: pickle.loads(content), tmp_path / "given")
    assert not harm.SENTINEL.exists()


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda folder: os.system("true"), "os.system"),
        (lambda folder: (folder.parent / "b").write_text("x"), "did open"),
        (lambda folder: (folder.parent / "b").mkdir(), "did os.mkdir"),
        (lambda folder: harm.SENTINEL.touch(), "open"),
        (lambda folder: torch.tensor(float("nan")), "not finite"),
        (lambda folder: {}["a.json"], "a.json"),
    ],
)
def test_what_is_odd_is_noticed(use, said, tmp_path):
    assert said in odd(use, tmp_path / "given")


@pytest.mark.parametrize("message", ["something in it is wrong", "a.json", "a.json is \x1b[2J wrong", "a.json" * 999])
def test_a_refusal_without_words_is_odd(message, tmp_path):
    def use(folder):
        raise ValueError(message)

    odd(use, tmp_path / "given")


def test_waiting_for_ever_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr("accidents.WAIT", 0.05)
    assert "took over" in odd(lambda folder: time.sleep(20), tmp_path / "given")
