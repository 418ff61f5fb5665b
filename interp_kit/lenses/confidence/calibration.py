"""Is it right as often as it is sure? Of all places where a model gives its best next token 70 %, that token should
come in 70 % (Guo et al. 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from ...models import LanguageModel
from ...models.arguments import checked
from ...models.precision import as_numpy
from ...text.batches import pad
from ...widgets.chart import Chart
from ...widgets.colours import BLUE
from ...widgets.plain_text import literal, printable
from ...widgets.progress import ProgressBar

VALUES_AT_ONCE = 8e6  # probabilities of one forward: texts x positions x vocabulary; five times 4 bytes are held


@dataclass(repr=False)
class Calibration:
    """What `calibration` found.

    tokens: a row a predicted token: text (its number), position, token (what came), prediction (the likeliest token),
        confidence (its probability) and correct. All measures below are over these rows.
    bins: of equal width, from 0 to 1.
    """

    tokens: pd.DataFrame
    bins: int = 10

    @property
    def table(self) -> pd.DataFrame:
        """By confidence, in bins of equal width: n, confidence (mean), accuracy."""
        bins = (self.tokens["confidence"] * self.bins).clip(upper=self.bins - 1).astype(int)
        by = self.tokens.groupby(bins)
        table = by.agg(n=("correct", "size"), confidence=("confidence", "mean"), accuracy=("correct", "mean"))
        table.index = [f"{i / self.bins:.0%} to {(i + 1) / self.bins:.0%}" for i in table.index]
        return table

    @property
    def error(self) -> float:
        """Expected calibration error (ECE), 0 to 1: the mean distance between confidence and accuracy, bins weighted
        by tokens."""
        table = self.table
        n, gaps = table["n"].to_numpy(), (table["confidence"] - table["accuracy"]).abs().to_numpy()
        return float((gaps * n).sum() / n.sum())

    def show(self) -> Chart:
        """A reliability diagram in plotly: accuracy against confidence, larger marks for more tokens; on the dashed
        line all is well."""
        table = self.table
        sizes = 6 + 24 * (table["n"] / table["n"].max()) ** 0.5
        figure = Chart()
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dash", "color": "#777777"}, name="calibrated"
        )
        figure.add_scatter(
            x=table["confidence"], y=table["accuracy"], mode="lines+markers", name="model",
            marker={"size": sizes, "color": BLUE}, text=[f"{n:,} tokens" for n in table["n"]],
        )  # fmt: skip
        title = f"calibration error {self.error:.1%} over {len(self.tokens):,} tokens"
        figure.update_layout(title=title, template="plotly_white", height=420)
        return figure.update_xaxes(title="confidence").update_yaxes(title="accuracy")

    def __repr__(self) -> str:
        accuracy = self.tokens["correct"].mean()
        return printable(
            f"Calibration({len(self.tokens):,} tokens, accuracy {accuracy:.1%}, calibration error {self.error:.2%})"
        )

    def _repr_html_(self) -> str:
        return literal(f"<p>{self!r}</p>{self.table.to_html(float_format='{:.3f}'.format)}")


@checked
@torch.no_grad()
def calibration(model: LanguageModel, texts: Sequence[str], bins: int = 10) -> Calibration:
    """Every next token of the texts, predicted from what stands before it.

    The texts should be new to the model and the truth about what comes next: text it was trained on makes it look sure.
    bins: of confidence, for the table and the error.

        ik.lenses.calibration(model, texts).error

    Raises TypeError for a single string, ValueError for no texts, and what `encode` raises.
    """
    if isinstance(texts, str):
        raise TypeError("texts should be a list of strings, got one string")
    if bins < 1:
        raise ValueError(f"bins={bins}: expected at least one")
    rows = [model.encode(text).tolist() for text in texts]
    if not any(len(row) > 1 for row in rows):
        raise ValueError("there is no token to be predicted: give texts of several tokens")
    found = []
    at_once = max(1, int(VALUES_AT_ONCE / (max(map(len, rows)) * model.vocab_size)))
    for first in ProgressBar(range(0, len(rows), at_once), desc="calibration", leave=False):
        ids, real = pad(rows[first : first + at_once], model.device)
        confidence, prediction = model.hf(input_ids=ids, use_cache=False).logits[:, :-1].float().softmax(-1).max(-1)
        text, position = real[:, 1:].nonzero(as_tuple=True)
        came, prediction = ids[:, 1:][text, position], prediction[text, position]
        columns = {
            "text": text + first, "position": position + 1, "token": model.tokens(came),
            "prediction": model.tokens(prediction), "confidence": confidence[text, position],
            "correct": came == prediction,
        }  # fmt: skip
        found.append(pd.DataFrame({name: as_numpy(column) for name, column in columns.items()}))
    return Calibration(pd.concat(found, ignore_index=True), bins)
