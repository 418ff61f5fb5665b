"""What would the model say if it stopped here? The stream after every layer, read by the final norm and the
unembedding: the logit lens (nostalgebraist 2020). Early layers do not write for that reader, so a strange word there
means little."""

from dataclasses import dataclass

import pandas as pd
import torch

from ...models.frozen import FrozenModel
from ...models.targets import token_of


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
        from ...widgets.heat_map import heat_map, places, plain

        words = [[plain(word) for word in row] for row in self.tokens.to_numpy()]
        hover = "%{text}: %{z:.3f}<br>target: %{customdata:.3f}<extra>layer %{y}</extra>"
        return heat_map(
            self.probability, places(self.tokens.columns), self.tokens.index.astype(str),
            "the likeliest next token after each layer", colours="Blues", zmin=0, zmax=1, text=words,
            texttemplate="%{text}", customdata=self.target.to_numpy(), hovertemplate=hover,
        )  # fmt: skip

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
    for stream in streams:  # one layer's [position, vocabulary] in memory at a time
        p = model_logits(model.hf.config, frozen.parts.unembedding(frozen.parts.final_norm(stream))).softmax(-1)
        highest, ids = p.max(-1)
        best.append(model.tokens(ids))
        probability.append(highest.numpy())
        own.append(p[:, aim].clone().numpy())  # a view would keep all of p
        rank.append((1 + (p > p[:, aim, None]).sum(-1)).numpy())
    index = pd.Index(["embedding", *range(model.n_layers)], name="after layer")
    columns = model.tokens(frozen.ids)
    frames = (pd.DataFrame(values, index, columns) for values in (best, probability, own, rank))
    return LogitLens(model.tokens([aim])[0], *frames)


def model_logits(config, uncapped: torch.Tensor) -> torch.Tensor:
    """What the model makes of what the unembedding writes: Granite divides it, Gemma 2 caps it."""
    config = config.get_text_config()
    logits = uncapped.float() / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap
