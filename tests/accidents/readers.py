"""Every way in for files: the readers of `transcoders.py`, and all others with a small good example of each."""

import json
import os
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from graph_files import circuit_tracer_file, eleuther_file, neuronpedia_file
from tiny import tiny_model, tiny_texts, tiny_transcoder
from tiny_gguf import make_llama, make_tokenizer, write_gguf
from transformers import GPT2Config, GPT2LMHeadModel

import interp_kit as ik
from interp_kit import hardware
from interp_kit.features.verdicts import read_verdicts
from interp_kit.storage import shipped
from interp_kit.storage.folders import LIST, READY
from interp_kit.text.rows import encode_texts
from interp_kit.transcoders.folder import save_transcoder

from . import Reader, kept, transcoders

HERE = Path(__file__).parent
PROMPT = "the capital of Texas is"


@cache
def setting():
    """A model, a transcoder, its features and their labels with scores."""
    model = tiny_model()
    clt = tiny_transcoder(model, n_features=8)
    store = ik.collect_features(model, clt, tiny_texts(40), n_examples=3)
    return model, clt, store, ik.score_labels(store, ik.label_features(store))


# ---------------------------------------------------------------- graphs


def our_graph(folder: Path) -> None:
    graph = ik.attribute(*setting()[:2], PROMPT).prune(0.6)
    graph.group({"two": graph.features["id"].head(2).tolist()}).save(folder / "a-graph.json")


def other_graph(content):
    def write(folder: Path) -> None:
        (folder / "a-graph.json").write_text(json.dumps(content()))

    return write


def use_graph(folder: Path) -> torch.Tensor:
    """Shows it, follows its paths, and saves it again."""
    graph = ik.load_graph(folder / "a-graph.json")
    graph.show()._repr_mimebundle_()
    smaller = graph.prune()
    paths = smaller.paths()["strength"].sum() if len(smaller.nodes) else 0.0
    smaller.to_html(folder / "page.html")
    graph.save(folder / "again.json")
    return torch.tensor([paths, *graph.adjacency.ravel().tolist(), *graph.nodes["influence"], *graph.scores.values()])


def listed_graph(folder: Path) -> None:
    """Beside it is the viewer's list of graphs."""
    ik.attribute(*setting()[:2], PROMPT).prune(0.4).save(folder / "a-graph.json", listed=True)


def use_list(folder: Path) -> None:
    ik.load_graph(folder / "a-graph.json").save(folder / "another.json", listed=True)


# ---------------------------------------------------------------- features


def store_folder(folder: Path) -> None:
    store, labels = setting()[2:]
    store.save(folder, labels)


def labels(folder: Path) -> None:
    """Of a store's folder what they are in, and what says what they are of."""
    store_folder(folder)
    for path in [*folder.glob("*.parquet"), folder / LIST]:
        if path.name != "labels.parquet":
            path.unlink()


def old_store(folder: Path) -> None:
    shutil.copytree(HERE.parent / "features" / "old_store", folder, dirs_exist_ok=True)


def feature_files(folder: Path) -> None:
    setting()[2].save_json(folder, only=[(0, 1), (1, 4), (3, 7)])


def use_store(store: ik.FeatureStore) -> torch.Tensor:
    """Looks at all examples and windows, shows some features and labels them."""
    some = list(zip(store.features["layer"], store.features["feature"]))[:3]
    for layer, feature in some:
        store.card(layer, feature)
        store.show(layer, feature)._repr_mimebundle_()
    store.windows(["top"])
    ik.label_features(store, only=some)
    active = [number for active in store.examples["activations"] for number in active]
    return torch.tensor([*store.features["max_activation"].dropna().tolist(), *active], dtype=torch.float64)


def use_features(folder: Path) -> torch.Tensor:
    store = ik.load_features(folder)
    store.save_json(folder / "json")
    return use_store(store)


def use_feature_files(folder: Path) -> torch.Tensor:
    store = ik.features.load_feature_json(folder)
    store.save(folder / "again")
    return use_store(store)


def use_labels(folder: Path) -> None:
    """Scores them, and shows them beside features."""
    store = setting()[2]
    labels = ik.load_labels(folder)
    labels.attrs["about"] = store.about
    known = set(zip(store.features["layer"], store.features["feature"]))
    mine = [at in known for at in zip(labels["layer"], labels["feature"])]
    try:
        store.browse(labels)
        ik.score_labels(store, labels[mine][:5])
    except ValueError as error:  # of the table, which does not know its file
        raise ValueError(f"{folder}: {error}") from error


