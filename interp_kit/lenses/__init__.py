"""The other ways of looking, beside the graph and on the same prompt."""

from .certainty.calibration import calibration
from .certainty.logprobs import logprobs
from .certainty.responses import read_logprobs
from .lit.server import LitServer, open_lit
from .parts.ablation import ablate
from .parts.attention import attention_patterns
from .parts.decomposition import decompose
from .parts.logit_lens import logit_lens
from .parts.patching import patch_activations
from .reasoning.chain_of_thought import cot_faithfulness
from .reasoning.faithfulness import CotFaithfulness
from .reasoning.problems import Mistake, Problem, Step, stories, sums
from .reasoning.reliance import Reliance, reliance, share_by_position
from .side_by_side import side_by_side
from .trial import lens_trial
from .words.comparison import compare_explanations
from .words.token_attribution import explain_tokens

__all__ = [
    "CotFaithfulness",
    "LitServer",
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
    "lens_trial",
    "logit_lens",
    "logprobs",
    "open_lit",
    "patch_activations",
    "read_logprobs",
    "reliance",
    "share_by_position",
    "side_by_side",
    "stories",
    "sums",
]
