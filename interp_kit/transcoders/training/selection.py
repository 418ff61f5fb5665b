"""Which features are on: the k largest of a token and layer, or all above one threshold (BatchTopK).

A product just exact enough to decide gives the pre-activations; those of the features that are on are computed again.
"""

import torch

from ..sparse import ActiveFeatures, features_where, top_features
from .config import TrainingConfig
from .parallel import Processes
from .weights import Weights

THRESHOLD_SAMPLE_TOKENS = 64  # tokens of a batch that move the threshold ...
THRESHOLD_EMA_RATE = 0.3  # ... by this share of the way
MAX_LAYER_SHARE = 8  # times k: the most features of a token that one layer can have on, at the cost of the others


class Selection:
    """Chooses by products in `dtype`; `weights.threshold` is the running threshold."""

    def __init__(self, config: TrainingConfig, weights: Weights, processes: Processes, dtype: torch.dtype):
        self.config, self.weights, self.processes, self.dtype = config, weights, processes, dtype
        self.sample = min(THRESHOLD_SAMPLE_TOKENS, config.batch)  # tokens

    def preactivations(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """x [token, d_model] -> [token, feature], in `dtype`."""
        weights, bias = self.weights.W_enc[layer], self.weights.b_enc[layer]
        return torch.addmm(bias.to(self.dtype), x.to(self.dtype), weights.to(self.dtype).T)

    def active(self, layer: int, pre: torch.Tensor) -> ActiveFeatures:
        """Which are on, of a layer's pre-activations [token, feature]."""
        if self.config.activation == "batchtopk":
            return features_where(pre > self.weights.threshold[layer])
        if not self.processes.by_features:
            return top_features(pre, self.config.k)
        everyones = self.processes.all_values(_largest(pre, self.config.k))
        least = everyones.topk(self.config.k).values[:, -1:]  # where two tie for the last place, both are on
        return features_where((pre >= least) & (pre > 0))

    # ---------------------------------------------------------------- the threshold

    def candidates(self, pre: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Of a sample of the batch, a layer's largest pre-activations: as many as it could have on. None with topk.

        pre [token, feature]; places [token] of these tokens in the batch.
        """
        if self.config.activation == "topk":
            return pre.new_empty(0)
        share = min(MAX_LAYER_SHARE, len(self.weights.W_enc)) * self.config.k
        return _largest(pre[places < THRESHOLD_SAMPLE_TOKENS].flatten(), share * self.sample)

    def threshold(self, candidates: list[torch.Tensor]) -> torch.Tensor:
        """What k features a token and layer exceed on average, given every layer's candidates; at least 0.

        It is the same in all layers, so that features compete across them, and a layer that is hard to rebuild has more
        of them on.
        """
        everyones = self.processes.all_values(torch.cat(candidates))
        rank = self.config.k * len(candidates) * self.sample
        return everyones.topk(rank).values[-1].float().clamp(min=0)

    def follow(self, candidates: list[torch.Tensor]) -> None:
        """Moves the threshold towards this batch's; there is none with topk."""
        if self.config.activation == "batchtopk":
            self.weights.threshold += THRESHOLD_EMA_RATE * (self.threshold(candidates) - self.weights.threshold)


def _largest(values: torch.Tensor, n: int) -> torch.Tensor:
    """The n largest of the last dimension, filled up with -inf."""
    best = values.topk(min(n, values.shape[-1])).values
    return torch.nn.functional.pad(best, (0, n - best.shape[-1]), value=-torch.inf)
