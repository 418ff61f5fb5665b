import math

import numpy as np
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik
from interp_kit.models import LanguageModel

TEXT = "the capital of Texas is Austin"


def test_every_token_after_the_first_is_scored():
    model = tiny_model()
    found = ik.lenses.logprobs(model, TEXT, top_logprobs=3)
    logits = model.logits(TEXT).log_softmax(-1)
    ids = model.encode(TEXT)
    assert [record["token"] for record in found.content] == TEXT.split()
    for p, record in enumerate(found.content, start=1):
        assert record["logprob"] == pytest.approx(float(logits[p - 1, ids[p]]), abs=1e-5)
        tops = [a["logprob"] for a in record["top_logprobs"]]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True)
        assert tops[0] == pytest.approx(float(logits[p - 1].max()), abs=1e-5)


def test_after_a_prompt_only_the_answer_is_scored():
    model = tiny_model()
    whole, answer = (
        ik.lenses.logprobs(model, TEXT),
        ik.lenses.logprobs(model, "is Austin", prompt="the capital of Texas"),
    )
    assert [record["token"] for record in answer.content] == ["is", "Austin"]
    np.testing.assert_allclose(answer.table["logprob"], whole.table["logprob"][-2:], rtol=1e-5)


def test_without_a_text_the_model_writes():
    model = ik.load_model("pocket")
    prompt = "The capital of the state containing Dallas is"
    found = ik.lenses.logprobs(model, prompt=prompt, max_new_tokens=2)
    assert found.text == model.complete(prompt, max_new_tokens=2) == " Austin."
    expected = model.next_tokens(prompt, 5)
    assert [a["token"] for a in found.content[0]["top_logprobs"]] == list(expected["token"])
    np.testing.assert_allclose(
        [a["logprob"] for a in found.content[0]["top_logprobs"]], expected["logprob"], rtol=1e-4, atol=1e-6
    )


def test_entropy_and_surprisal_are_in_bits():
    model = tiny_model()
    table = ik.lenses.logprobs(model, TEXT, top_logprobs=2).table
    p = model.logits(TEXT)[:-1].double().softmax(-1)
    np.testing.assert_allclose(table["entropy"], -(p * p.log2()).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(table["surprisal"], -table["logprob"] / math.log(2))
    np.testing.assert_allclose(table["probability"], np.exp(table["logprob"]))
    assert (table["alternative"] != table["token"]).all()


def test_bytes_are_those_of_the_vocabulary(smollm2):
    """A sign that is split over tokens: each has its own bytes, the text is whole."""
    text = "good 🦙 day"
    found = ik.lenses.logprobs(smollm2, text, prompt="A")
    assert found.text == text
    pieces = [bytes(record["bytes"]) for record in found.content]
    assert b"".join(pieces) == text.encode() and any("\ufffd" in record["token"] for record in found.content)
    ids = smollm2.tokenizer.encode(text)
    assert len(pieces) == len(ids) and pieces[0] == b"good"


def test_bytes_of_a_sentencepiece_vocabulary():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, "▁a": 1, "a": 2, "<0xE6>": 3, "<0x0A>": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    model = LanguageModel(tiny_model().hf, tokenizer, "tiny")
    assert [model.token_bytes(i) for i in range(5)] == [b"<s>", b" a", b"a", b"\xe6", b"\n"]
    assert model.tokens([0, 1, 2, 3, 4]) == ["<s>", " a", "a", "<0xE6>", "\n"]


def test_the_view_tells_certainty_and_escapes():
    from interp_kit.lenses.confidence.logprobs import Logprobs

    sure = {"token": "<b>sure", "logprob": -0.001, "bytes": list(b"<b>sure"), "top_logprobs": []}
    other = {"token": "<script>", "logprob": -0.3, "bytes": list(b"<script>")}
    doubt = {"token": "so so", "logprob": -3.0, "bytes": list(b"so so"), "top_logprobs": [other]}
    page = Logprobs([sure, doubt])._repr_html_()
    assert "<b>sure" not in page and "<script" not in page and "&lt;script&gt;" in page
    assert "213,94,0,0.00" in page and "213,94,0,0.62" in page  # 0.65 times one minus probability


def test_a_request_it_cannot_answer():
    model = tiny_model()
    with pytest.raises(ValueError, match="0 to 20"):
        ik.lenses.logprobs(model, TEXT, top_logprobs=21)
    with pytest.raises(ValueError, match="text to be scored"):
        ik.lenses.logprobs(model)
    assert ik.lenses.logprobs(model, "<bos>").content == []  # nothing stands before it
    assert ik.lenses.logprobs(model, TEXT, top_logprobs=0).content[0]["top_logprobs"] == []


def test_calibration_of_a_model_that_knows_its_odds():
    """Texts drawn from the model's own distribution: as often right as it is sure."""
    model = tiny_model(initializer_range=0.1)
    torch.manual_seed(0)
    ids = torch.zeros(1, 1, dtype=torch.long).repeat(600, 1)
    for _ in range(8):
        p = model.hf(ids).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(p, 1)], 1)
    words = [" ".join(model.tokens(row)) for row in ids[:, 1:]]
    kept = [text for text in words if "<" not in text]
    found = ik.lenses.calibration(model, kept)
    # Dropping texts with special words takes their share of the odds away: about a fifth.
    assert len(found.tokens) == 8 * len(kept) and found.error < 0.12
    sharp = tiny_model(initializer_range=0.1)
    sharp.hf.lm_head.weight.data *= 40
    assert ik.lenses.calibration(sharp, kept).error > 0.3


def test_calibration_counts_by_hand():
    model = tiny_model()
    texts = [TEXT, "Dallas is a city"]
    found = ik.lenses.calibration(model, texts)
    assert len(found.tokens) == 6 + 4 and list(found.tokens["token"][:6]) == TEXT.split()
    first = found.tokens.iloc[0]
    best = model.logits(TEXT)[0].softmax(-1)
    assert first["confidence"] == pytest.approx(float(best.max()), rel=1e-4)
    assert first["correct"] == (model.tokens([int(best.argmax())])[0] == "the")
    assert found.table["n"].sum() == 10
    by_hand = sum(
        abs(rows["confidence"].mean() - rows["correct"].mean()) * len(rows) / 10
        for _, rows in found.tokens.groupby((found.tokens["confidence"] * 10).astype(int))
    )
    assert found.error == pytest.approx(by_hand)
    assert len(found.show().data[1].x) == len(found.table)
    with pytest.raises(TypeError, match="one string"):
        ik.lenses.calibration(model, TEXT)


def test_pocket_is_calibrated_on_sentences_it_never_read():
    model, world = ik.load_model("pocket"), ik.load_world("geography")
    found = ik.lenses.calibration(model, [sentence.text for sentence in world.sentences(300, "test")])
    assert found.error < 0.05 and found.tokens["correct"].mean() > 0.6