def answer_of_a_judge(folder: Path) -> None:
    (folder / "answer.json").write_text(json.dumps({"1": "yes", "2": "no", "3": 1}))


def use_verdicts(folder: Path) -> None:
    """What a judge says is any text at all."""
    said = (folder / "answer.json").read_bytes() if (folder / "answer.json").is_file() else b""
    assert len(read_verdicts(said.decode("utf-8", "replace"), 3)) == 3


def kept_answers(folder: Path) -> None:
    llm, question = _llm(folder)
    path = llm._path(question, 40)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"model": "m", "answer": "cities in Texas"}))


def use_kept_answers(folder: Path) -> None:
    """What is damaged is asked again."""
    llm, question = _llm(folder)
    assert llm.estimate([question], 40)["calls"] in (0, 1)


def _llm(folder: Path):
    llm = ik.features.LLM("m", base_url="http://127.0.0.1:9/v1", api_key="none", cache=folder / "llm")
    return llm, [{"role": "user", "content": "1, 2 or 3?"}]


# ---------------------------------------------------------------- worlds, texts, answers


def world(folder: Path) -> None:
    for name, places in (("states", "ABCDEF"), ("countries", "GHIJKL")):
        rows = [f"Place{p},{p}ville,{p.lower()}{p} forever" for p in places]
        (folder / f"{name}.csv").write_text("\n".join(["place,capital,motto", *rows]) + "\n")
    cities = [f"City{p}{i},Place{p}" for p in "ABCDEFGHIJKL" for i in range(3)]
    (folder / "cities.csv").write_text("\n".join(["city,place", *cities]) + "\n")


def use_world(folder: Path) -> None:
    found = ik.load_world("geography", folder=folder)
    try:
        assert found.questions(held_out=True) and found.why_questions(2) is not None
        assert all(sentence.text for split in ("train", "test") for sentence in found.sentences(20, split))
    except ValueError as error:  # of the world, which does not know its files: it is too small
        raise ValueError(f"{folder}: {error}") from error


def text(folder: Path) -> None:
    (folder / "texts.txt").write_text("\n\n".join(tiny_texts(20)))


def lines(folder: Path) -> None:
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in tiny_texts(20)))


def use_text(name: str):
    def use(folder: Path) -> None:
        try:
            encode_texts(setting()[0], folder / name)
        except ValueError as error:  # of texts of which there are none, or half a character
            raise ValueError(f"{folder}: {error}") from error

    return use


RECORDS = [
    {"token": "The", "logprob": -0.5, "bytes": [84, 104, 101],
     "top_logprobs": [{"token": "The", "logprob": -0.5, "bytes": None}]},
    {"token": " end", "logprob": -1.25, "bytes": None, "top_logprobs": []},
]  # fmt: skip
CHAT = {"choices": [{"index": 0, "logprobs": {"content": RECORDS, "refusal": None}}]}
CHUNK = {"object": "chat.completion.chunk"} | CHAT
COLUMNS = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"b": -1.0}]}
ANSWERS = {
    "chat.json": CHAT,
    "responses.json": {"output": [{"content": [{"type": "output_text", "logprobs": RECORDS}]}]},
    "completions.json": {"choices": [{"logprobs": COLUMNS}]},
    "ollama.json": {"model": "m", "message": {"content": "The end"}, "done": True, "logprobs": RECORDS},
    "llama.json": {"completion_probabilities": [{"id": 7, **record} for record in RECORDS]},
    "records.json": RECORDS,
    "stream.jsonl": [CHUNK, CHUNK],
    "batch.jsonl": [{"custom_id": "1", "response": {"body": CHAT}}],
}


def answer(name: str):
    def write(folder: Path) -> None:
        parts = ANSWERS[name] if name.endswith("l") else [ANSWERS[name]]
        (folder / name).write_text("".join(json.dumps(part) + "\n" for part in parts))

    return write


def use_answer(name: str):
    def use(folder: Path) -> torch.Tensor:
        try:
            found = ik.lenses.read_logprobs(folder / name)
        except ValueError as error:  # of the content, whose file the caller knows
            raise ValueError(f"{folder}: {error}") from error
        found._repr_html_()
        columns = ["probability", "logprob", "surprisal", "entropy"]
        return torch.tensor(found.table[columns].to_numpy(float) if len(found.table) else [])

    return use


# ---------------------------------------------------------------- models


def model_folder(more: dict | None = None):
    """As `save_pretrained` writes it; `more` may split the weights into parts."""

    def write(folder: Path) -> None:
        tokenizer = make_tokenizer()
        make_llama(len(tokenizer)).half().save_pretrained(folder, **more or {})
        tokenizer.save_pretrained(folder)

    return write


