"""Text from any source becomes rows of token ids, and nothing is held that need not be."""

import json
from collections.abc import Iterator

import pytest
from tiny import tiny_model

from interp_kit.text import rows as module
from interp_kit.text.rows import TextRows, encode_texts

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


class Stream:
    """A data set that streams: rows with a text, read again from the start each time."""

    def __init__(self, texts):
        self.texts, self.read = texts, 0

    def __iter__(self):
        for text in self.texts:
            self.read += 1
            yield {"text": text, "url": "-"}


def test_every_source_gives_the_same_rows(model, tmp_path):
    wanted = encode_texts(model, TEXTS)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for source in (tuple(TEXTS), Stream(TEXTS), iter(TEXTS), str(tmp_path / "a.jsonl"), tmp_path / "a.jsonl"):
        assert encode_texts(model, source) == wanted


def test_a_text_file_is_read_in_documents_that_end_at_empty_lines(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 20)
    (tmp_path / "a.txt").write_text("Texas is a state\n\nDallas is a city\n\nOhio is a state\n")
    texts = list(TextRows(model, tmp_path / "a.txt").texts)
    assert [text.split() for text in texts] == ["Texas is a state Dallas is a city".split(), "Ohio is a state".split()]


def test_a_stream_is_read_only_as_far_as_needed(model):
    stream = Stream(TEXTS * 1000)
    rows = TextRows(model, stream).epoch(0)
    next(rows)
    assert stream.read <= module.AT_ONCE


def test_long_texts_are_cut_into_windows_that_each_begin_as_prompts_do(model, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 5)
    rows = encode_texts(model, ["Texas is a state Dallas is a city Ohio"])
    first = model.prefix_ids
    assert all(row[: len(first)] == first and len(row) <= 5 for row in rows)
    ids = model.tokenizer("Texas is a state Dallas is a city Ohio", add_special_tokens=False)["input_ids"]
    assert sum((row[len(first) :] for row in rows), []) == ids


def test_a_list_has_another_order_in_each_epoch_and_the_same_for_the_same_seed(model):
    texts = [f"Texas is a city {'Ohio ' * i}" for i in range(12)]
    orders = [list(TextRows(model, texts, seed).epoch(number)) for seed, number in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] and orders[0] != orders[3]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(encode_texts(model, texts))


def test_a_generator_can_be_read_once(model):
    assert not TextRows(model, iter(TEXTS)).restarts
    assert TextRows(model, TEXTS).restarts and TextRows(model, Stream(TEXTS)).restarts
    assert isinstance(iter(TEXTS), Iterator)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("a string", TypeError, "wrap it in a list"),
        ("missing.txt", FileNotFoundError, "missing.txt is no file"),
        ({"text": "a"}, TypeError, "got dict"),
        (3, TypeError, "got int"),
        ([3], TypeError, "got int"),
        ([{"content": "a"}], TypeError, "only 'content': rename"),
        ([], ValueError, "no text to read"),
        (["", " "], ValueError, "no text to read"),
    ],
)
def test_what_is_no_source_of_text(model, source, error, message):
    with pytest.raises(error, match=message):
        encode_texts(model, source)
