"""A tiny random model of a real family and a random transcoder of it: everything exact, nothing meaningful."""

import random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from interp_kit.models import LanguageModel
from interp_kit.transcoders import CrossLayerTranscoder, TranscoderConfig

WORDS = ["the", "capital", "of", "Texas", "is", "Austin", "Dallas", "Ohio", "a", "state", ".", "city"]


def tiny_texts(n=60, seed=0):
    """Words in no order."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(n)]


def tiny_tokenizer():
    vocabulary = {word: i for i, word in enumerate(["<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def tiny_model(family="llama", seed=0, **changes):
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 32,
        "initializer_range": 0.4,
    }
    sizes |= {"n_inner": 24} if family == "gpt2" else {}
    sizes |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes | changes))
    for name, parameter in hf.named_parameters():
        if name.endswith("bias") or "norm" in name:  # as initialised these are 0 and 1: a mistake would not show
            parameter.data += 0.3 * torch.randn_like(parameter)
    return LanguageModel(hf, tokenizer, f"tiny-{family}")


def tiny_transcoder(model, seed=1, n_features=20, activation="topk", span=None, layers=None, **changes):
    torch.manual_seed(seed)
    layers = list(range(model.n_layers)) if layers is None else layers
    config = TranscoderConfig(
        d_model=model.d_model,
        n_features=n_features,
        layers=layers,
        span=span or len(layers),
        activation=activation,
        k=5,
        model={"name": model.name, "fingerprint": model.fingerprint},
        **changes,
    )
    clt = CrossLayerTranscoder(config)
    for parameter in clt.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    if activation == "jumprelu":
        clt.threshold.uniform_(0.1, 1.0)
    return clt.requires_grad_(False)


def planted_transcoder(model, *features):
    """A transcoder whose features in layer 0 fire on the given words, each on its own and all equally, the others
    never; changes the model so that its stream before the first MLP is the embedding alone."""
    clt = tiny_transcoder(model, activation="jumprelu", feature_input_hook="hook_resid_mid")
    clt.W_enc.data.zero_()
    clt.b_enc.data.fill_(-1)
    clt.threshold.zero_()
    for layer in model.hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    rows = model.hf.model.embed_tokens.weight
    rows.data = torch.eye(16)[: len(rows)]
    for i, words in enumerate(features):
        clt.W_enc.data[0, i] = 2 * sum(rows[model.token_id(word)] for word in words)
    return clt
