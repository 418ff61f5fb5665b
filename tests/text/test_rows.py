"""Text from any source becomes rows of token ids, and nothing is held that need not be."""

import json
import os
import warnings
from collections.abc import Iterator

import pandas as pd
import pytest
from tiny import tiny_model

from interp_kit.text import files
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
    monkeypatch.setattr(files, "PIECE", 20)
    (tmp_path / "a.txt").write_text("Texas is a state\n\nDallas is a city\n\nOhio is a state\n")
    texts = list(TextRows(model, tmp_path / "a.txt").texts)
    assert [text.split() for text in texts] == ["Texas is a state Dallas is a city".split(), "Ohio is a state".split()]


def test_a_stream_is_read_only_as_far_as_needed(model):
    stream = Stream(TEXTS * 1000)
    rows = TextRows(model, stream).epoch(0)
    next(rows)
    assert stream.read <= module.AT_ONCE


@pytest.mark.parametrize("most", [12, 40, 10**6])
def test_a_text_too_long_for_the_tokenizer_is_cut_before_white_space(model, monkeypatch, most):
    """The tokens are those of the whole text; a text of any length is tokenised in little memory."""
    text, first = " ".join(TEXTS * 20), len(model.prefix_ids)
    wanted = [i for row in encode_texts(model, [text]) for i in row[first:]]
    sizes, ids_of_all = [], type(model.vocabulary).ids_of_all

    def watched(vocabulary, texts):
        sizes.append(sum(map(len, texts)))
        return ids_of_all(vocabulary, texts)

    monkeypatch.setattr(module, "CHARACTERS_AT_ONCE", most)
    monkeypatch.setattr(type(model.vocabulary), "ids_of_all", watched)
    rows = TextRows(model, [text, "Ohio is a state"])
    found = [i for row in rows.epoch() for i in row[first:]]
    assert found[: len(wanted)] == wanted and len(found) == len(wanted) + 4
    assert rows.texts_read == 2 and max(sizes) <= 2 * most


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
        ([3], TypeError, r"texts\[0\] is 3, a int, expected a string"),
        (["a", None], TypeError, r"texts\[1\] is None"),
        (["a", "b", float("nan")], TypeError, r"texts\[2\] is nan, a float"),
        (["a", b"b"], TypeError, r"texts\[1\] is b'b', a bytes"),
        ([["a"]], TypeError, r"texts\[0\] is \['a'\], a list"),
        ([{"text": None}], TypeError, r"texts\[0\]\['text'\] is None"),
        (["a", "half \ud83d"], ValueError, r"texts\[1\] is not text: it holds half of a surrogate pair"),
        ([{"content": "a"}], TypeError, "only 'content': rename"),
        (iter(["a", 2]), TypeError, r"texts\[1\] is 2"),
        (b"bytes", TypeError, "got bytes"),
        (None, TypeError, "got NoneType"),
        (pd.DataFrame({"id": [1], "body": ["a"]}), TypeError, "columns 'id', 'body', none named 'text'"),
        (pd.DataFrame({"text": ["a", None]}), TypeError, r"texts\[1\] is (None|nan)"),
        (pd.Series([1.5]), TypeError, r"texts\[0\] is 1.5"),
        ([], ValueError, "no text to read"),
        (["", " "], ValueError, "no text to read"),
    ],
)
def test_what_is_no_source_of_text(model, source, error, message):
    with pytest.raises(error, match=message):
        encode_texts(model, source)


def test_a_table_gives_its_texts_whatever_its_index(model):
    wanted = encode_texts(model, TEXTS)
    table = pd.DataFrame({"text": TEXTS, "n": [1, 2, 3]}, index=[7, 5, 5])
    for source in (
        table,
        table["text"],
        table["text"].to_numpy(),
        table["text"].astype("string"),
        table.to_dict("records"),
    ):
        assert encode_texts(model, source) == wanted


def test_which_text_is_none_is_said_by_its_place_in_any_order(model):
    texts = [*TEXTS, *TEXTS, 5]
    for seed in range(3):
        with pytest.raises(TypeError, match=r"texts\[6\] is 5"):
            list(TextRows(model, texts, seed).epoch(1))


