"""The other ways of looking, beside the graph and on the same prompt."""

from .ablation import ablate
from .attention import attention_patterns
from .calibration import calibration
from .comparison import compare_explanations
from .decomposition import decompose
from .logit_lens import logit_lens
from .logprobs import logprobs
from .patching import patch_activations
from .responses import read_logprobs
from .token_attribution import explain_tokens

__all__ = [
    "ablate",
    "attention_patterns",
    "calibration",
    "compare_explanations",
    "decompose",
    "explain_tokens",
    "logit_lens",
    "logprobs",
    "patch_activations",
    "read_logprobs",
]
