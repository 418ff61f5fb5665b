"""JumpReLU and the penalty that makes it sparse, as in Ameisen et al. 2025 ("Circuit Tracing").

    a       = pre where pre > theta, else 0
    penalty = sum over features of tanh(c * ||W_dec|| * a)

||W_dec|| is the norm of all of a feature's decoder rows together, so a feature cannot escape the penalty by writing
much with a small activation. The step at theta has no gradient; within a window of width `WIDTH` around it, where
pre is positive, it gets that of a ramp (a straight-through estimate; Rajamanoharan et al. 2024, "Jumping Ahead"):

    da / dtheta = -theta / WIDTH        da / dpre = [pre > theta] + theta / WIDTH

theta itself is trained, not its logarithm, which moves too slowly under Adam.
"""

import torch

START = 0.03  # every threshold at the start
WIDTH = 1.0
STEEPNESS = 4.0  # c


class JumpReLU(torch.autograd.Function):
    """pre [layer, token, feature], threshold [layer, feature] -> activations."""

    @staticmethod
    def forward(ctx, pre, threshold):
        ctx.save_for_backward(pre, threshold)
        return pre * (pre > threshold[:, None])

    @staticmethod
    def backward(ctx, grad):
        pre, threshold = ctx.saved_tensors
        threshold = threshold[:, None]
        ramp = grad * (threshold / WIDTH) * (((pre - threshold).abs() < WIDTH / 2) & (pre > 0))
        return grad * (pre > threshold) + ramp, -ramp.sum(1)


def penalty(activations: torch.Tensor, decoders) -> torch.Tensor:
    """Sum over layers and features, mean over tokens. activations [layer, token, feature], decoders: for each layer
    [feature, target, d_model]."""
    norms = torch.stack([torch.linalg.vector_norm(rows, dim=(1, 2)) for rows in decoders])
    return torch.tanh(STEEPNESS * norms[:, None] * activations).sum((0, 2)).mean()
