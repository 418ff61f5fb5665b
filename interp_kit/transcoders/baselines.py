"""What a transcoder must beat: an affine map in place of each MLP, and each MLP's mean output.

Both are transcoders without features, so they are measured by the same code. A good score of the affine map says that
the MLPs are nearly linear on this text, a good one of the mean that they hardly matter, and neither needs features.
"""

from dataclasses import replace

import torch

from .module import CrossLayerTranscoder

RIDGE = 1e-4  # added to the inputs' covariance, as a share of its mean diagonal


class LeastSquares:
    """Sums from which the affine map y = A x + b of each layer follows, in float64."""

    def __init__(self, n_layers: int, d_model: int):
        self.n = 0
        self.x, self.y = torch.zeros(2, n_layers, d_model, dtype=torch.float64)
        self.xx, self.yx = torch.zeros(2, n_layers, d_model, d_model, dtype=torch.float64)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """x, y [layer, token, d_model]."""
        self.n += x.shape[1]
        self.x += x.sum(1)
        self.y += y.sum(1)
        self.xx += x.mT @ x
        self.yx += y.mT @ x

    def fit(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A [layer, out, in], b [layer, d_model], and the mean of y [layer, d_model]."""
        x, y = self.x / self.n, self.y / self.n
        xx = self.xx / self.n - x[:, :, None] * x[:, None]
        yx = self.yx / self.n - y[:, :, None] * x[:, None]
        diagonal = xx.diagonal(dim1=1, dim2=2)
        diagonal += RIDGE * diagonal.mean(1, keepdim=True)
        a = torch.linalg.solve(xx, yx.mT).mT
        return a, y - torch.einsum("loi,li->lo", a, x), y


def featureless(like: CrossLayerTranscoder, skip: torch.Tensor | None, bias: torch.Tensor) -> CrossLayerTranscoder:
    """A transcoder of the same layers that rebuilds skip[layer] @ x + bias[layer] with no feature on."""
    config = replace(like.config, n_features=1, span=1, activation="relu", skip=skip is not None, counts=None)
    out = CrossLayerTranscoder(config).requires_grad_(False)
    out.W_enc.zero_()
    out.b_dec.copy_(bias)
    if skip is not None:
        out.W_skip.copy_(skip)
    return out.to(like.b_dec.device, like.b_dec.dtype)
