"""The other ways of looking, beside the graph and on the same prompt."""

from .components.ablation import ablate
from .components.attention import attention_patterns
from .components.decomposition import decompose
from .components.logit_lens import logit_lens
from .components.patching import patch_activations
from .confidence.calibration import calibration
from .confidence.logprobs import logprobs
from .confidence.responses import read_logprobs
from .reasoning.chain_of_thought import cot_faithfulness
from .reasoning.faithfulness import CotFaithfulness
from .reasoning.problems import Mistake, Problem, Step, stories, sums
from .reasoning.reliance import Reliance, reliance, share_by_position
from .side_by_side import side_by_side
from .tokens.comparison import compare_explanations
from .tokens.token_attribution import explain_tokens

__all__ = [
    "CotFaithfulness",
    "Mistake",
    "Problem",
    "Reliance",
    "Step",
    "ablate",
    "attention_patterns",
    "calibration",
    "compare_explanations",
    "cot_faithfulness",
    "decompose",
    "explain_tokens",
    "logit_lens",
    "logprobs",
    "patch_activations",
    "read_logprobs",
    "reliance",
    "share_by_position",
    "side_by_side",
    "stories",
    "sums",
]
