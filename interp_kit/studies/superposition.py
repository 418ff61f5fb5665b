"""Why neurons mean several things: the toy model of superposition (Elhage et al. 2022, "Toy Models of Superposition").

    x_hat = relu(W^T W x + b),    x [feature] sparse,    W [dimension, feature]

More features than dimensions, each seldom on. Trained to rebuild x, the model keeps the features in directions that are
not at right angles: more fit in, at the price that each disturbs some others a little.
"""

from dataclasses import dataclass

import pandas as pd
import torch

from ..widgets.chart import Chart
from ..widgets.plain_text import printable

STEPS, BATCH_SIZE, LEARNING_RATE = 2000, 512, 1e-2


@dataclass(repr=False)
class ToySuperposition:
    """The trained toy.

    W [dimension, feature], b [feature]: what was trained.
    loss: at the end.
    sparsity: the share of inputs in which a feature is off.
    """

    W: torch.Tensor
    b: torch.Tensor
    loss: float
    sparsity: float

    @property
    def table(self) -> pd.DataFrame:
        """Of each feature: length of its direction (near 1: represented, near 0: given up), and interference, the
        summed squares of what all others have in that direction (0: it has the direction for itself)."""
        length = self.W.norm(dim=0)
        unit = self.W / length.clamp(min=1e-6)
        interference = (unit.T @ self.W).pow(2).sum(1) - length.pow(2)
        return pd.DataFrame({"length": length.tolist(), "interference": interference.tolist()})

    def show(self) -> Chart:
        """The directions as arrows, for two dimensions; else how much each dimension (row) holds of each feature."""
        if len(self.W) != 2:
            figure = Chart().add_heatmap(z=self.W.numpy(), colorscale=["#D55E00", "#FFFFFF", "#0072B2"], zmid=0)
            return figure.update_layout(xaxis_title="feature", yaxis_title="dimension")
        figure = Chart()
        for i, (x, y) in enumerate(self.W.T.tolist()):
            figure.add_scatter(x=[0, x], y=[0, y], name=f"feature {i}", mode="lines+markers+text", text=["", str(i)],
                               textposition="top center", line={"color": "#0072B2"})  # fmt: skip
        limits = {"range": [-1.4, 1.4], "zeroline": True}
        return figure.update_layout(
            template="plotly_white", showlegend=False, width=420, height=420, xaxis=limits, yaxis=limits,
            title=f"each feature off in {self.sparsity:.0%} of the inputs",
        )  # fmt: skip

    def __repr__(self) -> str:
        n = int((self.W.norm(dim=0) > 0.5).sum())
        return printable(f"ToySuperposition({n} of {self.W.shape[1]} features kept in {len(self.W)} dimensions)")


def toy_superposition(
    n_features: int = 5, n_dimensions: int = 2, sparsity: float = 0.9, decay: float = 0.9, seed: int = 0
) -> ToySuperposition:
    """Trains the toy, some seconds.

    sparsity: the share of inputs in which a feature is off; 0 is dense.
    decay: each feature matters so much less than the one before it.

    >>> ik.studies.toy_superposition(n_features=5, n_dimensions=2, sparsity=0.95).show()
    """
    draw = torch.Generator().manual_seed(seed)
    W = torch.nn.Parameter(0.5 * torch.randn(n_dimensions, n_features, generator=draw))
    b = torch.nn.Parameter(torch.zeros(n_features))
    importance = decay ** torch.arange(n_features)
    optimiser = torch.optim.Adam([W, b], lr=LEARNING_RATE)
    for _ in range(STEPS):
        on = torch.rand(BATCH_SIZE, n_features, generator=draw) >= sparsity
        x = torch.rand(BATCH_SIZE, n_features, generator=draw) * on
        loss = (importance * (x - (x @ W.T @ W + b).relu()).pow(2)).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return ToySuperposition(W.detach(), b.detach(), loss.item(), sparsity)
