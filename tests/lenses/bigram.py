"""A model whose next word depends on the last one alone, so that what its answers rely on is known."""

import torch
from tiny import WORDS, tiny_model

AFTER = dict(zip(WORDS, [*WORDS[1:], WORDS[0]]))  # "the" is followed by "capital", that by "of", ... "city" by "the"


def bigram_model():
    model = tiny_model(hidden_size=16)
    for layer in model.hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    rows = torch.eye(16)[: model.vocab_size]
    model.hf.model.embed_tokens.weight.data = rows.clone()
    model.hf.model.norm.weight.data.fill_(1)
    head = torch.zeros_like(rows)
    for word, following in AFTER.items():
        head[model.token_id(following)] = 10 * rows[model.token_id(word)]
    model.hf.lm_head.weight.data = head
    return model
