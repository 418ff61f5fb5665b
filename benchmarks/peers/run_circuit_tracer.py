"""Runs circuit-tracer v0.5.0, in an environment of its own, on a model and a transcoder that benchmarks/attribution.py
wrote: python run_circuit_tracer.py MODEL TRANSCODER BACKEND BATCH PROMPT OUT.npz

Prints one line of JSON with times and memory, and saves the adjacency.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from common.measure import Measure

torch.set_num_threads(2)
CPU = torch.device("cpu")


def transformer_lens_model(folder, transcoders):
    """SmolLM2 is not in TransformerLens' list of models: its configuration is written here by hand."""
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    c = hf.config
    config = HookedTransformerConfig(
        d_model=c.hidden_size, d_head=c.head_dim, d_mlp=c.intermediate_size, d_vocab=c.vocab_size, n_ctx=2048,
        n_layers=c.num_hidden_layers, n_heads=c.num_attention_heads, n_key_value_heads=c.num_key_value_heads,
        act_fn=c.hidden_act, gated_mlp=True, normalization_type="RMS", final_rms=True, eps=c.rms_norm_eps,
        positional_embedding_type="rotary", rotary_adjacent_pairs=False, rotary_dim=c.head_dim,
        rotary_base=int(c.rope_theta), model_name=folder, tokenizer_name=folder, device="cpu", dtype=torch.float32,
        original_architecture="LlamaForCausalLM", init_weights=False,
    )  # fmt: skip
    model = TransformerLensReplacementModel(
        config, tokenizer=AutoTokenizer.from_pretrained(folder), move_to_device=False
    )
    unchanged = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
    model.load_and_process_state_dict(convert_llama_weights(hf, config), **unchanged)
    model._configure_replacement_model(transcoders)
    return model.eval()


def nnsight_model(folder, transcoders):
    from circuit_tracer import ReplacementModel

    return ReplacementModel.from_pretrained_and_transcoders(
        folder, transcoders, backend="nnsight", device=CPU, dtype=torch.float32
    )


def interventions(model, tokens, features, activations):
    """Logits [position, vocabulary] with every 500th feature switched off or pushed the other way, in each mode."""
    change = [
        (layer, position, feature, float(activations[number]) * (0.0 if number % 1000 == 0 else -2.0))
        for number, (layer, position, feature) in list(enumerate(features.tolist()))[::500]
    ]
    modes = {
        "linear": {"constrained_layers": range(model.cfg.n_layers)},
        "some layers": {"constrained_layers": range(4, 20)},
        "frozen attention": {"freeze_attention": True},
        "free": {"freeze_attention": False},
    }
    found = {name: model.feature_intervention(tokens, change, **mode)[0] for name, mode in modes.items()}
    return {name: logits.squeeze(0).detach().numpy() for name, logits in found.items()}


def main(folder, transcoder, backend, batch, prompt, out):
    from circuit_tracer import attribute
    from circuit_tracer.utils.hf_utils import load_transcoder_from_hub

    cross_layer = "cross_layer" in (Path(transcoder) / "config.yaml").read_text()
    transcoders, _ = load_transcoder_from_hub(transcoder, device=CPU, dtype=torch.float32, lazy_decoder=cross_layer)
    model = (transformer_lens_model if backend == "transformerlens" else nnsight_model)(folder, transcoders)
    with Measure() as measure:
        graph = attribute(prompt, model, batch_size=int(batch), verbose=False)
    features = graph.active_features[graph.selected_features].numpy()
    logits = {}
    if backend == "transformerlens":  # the other back end of 0.5.0 fails where attention is free
        logits = interventions(model, graph.input_tokens, features, graph.activation_values)
    tables = {"adjacency": graph.adjacency_matrix.numpy(), "features": features, "tokens": graph.input_tokens.numpy()}
    np.savez(out, **tables, **logits)
    print(json.dumps({"nodes": len(graph.adjacency_matrix), "features": len(features), **measure.numbers}))


if __name__ == "__main__":
    main(*sys.argv[1:])
