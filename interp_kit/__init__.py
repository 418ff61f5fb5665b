"""interp_kit: see what a language model is thinking, in a notebook.

About twenty names for the main job, and the rooms for the rest: `ik.features`, `ik.lenses`, `ik.worlds`, `ik.studies`
and so on. `__init__.pyi` lists them. Each is imported when it is first used, so that `import interp_kit` is instant and
a lesson that needs no torch never loads it.
"""

import importlib
import os
import warnings

import lazy_loader

__version__ = "0.2.0"

# OpenMP's threads, which torch computes with, would burn a core while they wait for work that the kit's own workers
# (`hardware.py`) could use it for. It reads this when torch is first imported; a setting of yours is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Names that were flat before 0.2 and live in a room since; they go on working, with a warning.
_MOVED = {
    name: f"{room}.{name}"
    for room, names in {
        "features": "LLM Neurons RandomDirections label_prompt neuron_examples steering_scores student_labels",
        "lenses": "Mistake Problem Step ablate attention_patterns calibration compare_explanations cot_faithfulness "
        "decompose explain_tokens logit_lens logprobs patch_activations read_logprobs reliance stories sums",
        "lit": "open_lit",
        "studies": "frontier polysemanticity recover_concepts toy_superposition",
    }.items()
    for name in names.split()
} | {"lens_trial": "studies.grade_lenses", "load_public_features": "features.load_feature_json"}


def __getattr__(name: str) -> object:
    if name not in _MOVED:
        return _lazy(name)
    room, new = _MOVED[name].split(".")
    warnings.warn(f"ik.{name} is now ik.{room}.{new}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(f"{__name__}.{room}"), new)