def test_texts_without_tokens_are_left_out_and_counted_once(model):
    rows = TextRows(model, ["", *TEXTS, "   "])
    with pytest.warns(
        UserWarning, match=r"2 of 5 texts have no token to predict and are left out, the first: texts\[0\]"
    ):
        assert len(list(rows.epoch())) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(rows.epoch())
        list(TextRows(model, TEXTS).epoch())


# ---------------------------------------------------------------------- files


def jsonl(*lines: bytes) -> bytes:
    return b"\n".join(lines)


@pytest.mark.parametrize(
    "content",
    [
        jsonl(b'{"text": "Texas"}', b"", b'{"text": "Ohio"}', b"  ", b""),
        "\ufeff".encode() + jsonl(b'{"text": "Texas"}', b'{"text": "Ohio"}'),
        b'{"text": "Texas", "n": NaN}\r\n\r\n{"text": "Ohio"}\r\n',
        jsonl(b'"Texas"', b'"Ohio"'),
        jsonl(b'{"text": "\\u0054exas"}', b'{"n": 1, "text": "Ohio"}'),
    ],
)
def test_json_lines_as_people_have_them(tmp_path, content):
    (tmp_path / "a.JSONL").write_bytes(content)
    assert list(files.TextFile(tmp_path / "a.JSONL")) == ["Texas", "Ohio"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", jsonl(b'{"text": "a"}', b"", b'{"text": "b"'), "a.jsonl, line 3: is no JSON"),
        ("a.jsonl", jsonl(b'{"text": "a"}', b'{"body": "b"}'), "a.jsonl, line 2: has no 'text', only 'body': rename"),
        ("a.jsonl", jsonl(b'{"text": "a"}', b'{"text": null}'), "a.jsonl, line 2: the text is a NoneType"),
        ("a.jsonl", jsonl(b'{"text": "a"}', b"[1, 2]"), "a.jsonl, line 2: the text is a list"),
        ("a.jsonl", b'{"text": "a"} {"text": "b"}', "a.jsonl, line 1: is no JSON"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: is no JSON"),
        ("a.jsonl", b"9" * 10_000, "a.jsonl, line 1: is no JSON"),
        ("a.jsonl", '{"text": "Zürich"}'.encode("latin-1"), "a.jsonl, line 1: byte 0xfc is not UTF-8"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "a.jsonl, line 1: is in UTF-16"),
        ("a.txt", "one\ncafé".encode("cp1252"), "a.txt, line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a.txt", b"", "a.txt is empty"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.txt", b"a\0b", "a.txt, line 1: holds a zero byte"),
        ("a.txt.gz", b"\x1f\x8b", "is compressed: unpack it"),
        ("a.jsonl.zst", b"", "is compressed: unpack it"),
        ("a.csv", b"text\na\n", "pandas.read_csv"),
        ("a.parquet", b"PAR1", "pandas.read_parquet"),
        ("a.json", b"[]", "json.loads"),
        ("notes.md", b"a", "notes.md is not a .txt or .jsonl file"),
        ("no ending", b"a", "no ending is not a .txt or .jsonl file"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_text(model, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=message):
            encode_texts(model, source)


def test_a_folder_a_pipe_and_names_that_no_file_can_have(model, tmp_path):
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for source, what in (
        (tmp_path / "folder.txt", "a folder"),
        (tmp_path / "pipe.jsonl", "a pipe"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ValueError, match=what):
            encode_texts(model, source)
    for text in ("a" * 5000, "a\0b", "first line\nsecond.txt", ""):
        with pytest.raises(TypeError, match="wrap it in a list"):
            encode_texts(model, text)
    with pytest.raises(FileNotFoundError, match="is no file"):
        encode_texts(model, "a" * 5000 + ".txt")


def test_line_ends_of_any_system_are_one(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert list(files.TextFile(tmp_path / "a.txt")) == ["one\ntwo\nthree\n"]
