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
        layers = [self._fit_layer(layer, others) for layer in range(len(self.x))]  # all at once take gigabytes
        maps, biases = map(torch.stack, zip(*layers))
        return maps, biases, self.y / self.n

    def _fit_layer(self, layer: int, others: "LeastSquares") -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.x[layer] / self.n, self.y[layer] / self.n
        xx, yx = self.xx[layer] / self.n - torch.outer(x, x), self.yx[layer] / self.n - torch.outer(y, x)
        unit = xx.diagonal().mean() * torch.eye(len(x), dtype=x.dtype, device=x.device)
        fits = []
        for ridge in RIDGE_SHARES:
            a = torch.cholesky_solve(yx.T, torch.linalg.cholesky(xx + ridge * unit)).T
            fits.append((a, y - a @ x))
        return min(fits, key=lambda fit: others.error(layer, *fit))

    def error(self, layer: int, a: torch.Tensor, b: torch.Tensor) -> float:
        """Sum over the tokens of |a x + b - y|^2 in one layer; a [out, in], b [d_model]."""
        x, y, xx, yx = self.x[layer], self.y[layer], self.xx[layer], self.yx[layer]
        quadratic = ((a @ xx) * a).sum() + 2 * b @ (a @ x) + self.n * b.pow(2).sum()
        return float(quadratic - 2 * ((a * yx).sum() + b @ y) + self.yy[layer])


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
