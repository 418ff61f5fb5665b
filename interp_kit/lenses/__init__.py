"""The other ways of looking, beside the graph and on the same prompt."""

from .ablation import ablate
from .attention import attention_patterns
from .calibration import calibration
from .comparison import compare_explanations
from .decomposition import decompose
from .lit import LitServer, open_lit
from .logit_lens import logit_lens
from .logprobs import logprobs
from .patching import patch_activations
from .responses import read_logprobs
from .side_by_side import side_by_side
from .token_attribution import explain_tokens
from .trial import lens_trial

__all__ = [
    "LitServer",
    "ablate",
    "attention_patterns",
    "calibration",
    "compare_explanations",
    "decompose",
    "explain_tokens",
    "lens_trial",
    "logit_lens",
    "logprobs",
    "open_lit",
    "patch_activations",
    "read_logprobs",
    "side_by_side",
]
