"""Side by side, with padding and with what the prompts share read once: the same as one by one."""

import pytest
import torch
from tiny import tiny_model

from interp_kit.lenses.reasoning.greedy import continue_all

PROMPTS = [
    "the capital of Texas is",
    "the capital of Texas",
    "the capital",
    "Ohio is a state . the capital of Ohio is",
    "Ohio",
    "the capital of Texas is",
]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen2", "mistral", "gemma2", "granite"])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:3], PROMPTS[2:3]], ids=["apart", "alike", "one"])
def test_as_one_by_one(family, prompts):
    model = tiny_model(family)
    together = continue_all(model, prompts, [("Austin",)] * len(prompts), 9, "x")
    for prompt, (text, logprobs) in zip(prompts, together):
        assert text == model.complete(prompt, 9, stop="Austin")
        assert torch.allclose(logprobs, model.logits(prompt)[-1].log_softmax(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "window"),
    [
        ("mistral", {"sliding_window": 4}),
        ("gemma3_text", {"sliding_window": 4}),
        ("gpt_neo", {"window_size": 4, "attention_types": [[["local"], 4]]}),
    ],
)
def test_with_a_window_shorter_than_the_prompts(family, window):
    """Padding would take places in it."""
    model = tiny_model(family, **window)
    for prompt, (text, logprobs) in zip(PROMPTS, continue_all(model, PROMPTS, [()] * len(PROMPTS), 5, "x")):
        assert text == model.complete(prompt, 5)
        assert torch.allclose(logprobs, model.logits(prompt)[-1].log_softmax(-1), atol=1e-5)


def test_the_first_stop_ends_it():
    from bigram import bigram_model

    model = bigram_model()
    said = continue_all(model, ["the", "of"], [("is", "Texas"), ("Dallas", "Ohio")], 9, "x")
    assert [one.text.split() for one in said] == [["capital", "of"], ["Texas", "is", "Austin"]]


@pytest.mark.parametrize(("family", "changes"), [("gpt2", {}), ("gpt_neo", {"attention_types": [[["global"], 4]]})])
def test_where_the_context_is_full(family, changes):
    """GPT-Neo stores a mask that ends there."""
    model = tiny_model(family, max_position_embeddings=8, **changes)
    prompts = ["the capital of Texas is", "Ohio"]
    together = continue_all(model, prompts, [()] * 2, 30, "x")
    assert [one.text for one in together] == [model.complete(prompt, 30) for prompt in prompts]
