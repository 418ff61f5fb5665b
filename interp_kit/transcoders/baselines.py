"""What a transcoder must beat: an affine map in place of each MLP, and each MLP's mean output.

Both are transcoders without features, so they are measured by the same code. A good score of the affine map says that
the MLPs are nearly linear on this text, a good one of the mean that they hardly matter, and neither needs features.
"""

from dataclasses import replace

import torch

from .module import CrossLayerTranscoder

RIDGE_SHARES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the mean diagonal of the inputs' covariance, added to that diagonal


class LeastSquares:
    """Sums over tokens from which the affine map y = A x + b of each layer follows, and its error; in float64, on the
    processor."""

    def __init__(self, n_layers: int, d_model: int):
        self.n = 0
        self.x, self.y = torch.zeros(2, n_layers, d_model, dtype=torch.float64, device="cpu")
        self.xx, self.yx = torch.zeros(2, n_layers, d_model, d_model, dtype=torch.float64, device="cpu")
        self.yy = torch.zeros(n_layers, dtype=torch.float64, device="cpu")

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """x, y [layer, token, d_model]."""
        x, y = x.double(), y.double()
        self.n += x.shape[1]
        self.x += x.sum(1).cpu()
        self.y += y.sum(1).cpu()
        self.xx += (x.mT @ x).cpu()
        self.yx += (y.mT @ x).cpu()
        self.yy += y.pow(2).sum((1, 2)).cpu()

    def fit(self, others: "LeastSquares") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A [layer, out, in], b [layer, d_model], and the mean of y [layer, d_model].

        The ridge is tuned on `others`, the half that the map is measured on, which favours the baseline, on purpose.
        """
        x, y = self.x / self.n, self.y / self.n
        xx = self.xx / self.n - x[:, :, None] * x[:, None]
        yx = self.yx / self.n - y[:, :, None] * x[:, None]
        unit = xx.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(
            x.shape[1], dtype=x.dtype, device=x.device
        )
        factors = (torch.linalg.cholesky(xx + ridge * unit) for ridge in RIDGE_SHARES)
        maps = torch.stack([torch.cholesky_solve(yx.mT, factor).mT for factor in factors])
        biases = y - torch.einsum("rloi,li->rlo", maps, x)
        errors = torch.stack([others.error(a, b) for a, b in zip(maps, biases, strict=True)])
        best, layers = errors.argmin(0), torch.arange(len(x), device=x.device)
        return maps[best, layers], biases[best, layers], y

    def error(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Sum over the tokens of |a x + b - y|^2 [layer]."""
        mapped = torch.einsum("loi,li->lo", a, self.x)
        quadratic = ((a @ self.xx) * a).sum((1, 2)) + 2 * (b * mapped).sum(1) + self.n * b.pow(2).sum(1)
        return quadratic - 2 * ((a * self.yx).sum((1, 2)) + (b * self.y).sum(1)) + self.yy


def featureless(like: CrossLayerTranscoder, skip: torch.Tensor | None, bias: torch.Tensor) -> CrossLayerTranscoder:
    """A transcoder of the same layers that rebuilds skip[layer] @ x + bias[layer] with no feature on."""
    config = replace(like.config, n_features=1, span=1, activation="relu", n_features_per_layer=None)
    with torch.device(like.b_dec.device):
        out = CrossLayerTranscoder(replace(config, skip=skip is not None)).requires_grad_(False)
    out.W_enc.zero_()
    out.b_dec.copy_(bias)
    if skip is not None and out.W_skip is not None:  # both or neither
        out.W_skip.copy_(skip)
    return out.to(like.b_dec.dtype)
