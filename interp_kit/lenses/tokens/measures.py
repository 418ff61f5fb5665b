"""How good is an explanation? What each measure is, and how it is taken.

By hiding tokens: deletion and insertion (Petsiuk et al. 2018), comprehensiveness and sufficiency (ERASER: DeYoung et
al. 2020). Without: the known truth, and the sanity check of Adebayo et al. (2018) by a randomised model.
"""

import copy

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...models import LanguageModel
from ...models.families import anatomy
from ...statistics import roc_auc, spearman
from .masking import MaskedPrompt

MEASURES = {
    "deletion": "mean fall of the answer's probability while its words are hidden, the highest first",
    "insertion": "mean probability while words are shown, the highest first",
    "comprehensiveness": "fall of the probability without the highest 10, 20, 50 %",
    "sufficiency": "fall of the probability with only these; lower is better",
    "truth": "chance that a token that decides ranks above one that does not",
    "low": "the lower end of its 95 % bootstrap interval",
    "high": "the upper end",
    "sanity": "rank correlation with the explanation of a half-randomised model; lower is better",
    "residual": "share of f(x) - f(x0) that the values miss (median)",
    "forwards": "versions of the prompt read, for one question",
}

# Shares of the tokens, for comprehensiveness and sufficiency. ERASER also takes 1 and 5 %: prompts here are short, and
# those would be one token as well.
BINS = (0.1, 0.2, 0.5)


@torch.no_grad()
def scores(test: MaskedPrompt, values: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    """The measures of one explanation, values [token], by hiding tokens with the test's own baseline; with the tokens
    that decide, truth [token] of bool, also whether it ranks these first."""
    n = len(values)
    rank = np.argsort(np.argsort(-values, kind="stable"))  # 0 for the highest
    without = torch.tensor(rank >= np.arange(n + 1)[:, None]).float()  # row k: the k highest are hidden
    p = test.probability(test.value(torch.cat([without, 1 - without]))).double().cpu().numpy()
    hidden, shown = p[: n + 1], p[n + 1 :]
    counts = [max(1, round(share * n)) for share in BINS]
    found = {
        "deletion": float(np.mean(p[0] - hidden)),
        "insertion": float(np.mean(shown)),
        "comprehensiveness": float(np.mean(p[0] - hidden[counts])),
        "sufficiency": float(np.mean(p[0] - shown[counts])),
    }
    if truth is not None:
        found["truth"] = roc_auc(values, truth)
    return found


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's, of absolute values: methods without a sign are compared too. NaN where all are equal."""
    return spearman(np.abs(a), np.abs(b))


def randomise_upper_half(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """A copy whose upper half of layers has its matrices shuffled, entry by entry; embeddings and norms stay."""
    hf, generator = copy.deepcopy(model.hf), torch.Generator().manual_seed(seed)
    for block in anatomy(hf).blocks[model.n_layers // 2 :]:
        for parameter in block.layer.parameters():
            if parameter.dim() > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return LanguageModel(hf, model.tokenizer, f"{model.name}, upper half randomised")
