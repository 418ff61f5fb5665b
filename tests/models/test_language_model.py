"""LanguageModel on a tiny random Llama, against plain transformers calls and values worked out by hand."""

import math
import warnings

import pytest
import tiny_gguf
import torch
from tiny import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import interp_kit
from interp_kit.models import LanguageModel
from interp_kit.models.cache import new_cache, read_into, read_on

SENTENCES = ["The capital of Texas is Austin.", "Texas speaks English."] * 6
CHAT = (
    "{% for m in messages %}<|user|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant:{% endif %}"
)
CONTEXT = 24


def make_tokenizer(**changes):
    return tiny_gguf.make_tokenizer(**{"texts": SENTENCES, "chat": CHAT, **changes})


def make_model(seed=0, **changes):
    torch.manual_seed(seed)
    sizes = dict(
        vocab_size=330, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT, initializer_range=0.5, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes)))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return LanguageModel(make_model(), tokenizer, "tiny")


# ------------------------------------------------------------------ what it is


def test_reads_its_sizes_from_the_model(model):
    sizes = (model.name, model.family, model.n_layers, model.d_model, model.vocab_size, model.context_length)
    assert sizes == ("tiny", "llama", 2, 16, 330, CONTEXT)
    assert model.device.type == "cpu" and model.dtype == torch.float32
    assert interp_kit.LanguageModel is LanguageModel


def test_is_ready_for_reading(model):
    assert not model.hf.training
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())


def test_gives_attention_patterns_even_where_the_model_came_with_sdpa(tokenizer):
    hf = make_model()
    hf.set_attn_implementation("sdpa")
    model = LanguageModel(hf, tokenizer, "tiny")
    attentions = model.hf(model.encode("Texas speaks")[None], output_attentions=True).attentions
    assert len(attentions) == 2 and torch.allclose(attentions[0].sum(-1), torch.ones(()))


def test_repr_tells_the_facts_and_escapes_the_name(tokenizer):
    hf = make_model()
    model = LanguageModel(hf, tokenizer, "<script>alert(1)</script>")
    count = sum(weights.numel() for weights in hf.state_dict().values())
    for fact in ("llama", "2 layers", "16", f"{count:,}"):
        assert fact in repr(model)
    view = model._repr_html_()
    assert "<script>" not in view and "&lt;script&gt;" in view and f"{count:,}" in view


# ------------------------------------------------------------------ fingerprints


def test_fingerprint_ignores_how_the_weights_were_loaded(tokenizer):
    half = {name: weights.half() for name, weights in make_model().state_dict().items()}

    def loaded(dtype):
        hf = make_model().to(dtype)
        hf.load_state_dict({name: weights.to(dtype) for name, weights in half.items()})
        return LanguageModel(hf, tokenizer, str(dtype)).fingerprint

    prints = {loaded(dtype) for dtype in (torch.float16, torch.float32, torch.float64)}
    assert len(prints) == 1
    assert len(int(next(iter(prints)), 16).to_bytes(8, "big")) == 8 and len(next(iter(prints))) == 16


def test_fingerprint_of_float32_weights_is_that_of_their_float64_copy(tokenizer):
    single = LanguageModel(make_model(), tokenizer, "a").fingerprint
    assert LanguageModel(make_model().double(), tokenizer, "b").fingerprint == single


@pytest.mark.parametrize("change", [dict(seed=1), dict(num_hidden_layers=3), dict(num_key_value_heads=1)])
def test_fingerprint_tells_models_apart(model, tokenizer, change):
    assert LanguageModel(make_model(**change), tokenizer, "tiny").fingerprint != model.fingerprint


def test_fingerprint_sees_a_change_in_any_parameter(model, tokenizer):
    for index, _ in enumerate(model.hf.parameters()):
        hf = make_model()
        with torch.no_grad():
            list(hf.parameters())[index] += 0.25
        assert LanguageModel(hf, tokenizer, "tiny").fingerprint != model.fingerprint


