"""Run in LIT's environment by test_app: its wrapper, which feeds embeddings, against the model fed with ids."""

import numpy as np
import torch
from tiny import tiny_model

from interp_kit.lit.app import Prompts

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox"]
TEXTS = ["the capital of Texas is", "Ohio"]  # in one batch, so that the second is padded

for family in FAMILIES:
    model = tiny_model(family)
    ids = [model.token_id("Austin"), model.token_id("Ohio")]
    found = Prompts(model, ids).predict_minibatch([{"prompt": text, "explain": "Ohio"} for text in TEXTS])
    for text, answer in zip(TEXTS, found):
        held = []
        keep = lambda _, __, out: held.append(out.requires_grad_())  # noqa: B023, E731
        hook = model.hf.get_input_embeddings().register_forward_hook(keep)
        logprobs = model.hf(input_ids=model.encode(text)[None]).logits[0, -1].log_softmax(-1)
        hook.remove()
        (gradients,) = torch.autograd.grad(logprobs[ids[1]], held[0])
        np.testing.assert_allclose(answer["next_token"][:2], logprobs[ids].exp().detach(), rtol=1e-4, err_msg=family)
        np.testing.assert_allclose(
            answer["gradients"], gradients[0], atol=1e-4 * gradients.abs().max().item(), err_msg=family
        )
    print(family)
