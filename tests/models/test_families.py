"""A model of each family goes through the whole kit, from a folder on disk to a graph and an intervention."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik

PROMPT = "the capital of Texas is"


def edges_and_biases_add_up(graph):
    targets = graph.nodes["kind"].isin(["feature", "logit"])
    total = (graph.adjacency.sum(1) + graph.nodes["bias"])[targets]
    np.testing.assert_allclose(total, graph.nodes.loc[targets, "activation"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "family", ["mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite"]
)
@pytest.mark.parametrize("tied", [True, False])
def test_from_a_folder_to_a_graph(family, tied, tmp_path):
    made = tiny_model(family, tie_word_embeddings=tied)
    made.hf.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    model = ik.load_model(tmp_path)
    assert model.family == family and (model.n_layers, model.d_model) == (4, 16)
    ids = made.encode(PROMPT)  # transformers reads a Qwen2 folder with a tokenizer of its own
    torch.testing.assert_close(model.logits(ids), made.logits(ids), rtol=1e-4, atol=1e-4)
    embedding, unembedding = model.hf.get_input_embeddings().weight, model.hf.get_output_embeddings().weight
    assert (embedding.data_ptr() == unembedding.data_ptr()) == tied

    texts = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state"] * 20
    clt = ik.train_transcoder(model, texts, n_features=24, k=4, steps=5, batch=64).transcoder
    graph = ik.attribute(model, clt, PROMPT, dtype=torch.float64)
    targets = graph.nodes["kind"].isin(["feature", "logit"])
    total = (graph.adjacency.sum(1) + graph.nodes["bias"])[targets]
    torch.testing.assert_close(
        torch.tensor(total.to_numpy()), torch.tensor(graph.nodes["activation"][targets].to_numpy())
    )
    after = ik.intervene(model, clt, PROMPT, ik.Steer(graph.nodes["id"][0], -3.0)).after
    assert torch.isfinite(after.logits).all() and (after.logits != model.logits(PROMPT)).any()


def test_the_text_part_of_a_multimodal_model():
    from tiny import tiny_tokenizer
    from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3TextConfig

    shape = {"vocab_size": 15, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 4}
    text = Gemma3TextConfig(**shape, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "image_size": 28, "patch_size": 14}
    vision = sizes | {"num_hidden_layers": 1, "num_attention_heads": 2}
    hf = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text.to_dict(), vision_config=vision))
    model = ik.LanguageModel(hf, tiny_tokenizer(), "tiny-gemma3")
    graph = ik.attribute(model, tiny_transcoder(model), PROMPT, dtype=torch.float64)
    targets = graph.nodes["kind"].isin(["feature", "logit"])
    total = (graph.adjacency.sum(1) + graph.nodes["bias"])[targets]
    torch.testing.assert_close(
        torch.tensor(total.to_numpy()), torch.tensor(graph.nodes["activation"][targets].to_numpy())
    )