# ------------------------------------------------------------------ encode, decode, tokens, token_id


def test_encode_puts_the_bos_token_first(model, tokenizer):
    ids = model.encode("The capital")
    assert ids.dtype == torch.int64 and ids.dim() == 1
    assert ids.tolist() == [0] + tokenizer("The capital", add_special_tokens=False).input_ids


def test_encode_adds_nothing_where_a_special_token_leads(model):
    assert model.encode("<|user|>Texas").tolist()[0] == 2
    assert model.encode("<|bos|>Texas").tolist().count(0) == 1
    assert model.encode("<|eos|>Texas").tolist().count(0) == 0


@pytest.mark.parametrize("bos, eos, first", [(None, "<|eos|>", [1]), (None, None, [])])
def test_encode_falls_back_to_eos_and_then_to_nothing(bos, eos, first):
    model = LanguageModel(make_model(), make_tokenizer(bos=bos, eos=eos), "tiny")
    plain = model.tokenizer("Texas", add_special_tokens=False).input_ids
    assert model.encode("Texas").tolist() == first + plain


def test_encode_recognises_control_tokens_inside_the_text(model):
    assert model.encode("Texas<|user|>Austin").tolist().count(2) == 1


@pytest.mark.parametrize("text", [None, 3, b"Texas", ["Texas"]])
def test_encode_takes_only_strings(model, text):
    with pytest.raises(TypeError, match=type(text).__name__):
        model.encode(text)


def test_encode_refuses_an_empty_prompt_but_takes_white_space(model):
    with pytest.raises(ValueError, match="no tokens"):
        model.encode("")
    assert model.decode(model.encode(" \n")) == "<|bos|> \n"


def test_encode_tells_both_lengths_of_a_prompt_that_is_too_long(model):
    fits = "Q" * (CONTEXT - 1)
    assert len(model.encode(fits)) == CONTEXT
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens.*at most {CONTEXT}"):
        model.encode(fits + "Q")


@pytest.mark.parametrize("text", ["The capital of Texas.", "  two  spaces\n", "café 日本 🙂", "<|user|>x"])
def test_decode_gives_the_text_back(model, text):
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    assert model.decode(ids) == text
    assert model.decode(torch.tensor(ids)) == text


def test_tokens_are_readable_and_one_for_each_position(model):
    text = "The capital<|user|> of Texas"
    tokens = model.tokens(text)
    assert len(tokens) == len(model.encode(text))
    assert "".join(tokens) == "<|bos|>" + text
    assert " of" in tokens and " Texas" in tokens and "<|user|>" in tokens
    assert model.tokens(model.encode(text)) == tokens


def test_tokens_show_the_bytes_of_a_split_character(model):
    assert model.tokens("é")[1:] == ["<0xC3>", "<0xA9>"]


def test_tokens_name_the_rows_beyond_the_tokenizer(model):
    assert len(model.tokenizer) < 329
    assert model.tokens([329]) == ["<unused 329>"]


def test_tokens_of_a_sentencepiece_style_vocabulary():
    vocabulary = {"<s>": 0, "▁a": 1, "▁": 2, "a": 3, "<0x0A>": 4}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a")]))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")
    model = LanguageModel(make_model(), tokenizer, "tiny")
    assert model.tokens([0, 1, 4, 3]) == ["<s>", " a", "\n", "a"]


def test_token_id_of_single_tokens(model):
    for text in (" Texas", "The", "<|user|>", "Q"):
        assert model.decode([model.token_id(text)]) == text


def test_token_id_lists_the_pieces_and_finds_the_form_with_a_space(model):
    with pytest.raises(ValueError, match=r"is \d tokens.*' capital' is a single token") as caught:
        model.token_id("capital")
    assert all(repr(piece) in str(caught.value) for piece in model.tokens("capital")[1:])


def test_token_id_finds_the_form_without_a_space(model):
    assert model.token_id("The")
    with pytest.raises(ValueError, match="'The' is a single token"):
        model.token_id(" The")


