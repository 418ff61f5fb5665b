"""What is known of token ids, for vocabularies that are not like the others."""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from interp_kit.models import LanguageModel, Vocabulary
from interp_kit.text.rows import encode_texts


def with_tokenizer(core, **special):
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    hf = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=None, **sizes))
    return LanguageModel(hf, tokenizer, "odd")


def byte_level(added=()):
    """A token for each byte, and what is added."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([token for token in added if not token.special])
    core.add_special_tokens([token for token in added if token.special])
    return core


def sentencepiece():
    """As Gemma's: spaces are ▁, and two of them an added token of their own."""
    vocabulary = {"<bos>": 0, "▁": 1, "▁▁": 2, "x": 3, "▁x": 4, "<0x0A>": 5}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "▁"), ("▁", "x")], byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_tokens([AddedToken("▁▁", normalized=False)])
    return core


# ------------------------------------------------------------------ what goes before a text


def test_a_vocabulary_without_the_letter_a_has_a_prefix_all_the_same():
    core = Tokenizer(models.BPE(vocab={"<bos>": 0, "T": 1, "x": 2}, merges=[]))
    model = with_tokenizer(core, bos_token="<bos>")
    assert model.vocabulary.ids("a") == []
    with pytest.raises(ValueError, match="no tokens"):
        model.encode("a")
    assert model.prefix_ids == [0]
    assert model.encode("Tx").tolist() == [0, 1, 2]
    assert encode_texts(model, ["Tx", "a"]) == [[0, 1, 2]]


def test_without_a_token_that_begins_or_ends_a_text_there_is_no_prefix():
    model = with_tokenizer(byte_level())
    assert model.prefix_ids == [] and model.special_ids == set() and model.end_ids == set()
    assert len(model.encode("Ohio")) == 4


def test_changing_the_prefix_that_was_given_changes_nothing():
    model = with_tokenizer(byte_level([AddedToken("<eos>", special=True)]), eos_token="<eos>")
    model.prefix_ids.append(7)
    assert model.prefix_ids == [256] and model.encode("O").tolist()[0] == 256


# ------------------------------------------------------------------ special tokens


def test_a_control_token_without_a_role_is_special():
    added = [AddedToken("<eos>", special=True), AddedToken("<|im_start|>", special=True)]
    model = with_tokenizer(byte_level(added), eos_token="<eos>")
    assert model.tokenizer.all_special_ids == [256] and model.special_ids == {256, 257}
    text = "<|im_start|>user"
    assert model.encode(text).tolist()[0] == 257 and model.tokens(text)[0] == "<|im_start|>"
    assert [row[0] for row in encode_texts(model, [text, "user"])] == [257, 256]
    assert model.end_ids == {256}


def test_a_text_ends_where_the_generation_settings_or_the_tokenizer_say():
    added = [AddedToken("<eos>", special=True), AddedToken("<|im_end|>", special=True)]
    model = with_tokenizer(byte_level(added), eos_token="<eos>")
    assert model.end_ids == {256}
    for said, ends in ((257, {256, 257}), ([257, 5], {5, 256, 257}), (None, {256})):
        model.hf.generation_config.eos_token_id = said
        assert model.end_ids == ends


# ------------------------------------------------------------------ spaces and bytes


def test_added_tokens_of_spaces_are_spaces():
    """As in GPT-NeoX, where runs of spaces are added to a byte-level vocabulary."""
    model = with_tokenizer(byte_level([AddedToken("   "), AddedToken("é")]))
    text = "x   y é"
    assert model.tokens(text) == ["x", "   ", "y", " ", "é"]
    assert b"".join(model.token_bytes(i) for i in model.encode(text).tolist()) == text.encode()
    assert model.token_id("   ") == 256


def test_added_tokens_of_sentencepiece_spaces_are_spaces_too():
    model = with_tokenizer(sentencepiece(), bos_token="<bos>")
    assert "".join(model.tokens("x  x x")) == "<bos>x  x x"
    assert model.tokens([0, 2, 4, 3, 5]) == ["<bos>", "  ", " x", "x", "\n"]
    assert model.token_bytes(2) == b"  " and model.decode([3, 2, 3]) == "x  x"
    assert model.token_id("  ") == 2


def test_a_special_token_stands_for_what_is_written():
    core = sentencepiece()
    core.add_special_tokens([AddedToken("<end▁of▁text>", special=True)])
    model = with_tokenizer(core, bos_token="<bos>")
    assert model.tokens([6]) == ["<end▁of▁text>"] and 6 in model.special_ids


