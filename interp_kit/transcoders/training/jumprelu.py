"""JumpReLU and the penalty that makes it sparse, as in Ameisen et al. 2025 ("Circuit Tracing").

    a       = pre where pre > theta, else 0
    penalty = sum over features of tanh(c * ||W_dec|| * a)

||W_dec|| is the norm of all of a feature's decoder rows together, so a feature cannot escape the penalty by writing
much with a small activation. The step at theta has no gradient; within a window of width `BANDWIDTH` around it, where
pre is positive, it gets that of a ramp (a straight-through estimate; Rajamanoharan et al. 2024, "Jumping Ahead"):

    da / dtheta = -theta / BANDWIDTH        da / dpre = [pre > theta] + theta / BANDWIDTH

theta itself is trained, not its logarithm, which moves too slowly under Adam.
"""

from collections.abc import Iterable
from typing import Any

import torch

from .stream import Batch
from .weights import Scales, Weights

INITIAL_THRESHOLD = 0.03  # of every feature
BANDWIDTH = 1.0
TANH_SCALE = 4.0  # c


class JumpReLU(torch.autograd.Function):
    """pre [layer, token, feature], threshold [layer, feature] -> activations."""

    @staticmethod
    def forward(ctx: Any, pre: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(pre, threshold)
        return pre * (pre > threshold[:, None])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pre, threshold = ctx.saved_tensors
        threshold = threshold[:, None]
        ramp = grad * (threshold / BANDWIDTH) * (((pre - threshold).abs() < BANDWIDTH / 2) & (pre > 0))
        return grad * (pre > threshold) + ramp, -ramp.sum(1)


def penalty(activations: torch.Tensor, decoders: Iterable[torch.Tensor]) -> torch.Tensor:
    """Sum over layers and features, mean over tokens. activations [layer, token, feature], decoders: for each layer
    [feature, target, d_model]."""
    norms = torch.stack([torch.linalg.vector_norm(rows, dim=(1, 2)) for rows in decoders])
    return torch.tanh(TANH_SCALE * norms[:, None] * activations).sum((0, 2)).mean()


class DensePass:
    """One batch forward and back, as `SparsePass` does it, by autograd: near the start half of the features are on."""

    penalty: torch.Tensor
    "weighted, of this process's tokens"

    def __init__(self, weights: Weights, scales: Scales, batch: Batch, penalty_weight: float):
        self.weights, self.scales, self.batch, self.penalty_weight = weights, scales, batch, penalty_weight
        self.written: list[torch.Tensor] = []  # to each layer, with the graph that autograd goes back through

    @torch.enable_grad()
    def forward(self) -> list[torch.Tensor]:
        """What features write to each layer [token, d_model]."""
        weights, x = self.weights, self.batch.x * self.scales.x
        layers = range(len(x))
        pre = torch.stack([torch.addmm(weights.b_enc[i], x[i], weights.W_enc[i].T) for i in layers])
        a = JumpReLU.apply(pre, weights.threshold)
        self.written = [
            sum(a[source] @ rows for source, rows in zip(weights.sources(i), weights.W_dec[i])) for i in layers
        ]
        self.penalty = self.penalty_weight * penalty(a, map(weights.decoders, layers))
        self.fired = a.detach() > 0  # [layer, token, feature]
        return [written.detach().clone() for written in self.written]

    def backward(self, errors: list[torch.Tensor], multiple: float) -> None:
        """Sets the gradients of all weights but b_dec. The loss's gradient by what features write to a layer is
        `multiple` times its error [token, d_model]."""
        for weights in (*self.weights.parameters(), self.weights.threshold):
            weights.grad = None
        torch.autograd.backward([*self.written, self.penalty], [*(error * multiple for error in errors), None])
        self.penalty = self.penalty.detach()

    @property
    def n_active(self) -> torch.Tensor:
        """Pairs of a token and a feature that is on, in all layers."""
        return self.fired.sum()

    def mark_fired(self, last_fired: torch.Tensor) -> None:
        """In place: the last step in which each feature [layer, feature] was on."""
        last_fired[self.fired.any(1)] = self.batch.step