def test_token_id_refuses_what_is_no_token(model):
    with pytest.raises(ValueError, match="is 4 tokens"):
        model.token_id("QZQZ")
    with pytest.raises(ValueError, match="no tokens"):
        model.token_id("")
    with pytest.raises(TypeError, match="int"):
        model.token_id(5)


def test_token_id_does_not_take_the_unknown_token_for_a_word():
    core = Tokenizer(models.WordLevel({"<unk>": 0, "Texas": 1}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    model = LanguageModel(make_model(), tokenizer, "tiny")
    assert (model.token_id("Texas"), model.token_id("<unk>")) == (1, 0)
    with pytest.raises(ValueError, match="not in the vocabulary"):
        model.token_id("Ohio")


@pytest.mark.parametrize("ids, error", [([330], ValueError), ([-1], ValueError), ([[1, 2]], ValueError),
                                        ([1.5], TypeError), ([True], TypeError)])  # fmt: skip
def test_ids_are_checked(model, ids, error):
    for call in (model.decode, model.tokens, model.logits):
        with pytest.raises(error):
            call(ids)


# ------------------------------------------------------------------ chat


def test_chat_is_the_template_up_to_the_assistants_turn(model):
    assert model.chat("Why?") == "<|user|>user: Why?\n<|user|>assistant:"
    assert model.chat("Why?", system="Be brief.").startswith("<|user|>system: Be brief.\n<|user|>user: Why?")


def test_chat_needs_a_template_and_strings(model):
    plain = LanguageModel(make_model(), make_tokenizer(chat=None), "plain")
    with pytest.raises(ValueError, match="no chat"):
        plain.chat("Why?")
    with pytest.raises(TypeError, match="int"):
        model.chat(3)
    with pytest.raises(TypeError, match="list"):
        model.chat("Why?", system=["Be brief."])


def test_chat_passes_on_why_a_template_refuses():
    refusing = make_tokenizer(chat="{{ raise_exception('System role not supported') }}")
    with pytest.raises(ValueError, match="System role not supported"):
        LanguageModel(make_model(), refusing, "tiny").chat("Why?", system="Be brief.")


# ------------------------------------------------------------------ predictions


def test_logits_are_those_of_transformers(model):
    text = "The capital of Texas"
    expected = model.hf(model.encode(text)[None]).logits[0]
    assert expected.shape == (len(model.encode(text)), 330)
    for given in (text, model.encode(text), model.encode(text).tolist(), model.encode(text).numpy()):
        assert torch.equal(model.logits(given), expected)
    assert not model.logits(text).requires_grad


def test_logits_take_ids_as_they_are(model):
    assert model.logits([5, 6]).shape == (2, 330)
    with pytest.raises(ValueError, match="no tokens"):
        model.logits([])
    with pytest.raises(ValueError, match=f"{CONTEXT + 1}.*{CONTEXT}"):
        model.logits([5] * (CONTEXT + 1))


def test_next_tokens_are_the_softmax_sorted(model):
    table = model.next_tokens("The capital of", k=5)
    probabilities = model.logits("The capital of")[-1].double().softmax(-1)
    order = sorted(range(330), key=lambda token: -probabilities[token].item())[:5]
    assert list(table.columns) == ["token", "probability", "logprob"] and table.index.name == "id"
    assert list(table.index) == order
    for token, row in table.iterrows():
        assert row.token == model.tokens([token])[0]
        assert row.probability == pytest.approx(probabilities[token].item(), rel=1e-5)
        assert row.logprob == pytest.approx(math.log(row.probability), rel=1e-5)


def test_next_tokens_over_the_whole_vocabulary_sum_to_one(model):
    table = model.next_tokens("Texas", k=10_000)
    assert len(table) == 330 and table.probability.sum() == pytest.approx(1, abs=1e-5)


def test_next_tokens_break_ties_by_id(tokenizer):
    hf = make_model()
    hf.lm_head.weight.data.zero_()
    assert list(LanguageModel(hf, tokenizer, "flat").next_tokens("Texas", k=4).index) == [0, 1, 2, 3]


def test_half_precision_probabilities_keep_float32(tokenizer):
    table = LanguageModel(make_model().half(), tokenizer, "half").next_tokens("Texas", k=330)
    assert table.probability.dtype == "float32" and table.probability.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "3"])
