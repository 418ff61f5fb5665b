"""A model whose next word depends on the last one alone, so that what its answers rely on is known."""

import torch
from tiny import WORDS, tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp_kit.models import LanguageModel

AFTER = dict(zip(WORDS, [*WORDS[1:], WORDS[0]]))  # "the" is followed by "capital", that by "of", ... "city" by "the"


def spaced(model):
    """The same words, each with the space before it: what is decoded is encoded as it was."""
    vocabulary = {word: i for i, word in enumerate(["<bos>", "<eos>", "<unk>", *("Ġ" + word for word in WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return LanguageModel(model.hf, PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names), model.name)


def bigram_model():
    model = spaced(tiny_model())
    for layer in model.hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    rows = torch.eye(16)[: model.vocab_size]
    model.hf.model.embed_tokens.weight.data = rows.clone()
    model.hf.model.norm.weight.data.fill_(1)
    head = torch.zeros_like(rows)
    for word, following in AFTER.items():
        head[model.token_id(" " + following)] = 10 * rows[model.token_id(" " + word)]
    model.hf.lm_head.weight.data = head
    return model