def gpt2(folder: Path) -> None:
    tokenizer = make_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def use_model(folder: Path) -> torch.Tensor:
    return _ask(ik.load_model(folder), folder)


def _ask(model: ik.LanguageModel, folder: Path) -> torch.Tensor:
    """Reads a text, and a conversation where it has a template for one."""
    found = model.logits([3, 4])
    try:
        model.next_tokens("Austin")
        model.chat("Why?")
    except ValueError as error:  # of the text or the template, not of a file
        raise ValueError(f"{folder}: {error}") from error
    return found


def gguf(folder: Path) -> None:
    tokenizer = make_tokenizer()
    write_gguf(folder / "tiny.gguf", make_llama(len(tokenizer)), tokenizer)


def converted(folder: Path) -> None:
    """The cache has it already."""
    gguf(folder)
    use_gguf(folder)


def use_gguf(folder: Path) -> torch.Tensor:
    with patch.dict(os.environ, INTERP_KIT_CACHE=str(folder / "cache")):
        return _ask(ik.load_model(folder / "tiny.gguf"), folder)


# ---------------------------------------------------------------- folders and archives


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "kit.zip", "w") as file:
        for name in shipped.FETCHED["smollm2"]:
            for part in ("a.json", "b.safetensors"):
                file.writestr(f"interp_kit-main/data/{name}/{part}", f"{name} {part}")


def use_archive(folder: Path) -> None:
    with patch.dict(os.environ, INTERP_KIT_CACHE=str(folder / "cache")):
        with patch.object(tempfile, "tempdir", str(folder)):
            shipped.fetch("smollm2", str(folder / "kit.zip"))


def saved(folder: Path) -> None:
    save_transcoder(setting()[1], folder / "clt")


def save_again(folder: Path) -> None:
    """What was saved before is replaced, or left as it is."""
    save_transcoder(setting()[1], folder / "clt")


def interrupted(folder: Path) -> None:
    """A save that counts, and whose files were not moved to their places yet."""
    saved(folder)
    shutil.copytree(folder / "clt", folder / "clt" / READY, ignore=shutil.ignore_patterns("*ready*", "*lock*"))
    assert (folder / "clt" / READY / LIST).exists()


def finish(folder: Path) -> torch.Tensor:
    return transcoders.use(folder / "clt")


def control_groups(folder: Path) -> None:
    """What a container may use of its host, as Linux says it."""
    files = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/memory.max": "max\n"}
    files |= {f"sys/fs/cgroup/a/memory.{name}": f"{n}\n" for name, n in (("max", 10**9), ("current", 10**8))}
    files |= {"sys/fs/cgroup/a/memory.stat": "inactive_file 1000\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def use_control_groups(folder: Path) -> torch.Tensor:
    assert hardware.usable_cores(folder) >= 1
    return torch.tensor([hardware.free_memory(folder), hardware.total_memory(folder)])


OTHERS = [
    Reader("graph, ours", kept(our_graph), use_graph),
    Reader("graph, circuit-tracer", other_graph(circuit_tracer_file), use_graph),
    Reader("graph, Neuronpedia", other_graph(neuronpedia_file), use_graph),
    Reader("graph, EleutherAI", other_graph(eleuther_file), use_graph),
    Reader("list of graphs", kept(listed_graph), use_list),
    Reader("store", kept(store_folder), use_features),
    Reader("store of version 0.1", old_store, use_features),
    Reader("labels", kept(labels), use_labels),
    Reader("feature JSON", kept(feature_files), use_feature_files),
    Reader("verdicts", answer_of_a_judge, use_verdicts),
    Reader("kept answers", kept_answers, use_kept_answers),
    Reader("world", world, use_world),
    Reader("text, .txt", text, use_text("texts.txt")),
    Reader("text, .jsonl", lines, use_text("texts.jsonl")),
    *(Reader(f"log-probabilities, {name}", answer(name), use_answer(name)) for name in ANSWERS),
    Reader("model", kept(model_folder()), use_model),
    Reader("model in parts", kept(model_folder({"max_shard_size": "40KB"})), use_model),
    Reader("model, GPT-2", kept(gpt2), use_model),
    Reader("GGUF", kept(gguf), use_gguf),
    Reader("GGUF, converted before", kept(converted), use_gguf),
    Reader("archive", archive, use_archive),
    Reader("folder that is saved to", kept(saved), save_again),
    Reader("save to be finished", kept(interrupted), finish),
    Reader("control groups", control_groups, use_control_groups),
]
READERS = transcoders.READERS + OTHERS
BY_NAME = {reader.name: reader for reader in READERS}
