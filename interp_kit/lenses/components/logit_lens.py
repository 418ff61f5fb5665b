"""What would the model say if it stopped here? The stream after every layer, read by the final norm and the
unembedding: the logit lens (nostalgebraist 2020). Early layers do not write for that reader, so a strange word there
means little."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PretrainedConfig

from ...models.arguments import checked
from ...models.frozen import FrozenModel
from ...models.language_model import LanguageModel, Prompt
from ...models.precision import as_numpy
from ...models.targets import Target, Tokens
from ...widgets.chart import Chart
from ...widgets.heat_map import heat_map, places
from ...widgets.plain_text import literal, printable


@dataclass(repr=False)
class LogitLens:
    """What `logit_lens` or a `JacobianLens` found: five tables [layer, position], with a row "embedding" first.

    question: the target in words, "' Austin'".
    tokens: the likeliest next token there.
    probability: its probability.
    target: the probability of the target.
    rank: the target's place among all tokens, 1 the likeliest; of several tokens that of the likeliest.
    score: how much is for the target, in nats: its log-probability, or with a contrast its logit less the contrast's.
    """

    question: str
    tokens: pd.DataFrame
    probability: pd.DataFrame
    target: pd.DataFrame
    rank: pd.DataFrame
    score: pd.DataFrame

    @property
    def decided(self) -> int | str | None:
        """The first layer from which on the target is the likeliest at the last position; None where it never is."""
        first = [bool(self.rank.iloc[i:, -1].eq(1).all()) for i in range(len(self.rank))]
        return self.rank.index[first.index(True)] if any(first) else None

    def show(self) -> Chart:
        """A plotly heat map: the likeliest token of every layer and position, coloured by its probability."""
        hover = "%{text}: %{z:.3f}<br>target: %{customdata:.3f}<extra>layer %{y}</extra>"
        return heat_map(
            self.probability, places(self.tokens.columns), self.tokens.index.astype(str),
            "the likeliest next token after each layer", colours="Blues", zmin=0, zmax=1, text=self.tokens.to_numpy(),
            texttemplate="%{text}", customdata=self.target.to_numpy(), hovertemplate=hover,
        )  # fmt: skip

    def __repr__(self) -> str:
        return printable(f"LogitLens({self.question}, {len(self.tokens)} rows of {len(self.tokens.columns)} positions)")

    def _repr_html_(self) -> str:
        table = pd.DataFrame(
            {"likeliest": self.tokens.iloc[:, -1], "probability": self.probability.iloc[:, -1],
             f"probability of {self.question}": self.target.iloc[:, -1], "its rank": self.rank.iloc[:, -1]}
        )  # fmt: skip
        return literal("<p>at the last position</p>" + table.to_html(float_format="{:.3f}".format))


@checked
@torch.no_grad()
def logit_lens(
    model: LanguageModel, prompt: Prompt, target: Tokens | None = None, contrast: Tokens | None = None
) -> LogitLens:
    """The next token that the stream after each layer would give, at every position.

    target: whose probability and rank are followed: text (" Austin") or id; of a list the sum of the probabilities.
        Without one the likeliest next token at the last position. contrast: tokens, of which `score` then says how far
        the target lies above them.

    The last row is the model's own prediction.

        ik.lenses.logit_lens(model, prompt, target=" Austin").show()

    Raises what `LanguageModel.encode` and `token_id` raise.
    """
    frozen = FrozenModel(model, prompt)
    asked = Target.of(model, target, contrast, frozen.logits[-1])
    return read_streams(model, frozen, asked, [*frozen.residual_pre, frozen.residual_final])


def read_streams(
    model: LanguageModel, frozen: FrozenModel, asked: Target, streams: Iterable[torch.Tensor]
) -> LogitLens:
    """streams [position, d_model]: the embeddings', and that after each layer, as the final norm should read it."""
    rows = []
    for stream in streams:  # one [position, vocabulary] in memory at a time
        logits = model_logits(model.hf.config, frozen.parts.unembedding(frozen.parts.final_norm(stream)))
        p = logits.softmax(-1)
        highest, ids = p.max(-1)
        of_target = p[:, list(asked.ids)]
        rank = 1 + (p > of_target.amax(-1, keepdim=True)).sum(-1)
        numbers = (highest, of_target.sum(-1), rank, asked.score(logits))
        rows.append((model.tokens(ids), *map(as_numpy, numbers)))
    index = pd.Index(["embedding", *range(model.n_layers)], name="after layer")
    columns = model.tokens(frozen.ids)
    return LogitLens(asked.name, *(pd.DataFrame(list(values), index, columns) for values in zip(*rows)))


def model_logits(config: PretrainedConfig, uncapped: torch.Tensor) -> torch.Tensor:
    """What the model makes of what the unembedding writes: Granite divides it, Gemma 2 caps it."""
    config = config.get_text_config()
    logits = uncapped.float() / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap
