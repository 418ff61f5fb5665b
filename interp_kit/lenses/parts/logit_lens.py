"""What would the model say if it stopped here? The stream after every layer, read by the final norm and the
unembedding: the logit lens (nostalgebraist 2020). Early layers do not write for that reader, so a strange word there
means little."""

import html
from dataclasses import dataclass

import pandas as pd
import torch

from ...models.frozen import FrozenModel
from ..targets import token_of


@dataclass(repr=False)
class LogitLens:
    """Three tables [layer, position], a row "embedding" first: tokens, the likeliest next token there; probability, its
    probability; target, that of the target token; and rank, the target's place, 1 the likeliest. `name`: the target."""

    name: str
    tokens: pd.DataFrame
    probability: pd.DataFrame
    target: pd.DataFrame
    rank: pd.DataFrame

    @property
    def decided(self) -> int | str | None:
        """The first layer from which on the target is the likeliest at the last position; None where it never is."""
        first = [self.rank.iloc[i:, -1].eq(1).all() for i in range(len(self.rank))]
        return self.rank.index[first.index(True)] if any(first) else None

    def show(self):
        """A plotly heat map: the likeliest token of every layer and position, coloured by its probability."""
        import plotly.graph_objects as go

        words = [[html.escape(word).replace("\n", "↵") for word in row] for row in self.tokens.to_numpy()]
        figure = go.Figure(
            go.Heatmap(
                z=self.probability, text=words, texttemplate="%{text}", customdata=self.target, zmin=0, zmax=1,
                x=[f"{i} {html.escape(token)}" for i, token in enumerate(self.tokens.columns)],
                y=list(self.tokens.index.astype(str)), colorscale="Blues",
                hovertemplate="%{text}: %{z:.3f}<br>target: %{customdata:.3f}<extra>layer %{y}</extra>",
            )
        )  # fmt: skip
        height = 160 + 24 * len(self.tokens)
        return figure.update_layout(title="the likeliest next token after each layer", height=height)

    def __repr__(self):
        return f"LogitLens({self.name!r}, {len(self.tokens)} rows of {len(self.tokens.columns)} positions)"

    def _repr_html_(self):
        table = pd.DataFrame(
            {"likeliest": self.tokens.iloc[:, -1], "probability": self.probability.iloc[:, -1],
             f"probability of {self.name!r}": self.target.iloc[:, -1], "its rank": self.rank.iloc[:, -1]}
        )  # fmt: skip
        return "<p>at the last position</p>" + table.to_html(float_format="{:.3f}".format)


@torch.no_grad()
def logit_lens(model, prompt, target=None) -> LogitLens:
    """The next token that the stream after each layer would give, at every position.

    target: whose probability and rank are followed (text or id); without one the model's answer at the last position.
    The last row is the model's own prediction.
    """
    frozen = FrozenModel(model, prompt)
    aim = token_of(model, target, frozen.logits[-1])
    streams = [*frozen.residual_pre, frozen.residual_final]
    best, probability, own, rank = [], [], [], []
    for i, stream in enumerate(streams):  # one layer's [position, vocabulary] in memory at a time
        last = i == len(streams) - 1  # with the cap or scale that some families put on their logits
        logits = frozen.logits if last else frozen.parts.unembedding(frozen.parts.final_norm(stream))
        p = logits.float().softmax(-1)
        highest, ids = p.max(-1)
        best.append(model.tokens(ids))
        probability.append(highest.numpy())
        own.append(p[:, aim].numpy())
        rank.append((1 + (p > p[:, aim, None]).sum(-1)).numpy())
    index = pd.Index(["embedding", *range(model.n_layers)], name="after layer")
    columns = model.tokens(frozen.ids)
    frames = (pd.DataFrame(values, index, columns) for values in (best, probability, own, rank))
    return LogitLens(model.tokens([aim])[0], *frames)
