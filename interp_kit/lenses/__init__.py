"""The other ways of looking, beside the graph and on the same prompt.

components: what the parts of a model write, move and change. confidence: how sure it was. tokens: which words of the
prompt mattered. reasoning: whether a chain of thought is what the answer comes from. `side_by_side`: all on one page.
"""

from .components.ablation import Ablation, ablate
from .components.attention import AttentionPatterns, attention_patterns
from .components.decomposition import Decomposition, decompose
from .components.jacobian_lens import JacobianLens, fit_jacobian_lens
from .components.logit_lens import LogitLens, logit_lens
from .components.patching import ActivationPatching, patch_activations
from .confidence.calibration import Calibration, calibration
from .confidence.logprobs import Logprobs, logprobs
from .confidence.responses import read_logprobs
from .reasoning.chain_of_thought import cot_faithfulness
from .reasoning.faithfulness import CotFaithfulness
from .reasoning.problems import Mistake, Problem, Step
from .reasoning.reliance import Reliance, reliance, share_by_position
from .reasoning.stories import Story, stories
from .reasoning.sums import Sum, sums
from .side_by_side import SideBySide, side_by_side
from .tokens.comparison import ExplanationComparison, compare_explanations
from .tokens.token_attribution import TokenAttribution, explain_tokens

__all__ = [
    "Ablation", "ActivationPatching", "AttentionPatterns", "Calibration", "CotFaithfulness", "Decomposition",
    "ExplanationComparison", "JacobianLens", "LogitLens", "Logprobs", "Mistake", "Problem", "Reliance", "SideBySide",
    "Step", "Story", "Sum", "TokenAttribution", "ablate", "attention_patterns", "calibration", "compare_explanations",
    "cot_faithfulness", "decompose", "explain_tokens", "fit_jacobian_lens", "logit_lens", "logprobs",
    "patch_activations", "read_logprobs", "reliance", "share_by_position", "side_by_side", "stories", "sums",
]  # fmt: skip
