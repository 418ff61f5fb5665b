"""The text that a general transcoder is trained on: what a model writes, and what packages hold."""

import json
import random
import zlib

import pandas as pd
import pytest
import torch
from tiny import WORDS, tiny_model
from tokenizers import decoders

from interp_kit.storage.shipped import data_folder
from recipes import prose

PROMPTS = ["the capital of Texas is", "the", "Ohio is a state . Dallas is a city . the capital", "a city"]
HELD_OUT = [19, 26, 43]  # of the texts "text 0" to "text 59"
CHAT = "{% for m in messages %}the capital {{ m['content'] }}{% endfor %}"


@pytest.fixture
def model():
    model = tiny_model()
    model.tokenizer.chat_template = CHAT
    model.tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)  # a space between words
    return model


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_of_a_batch_do_not_disturb_each_other(model, monkeypatch):
    monkeypatch.setattr(prose, "MIN_P", 1.0)  # only the likeliest token is left to draw
    together = prose.sample(model, PROMPTS, 20, seed=0)
    assert together == [prose.sample(model, [prompt], 20, seed=0)[0] for prompt in PROMPTS]
    assert len({tokens for _, tokens in together}) > 1, "some rows end before others, so the cache was cut"


def test_what_is_drawn_is_what_the_model_finds_likely(model, monkeypatch):
    monkeypatch.setattr(prose, "MIN_P", 1.0)
    for prompt, (text, _) in zip(PROMPTS, prose.sample(model, PROMPTS, 20, seed=0)):
        ids = model.encode(text)
        start = len(model.encode(prompt))
        assert torch.equal(model.logits(ids)[start - 1 : -1].argmax(-1), ids[start:])


def test_a_text_is_its_prompt_continued_up_to_a_special_token(model):
    for prompt, (text, tokens) in zip(PROMPTS, prose.sample(model, PROMPTS, 20, seed=0)):
        assert text.startswith(prompt) and tokens <= 20
        assert set(text.split()[:-1]) <= set(WORDS)


def test_a_prompt_longer_than_the_text_is_cut(model):
    assert [tokens for _, tokens in prose.sample(model, PROMPTS[2:], 5, seed=0)][0] == 5


def test_a_killed_run_goes_on_and_writes_the_same(model, tmp_path):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    n = prose.write_samples(model, whole, 400, batch=8, max_tokens=12)
    assert n >= 400 and n == sum(r["tokens"] for r in records(whole))
    killed.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    assert prose.write_samples(model, killed, 400, batch=8, max_tokens=12) == n
    assert killed.read_bytes() == whole.read_bytes()
    other = tmp_path / "other.jsonl"
    prose.write_samples(model, other, 400, seed=1, batch=8, max_tokens=12)
    assert other.read_bytes() != whole.read_bytes()
    assert {r["seed"] for r in records(other)} == set(range(1_000_000, 1_000_000 + len(records(other)) // 8))


def test_prompts_have_no_empty_slot():
    prompts, rng = prose.Prompts(), random.Random(0)
    for kind in prose.PROMPT_SHARES:
        drawn = {prompts.draw(kind, rng) for _ in range(300)}
        assert len(drawn) > 100 and not any("{" in text for text in drawn)


def test_held_out_is_one_in_twenty_and_stays_so():
    texts = [f"text {i}" for i in range(4000)]
    assert 0.04 < sum(map(prose.held_out, texts)) / len(texts) < 0.06
    assert [i for i in range(60) if prose.held_out(texts[i])] == HELD_OUT


def test_pieces_lose_nothing_but_what_is_too_short():
    blocks = ["word " * n for n in (50, 900, 50, 50, 1, 350)]
    found = prose.pieces(blocks)
    assert all(200 <= len(piece) <= 2000 for piece in found)
    assert " ".join(found).split() == " ".join(blocks).split()
    assert prose.pieces(["too short"]) == []


def test_readers_keep_prose():
    page = (
        "<head><title>A title long enough to be a sentence.</title></head><nav>A menu, long enough to be one.</nav>"
        "<p>A paragraph with <b>bold</b>\nwords and a break.<p>Another one, unclosed.<li>1</li>"
        "<pre>def f():\n    pass</pre>"
    )
    assert prose.READERS["html"](page) == [
        "A paragraph with bold words and a break.", "Another one, unclosed.", "def f():\n    pass",
    ]  # fmt: skip
    plain = "A heading\n\nIt was a _hard-wrapped_\n  {line} of some_text.\n\n----------------------\n\n1  2  3  4 5\n"
    assert prose.READERS["text"](plain) == ["It was a hard-wrapped line of some_text."]
    gloss = "00017222 03 n 02 plant_life 0 001 @ 0 | a living organism lacking the power of locomotion."
    assert prose.quoted(r"n \d\d (\S+) .*\| (.*)$", gloss) == [
        "plant life: a living organism lacking the power of locomotion."
    ]


def test_strings_of_an_r_data_base_are_read():
    lines = ["It is a truth universally acknowledged,", "", "that a naïve man"]
    block = b"".join(
        bytes([0, *(b"\x04\x00" if line.isascii() else b"\x00\x80"), 9])
        + len(line.encode()).to_bytes(4)
        + line.encode()
        for line in lines
    )
    data = b"".join(len(b).to_bytes(4) + zlib.compress(b) for b in (block, block))
    assert prose.r_strings(data).split("\n") == lines * 2


def test_packages_are_collected_up_to_their_share(tmp_path, monkeypatch):
    table = tmp_path / "data" / "worlds" / "prose" / "sources.csv"
    table.parent.mkdir(parents=True)
    columns = "source,kind,package,version,files,reader,megabytes,licence"
    table.write_text(f"{columns}\nA book,fiction,book,1:2-3,\\.txt$,text,0.01,public domain\n")
    monkeypatch.setenv("INTERP_KIT_DATA", str(tmp_path / "data"))
    folder = tmp_path / "packages" / "book_1%3a2-3" / "usr"
    folder.mkdir(parents=True)
    (folder / "book.txt").write_text("\n\n".join(f"Sentence {'so ' * 100} and number {i}." for i in range(100)))
    (folder / "cover.png").write_bytes(b"no text")
    counts = prose.collect_prose(tmp_path / "prose.jsonl", tmp_path / "packages")
    assert 8_000 < counts["A book"] <= 10_000
    assert {r["source"] for r in records(tmp_path / "prose.jsonl")} == {"A book"}
    (folder / "book.txt").unlink()
    with pytest.raises(ValueError, match="no file that matches"):
        prose.collect_prose(tmp_path / "prose.jsonl", tmp_path / "packages")


def test_every_source_names_its_licence_and_none_dominates():
    sources = pd.read_csv(data_folder() / "worlds" / "prose" / "sources.csv")
    assert sources.notna().all(axis=None) and sources["source"].is_unique
    assert sources["megabytes"].max() < 0.3 * sources["megabytes"].sum()