def test_every_byte_has_its_token():
    model = with_tokenizer(byte_level())
    assert sorted(model.token_bytes(i) for i in range(256)) == [bytes([byte]) for byte in range(256)]
    text = "日本 🙂\n"
    assert b"".join(model.token_bytes(i) for i in model.encode(text).tolist()) == text.encode()


def pieces(decoder, unknown="<unk>"):
    vocabulary = {token: i for i, token in enumerate([unknown, "play", "##ing", "the</w>", "the", "a", "é", "▁play"])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoder
    return core


def test_pieces_that_go_on_or_end_a_word_read_as_text():
    model = with_tokenizer(pieces(decoders.WordPiece(prefix="##")), unk_token="<unk>")
    assert model.tokens("playing the a") == ["play", "ing", "the", "a"]
    model = with_tokenizer(pieces(decoders.BPEDecoder(suffix="</w>")), unk_token="<unk>")
    assert model.tokens([3, 4]) == ["the ", "the"]


# ------------------------------------------------------------------ prompts of all kinds


PROMPTS = [
    "Texas", " ", "   ", "Привет, мир", "日本 🙂", "🏳️‍🌈", "\n\n", "a" * 60, "<eos>", "x<eos>y", "<|im_start|>user\n",
    "\t x", "Å",
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_read_and_comes_back(prompt):
    added = [AddedToken("<eos>", special=True), AddedToken("<|im_start|>", special=True), AddedToken("  ")]
    model = with_tokenizer(byte_level(added), eos_token="<eos>")
    ids = model.encode(prompt).tolist()
    assert ids.count(model.tokenizer.eos_token_id) == prompt.count("<eos>") + (not prompt.startswith("<"))
    assert model.decode(ids).removeprefix("" if prompt.startswith("<eos>") else "<eos>") == prompt
    assert b"".join(map(model.token_bytes, ids)).decode().endswith(prompt)
    assert len(model.tokens(prompt)) == len(ids) == len(model.logits(prompt))


def test_a_pad_token_alone_is_special_and_no_prefix():
    model = with_tokenizer(byte_level([AddedToken("<pad>", special=True)]), pad_token="<pad>")
    assert model.prefix_ids == [] and model.special_ids == {256} and model.end_ids == set()
    assert model.encode("<pad>x").tolist()[0] == 256


@pytest.mark.parametrize("text", ["\ud83d", "half \ude42 of it"])
def test_half_a_character_is_refused_with_words(text):
    model = with_tokenizer(byte_level())
    for ask in (model.encode, model.token_id, model.next_tokens, model.vocabulary.offsets):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            ask(text)


# ------------------------------------------------------------------ where tokens stand in a text


class Slow:
    """A tokenizer that does not say where its tokens stand, as those written in Python."""

    is_fast = False

    def __init__(self, fast):
        self._fast = fast

    def __getattr__(self, name):
        return getattr(self._fast, name)

    def __call__(self, *args, **kwargs):
        assert "return_offsets_mapping" not in kwargs
        return self._fast(*args, **kwargs)


@pytest.mark.parametrize(
    ("core", "texts"),
    [
        (byte_level([AddedToken("  ")]), ["x  x x", "x", "", " x", "日本 🙂 é", "the  playing ", "\n\tx"]),
        (sentencepiece(), ["x  x x", "x", "", " x", "xx  x"]),
        (pieces(decoders.WordPiece(prefix="##")), ["playing the", "", " a  playing é", "theing"]),
    ],
)
def test_spans_are_the_same_where_a_tokenizer_does_not_say_them(core, texts):
    tokenizer = with_tokenizer(core).tokenizer
    for text in texts:
        assert Vocabulary(Slow(tokenizer)).offsets(text) == Vocabulary(tokenizer).offsets(text), text


def test_spans_that_cannot_be_told_are_an_error():
    core = byte_level()
    core.normalizer = normalizers.Lowercase()
    with pytest.raises(ValueError, match="cannot be told, from 't' on: take the model's fast tokenizer"):
        Vocabulary(Slow(with_tokenizer(core).tokenizer)).offsets("Texas")


def test_a_character_split_over_tokens_is_covered_by_each():
    tokenizer = with_tokenizer(byte_level()).tokenizer
    for vocabulary in (Vocabulary(tokenizer), Vocabulary(Slow(tokenizer))):
        assert vocabulary.offsets("a🙂")[1] == [(0, 1), (1, 2), (1, 2), (1, 2), (1, 2)]


def test_the_first_token_of_a_text():
    model = with_tokenizer(byte_level())
    assert model.vocabulary.first_id("Ohio") == model.vocabulary.ids("O")[0]
    with pytest.raises(ValueError, match="'' has no tokens"):
        model.vocabulary.first_id("")
