"""What does not fit is refused beforehand, in words, and whoever looks is told what is needed.

How good the estimates are is measured in benchmarks/memory.py.
"""

import logging

import pytest
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit import hardware
from interp_kit.hardware import in_words

PROMPT = "the capital of Texas is"
MODEL = tiny_model()
CLT = tiny_transcoder(MODEL)
GRAPH = ik.attribute(MODEL, CLT, PROMPT)
SAYS = {  # what of it is needed for, and the way out
    "load_model": "loading 'pocket' in torch.float32 needs .* Load it in torch.bfloat16",
    "load_transcoder": "loading .*pocket-transcoder needs ",
    "attribute": r"this graph \(\d+ nodes, \d+ of them features, on 6 tokens\) needs .* Use .*a shorter prompt",
    "prune": r"pruning a graph of \d+ nodes, of which \d+ stay, needs .*max_features",
    "show": r"pruning a graph of \d+ nodes, of which \d+ stay, needs ",
    "to_html": r"pruning a graph of \d+ nodes, of which \d+ stay, needs ",
    "train_transcoder": "training 24 features in each of 4 layers needs .* Use fewer features, a shorter span",
    "collect_features": "collecting examples of 80 features needs .* fewer examples",
    "evaluate_transcoder": "evaluating .* tokens at once needs .* baselines=False",
    "explain_tokens": "reading .* tokens at once needs .* Use a shorter prompt",
}
CALLS = {
    "load_model": lambda folder: ik.load_model("pocket"),
    "load_transcoder": lambda folder: ik.load_transcoder("pocket"),
    "attribute": lambda folder: ik.attribute(MODEL, CLT, PROMPT),
    "prune": lambda folder: GRAPH.prune(),
    "show": lambda folder: GRAPH.show(),
    "to_html": lambda folder: GRAPH.to_html(folder / "graph.html"),
    "train_transcoder": lambda folder: ik.train_transcoder(
        MODEL, tiny_texts(), 24, steps=2, batch=32, checkpoint=folder / "checkpoint", progress=False
    ),
    "collect_features": lambda folder: ik.collect_features(MODEL, CLT, tiny_texts()),
    "evaluate_transcoder": lambda folder: ik.evaluate_transcoder(MODEL, CLT, tiny_texts()),
    "explain_tokens": lambda folder: ik.lenses.explain_tokens(MODEL, PROMPT, method="occlusion", baseline="zero"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_fit_is_refused_in_words_and_leaves_nothing(name, monkeypatch, tmp_path):
    free = 1e6 if name == "load_transcoder" else 100  # enough for its description
    monkeypatch.setattr(hardware, "free_memory", lambda: free)
    with pytest.raises(MemoryError, match=SAYS[name]) as refused:
        CALLS[name](tmp_path)
    assert f"{in_words(free)} are free" in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CALLS)
def test_what_it_needs_is_logged_beforehand(name, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "interp_kit"):
        CALLS[name](tmp_path)
    said = [record for record in caplog.records if record.name == "interp_kit.hardware"]
    assert said and all(record.needed > 0 and "needs about" in record.getMessage() for record in said)


def test_small_needs_are_not_told_unless_all_is_asked_for(caplog):
    with caplog.at_level(logging.INFO, "interp_kit"):
        hardware.check_memory(1e6, "a small thing")
        hardware.check_memory(200e6, "a larger one", free=1e9)
    assert [record.getMessage() for record in caplog.records] == [
        "a larger one needs about 200 MB of memory, and 1 GB are free"
    ]


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(0, "0 KB"), (100, "0.1 KB"), (1530, "1.5 KB"), (99.4e6, "99 MB"), (123e6, "123 MB"), (1.53e9, "1.5 GB")],
)
def test_amounts_in_words(n_bytes, words):
    assert in_words(n_bytes) == words
