"""interp_kit: see what a language model is thinking, in a notebook.

Every public name lives in one of the rooms below and is imported when it is first used, so that
`import interp_kit` is instant and a lesson that needs no torch never loads it.
"""

import importlib
import os

__version__ = "0.1.0"

# OpenMP's threads, which torch computes with, would burn a core while they wait for work that the kit's own workers
# (`cores.py`) could use it for. It reads this when torch is first imported; a setting of yours is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOME = {
    "load_model": "models",
    "LanguageModel": "models",
    "CrossLayerTranscoder": "transcoders",
    "train_transcoder": "transcoders",
    "plan_training": "transcoders",
    "load_transcoder": "transcoders",
    "evaluate_transcoder": "transcoders",
    "attribute": "graphs",
    "AttributionGraph": "graphs",
    "load_graph": "graphs",
    "intervene": "graphs",
    "Steer": "graphs",
    "swap": "graphs",
    "validate": "graphs",
    "frontier": "graphs",
    "collect_features": "features",
    "label_features": "features",
    "FeatureStore": "features",
    "LLM": "features",
    "Neurons": "features",
    "RandomDirections": "features",
    "label_prompt": "features",
    "neuron_examples": "features",
    "polysemanticity": "features",
    "recover_concepts": "worlds.recovery",
    "score_labels": "features",
    "steering_scores": "features",
    "student_labels": "features",
    "toy_superposition": "features",
    "load_features": "features",
    "load_labels": "features",
    "load_feature_json": "features",
    "cot_faithfulness": "lenses",
    "reliance": "lenses",
    "Problem": "lenses",
    "Step": "lenses",
    "Mistake": "lenses",
    "stories": "lenses",
    "sums": "lenses",
    "load_world": "worlds",
    "decompose": "lenses",
    "ablate": "lenses",
    "patch_activations": "lenses",
    "logit_lens": "lenses",
    "attention_patterns": "lenses",
    "logprobs": "lenses",
    "read_logprobs": "lenses",
    "calibration": "lenses",
    "explain_tokens": "lenses",
    "compare_explanations": "lenses",
    "side_by_side": "lenses",
    "lens_trial": "lenses",
    "open_lit": "lenses",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'interp_kit' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