def test_counts_must_be_positive_whole_numbers(model, count):
    with pytest.raises(ValueError, match="`k`"):
        model.next_tokens("Texas", k=count)
    with pytest.raises(ValueError, match="`max_new_tokens`"):
        model.complete("Texas", max_new_tokens=count)


def greedy_by_hand(model, ids, n):
    """No cache, no loop shared with the code under test: one full forward pass for each token."""
    ids = ids.tolist()
    for _ in range(n):
        ids.append(model.hf(torch.tensor([ids])).logits[0, -1].argmax().item())
    return ids[-n:]


def without_end(tokenizer, seed=0):
    """A model that never ends its text."""
    hf = make_model(seed, eos_token_id=None)
    hf.generation_config.eos_token_id = None
    return LanguageModel(hf, tokenizer, "endless")


def test_complete_is_greedy_and_gives_only_the_new_text():
    model = without_end(make_tokenizer(eos=None))
    prompt = model.encode("The capital of")
    expected = model.decode(greedy_by_hand(model, prompt, 8))
    assert expected and model.complete("The capital of", max_new_tokens=8) == expected
    assert model.complete(prompt, max_new_tokens=8) == expected


def test_complete_ends_before_the_end_token(tokenizer):
    model = without_end(make_tokenizer(eos=None))
    new = greedy_by_hand(model, model.encode("The capital of"), 6)
    cut = next(i for i in range(1, 6) if new[i] not in new[:i])
    model.hf.generation_config.eos_token_id = [new[cut], 1]
    ending = LanguageModel(model.hf, model.tokenizer, "ends")
    assert ending.complete("The capital of") == model.decode(new[:cut])


def test_complete_ends_before_the_stop_string():
    model = without_end(make_tokenizer(eos=None))
    text = model.complete("The capital of", max_new_tokens=8)
    stop = text[len(text) // 2 :][:2]
    assert model.complete("The capital of", max_new_tokens=8, stop=stop) == text[: text.index(stop)]
    assert model.complete("The capital of", max_new_tokens=8, stop="never written") == text


def test_complete_ends_where_the_context_is_full():
    model = without_end(make_tokenizer(eos=None))
    full = model.encode("Q" * (CONTEXT - 1))
    assert model.complete(full, max_new_tokens=50) == model.decode(greedy_by_hand(model, full, 1))


def test_complete_checks_stop(model):
    with pytest.raises(ValueError, match="empty"):
        model.complete("Texas", stop="")
    with pytest.raises(TypeError, match="list"):
        model.complete("Texas", stop=["\n"])


# ---------------------------------------------------------------------- what a model keeps of what it has read


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "openai-gpt"])
def test_the_cache_is_handed_over_by_the_name_that_the_family_knows(family):
    """openai-gpt keeps none. A name that a model does not know is mostly passed over: then the answer would differ."""
    extra = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 4} if family == "openai-gpt" else {}
    model = tiny_model(family, **extra)
    ids, keeps = model.encode("the capital of Texas is"), family != "openai-gpt"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = read_on(model.hf, ids[None], None)
        if keeps:
            cache = new_cache(model.hf)
            read_into(model.hf, ids[None, :2], cache)
            torch.testing.assert_close(read_on(model.hf, ids[None, 2:], cache), whole[:, 2:])
        else:
            with pytest.raises(NotImplementedError, match="'openai-gpt' models keep no keys and values"):
                new_cache(model.hf)
        greedy = list(model.greedy(ids, 4))
    for token in greedy:
        assert token == model.logits(ids)[-1].argmax()
        ids = torch.cat([ids, torch.tensor([token])])
