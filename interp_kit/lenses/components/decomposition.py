"""Who wrote the answer? Direct logit attribution (Elhage et al. 2021).

The residual stream is a sum, and the final norm (its denominator held fixed) and the unembedding are linear. So a logit
is the sum of what each part of the model wrote towards it. What a part does through later parts is not in it; `ablate`
measures that.
"""

import html
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ...models.arguments import checked
from ...models.frozen import FrozenModel
from ...models.frozen.algebra import FrozenAttention
from ...models.language_model import LanguageModel, Prompt
from ...models.precision import as_numpy
from ...models.targets import Target, Tokens
from ...widgets.chart import Chart
from ...widgets.colours import BLUE, ORANGE
from ...widgets.heat_map import heat_map, places
from ...widgets.plain_text import literal, printable

# What one part of the model wrote towards the target: component, kind, layer and head (None where a part has none), and
# the values [place, source position].
Written = tuple[str, str, int | None, int | None, torch.Tensor]


@dataclass(repr=False)
class Decomposition:
    """A logit (or the difference of two), taken apart.

    question: the target in words, "' Austin' rather than ' Sacramento'".
    table: a row a part: component ("MLP 3", "head 2.5", "embedding", ...), kind (MLP, attention, embedding, bias),
        layer, head (both missing where a part has none) and contribution, in the units of the logit. Of several
        positions, all rows of each, with `position`, the `token` there and the `target`.
    sources: [part, position], the same contributions by the position they came from. Heads bring them from other
        positions; all other parts read where they write. None for several positions.
    total: the sum of the contributions; of several positions [position].
    logit: what the model says, before a cap or scale; of several positions [position].
    """

    question: str
    table: pd.DataFrame
    sources: pd.DataFrame | None
    total: float | np.ndarray
    logit: float | np.ndarray

    @property
    def kinds(self) -> pd.Series:
        """Contributions by kind [kind]; of several positions, their mean."""
        return self.table.groupby("kind")["contribution"].sum() / np.size(self.total)

    @property
    def layers(self) -> pd.DataFrame:
        """Contributions by layer [layer, kind], heads and attention's biases summed; of several positions, their
        mean."""
        of_layers = self.table[self.table["layer"] >= 0]
        sums = of_layers.pivot_table("contribution", index="layer", columns="kind", aggfunc="sum", fill_value=0.0)
        return sums / np.size(self.total)

    def show(self) -> Chart:
        """A plotly figure: what each layer's MLP and attention wrote."""
        figure = Chart()
        for kind, colour in (("attention", ORANGE), ("MLP", BLUE)):
            if kind in self.layers:
                figure.add_bar(x=self.layers.index, y=self.layers[kind], name=kind, marker_color=colour)
        figure.update_layout(title=f"written towards {self.question}", template="plotly_white", height=360)
        return figure.update_xaxes(title="layer").update_yaxes(title="contribution to the logit")

    def show_sources(self, top: int = 15) -> Chart:
        """A plotly heat map: the `top` largest parts, by the position that they brought it from.

        Raises ValueError for a decomposition of several positions.
        """
        largest = self.table.sort_values("contribution", key=abs, ascending=False).index[:top]
        rows = self._sources().iloc[sorted(largest)]
        title, limit = f"towards {self.question}, by place of origin", float(rows.abs().to_numpy().max())
        return heat_map(rows, places(rows.columns), rows.index, title, limit).update_yaxes(autorange="reversed")

    def heads_by_source(self) -> pd.Series:
        """What all heads together brought, by the token it came from: [position].

        Raises ValueError for a decomposition of several positions.
        """
        return self._sources()[self.table["head"].notna().to_numpy()].sum()

    def _sources(self) -> pd.DataFrame:
        if self.sources is None:
            raise ValueError("sources are kept for one position: decompose(model, prompt, position=-1)")
        return self.sources

    def __repr__(self) -> str:
        return printable(f"Decomposition({self.question}: logit {np.mean(self.logit):.3f}, {len(self.table)} rows)")

    def _repr_html_(self) -> str:
        parts = " ".join(f"{value:+.2f} {kind}" for kind, value in self.kinds.items())
        title = f"{self.question}: {np.mean(self.logit):.2f} = {parts}"
        largest = self.table.sort_values("contribution", key=abs, ascending=False).head(10)
        rows = largest.to_html(index=False, float_format="{:.3g}".format, na_rep="")
        return literal(f"<p>{html.escape(title)}</p>{rows}")


@checked
@torch.no_grad()
def decompose(
    model: LanguageModel,
    prompt: Prompt,
    target: Tokens | None = None,
    contrast: Tokens | None = None,
    position: int | Literal["all"] = -1,
    dtype: torch.dtype = torch.float32,
) -> Decomposition:
    """Direct logit attribution: what every MLP, attention head, embedding and bias wrote towards a next token.

    prompt: text, or ids [position].
    target: the next token asked about: text (" Austin") or id; a list is a mean. Without one the model's likeliest.
    contrast: another token; then the difference of the two logits is taken apart, which says more: most parts raise
        many logits at once.
    position: where the prediction is made, or "all": every position towards the token that follows it there (the last
        one towards `target`); a contrast is then the same everywhere.

    The contributions add up to the logit (before Gemma 2's cap and Granite's scale), up to rounding in `dtype`.
    Families that are not computed by algebra (`models/families.py`) have one row for a layer's attention in place of
    its heads.

        ik.lenses.decompose(model, prompt, target=" Austin", contrast=" Sacramento").show()

    Raises ValueError for a position outside, and what `encode` and `token_id` raise.
    """
    frozen = FrozenModel(model, prompt, dtype)
    places = _places(position, frozen.n_positions)
    asked = Target.of(model, target, contrast, frozen.logits[places[-1]])
    following = frozen.ids[1:].tolist() if position == "all" else []
    targets = [*(Target((token,), asked.contrast_ids, "") for token in following), asked]  # one for each place
    directions, constants = _directions(frozen, targets)
    scale = frozen.final_norm.scale(frozen.residual_final[places])
    gradients = frozen.final_norm.pull(directions) * scale[:, None]  # [place, d_model]
    parts = _parts(frozen, places, gradients, constants)
    values = torch.stack([written.sum(1) for *_, written in parts])  # [part, place]
    logit = torch.stack([target.weigh(frozen.uncapped[p]) for p, target in zip(places, targets)])
    tokens = model.tokens(frozen.ids)
    table = pd.DataFrame([part[:-1] for part in parts], columns=["component", "kind", "layer", "head"])
    table = table.astype({"layer": "Int64", "head": "Int64"})
    if len(places) == 1:
        by_source = torch.cat([written for *_, written in parts])
        sources = pd.DataFrame(as_numpy(by_source), index=list(table["component"]), columns=tokens)
        table = table.assign(contribution=as_numpy(values[:, 0]))
        return Decomposition(asked.name, table, sources, float(values.sum()), float(logit))
    tables = [
        table.assign(
            contribution=as_numpy(values[:, i]), position=p, token=tokens[p],
            target=" / ".join(model.tokens(list(targets[i].ids))),
        )
        for i, p in enumerate(places)
    ]  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    return Decomposition("the token that follows", table, None, as_numpy(values.sum(0)), as_numpy(logit))


def _places(position: int | Literal["all"], n: int) -> list[int]:
    if position == "all":
        return list(range(n))
    if isinstance(position, Integral) and not isinstance(position, bool) and -n <= position < n:
        return [int(position) % n]
    raise ValueError(f"position {position!r}: expected 'all' or an index; the prompt has positions 0 to {n - 1}")


def _directions(frozen: FrozenModel, targets: list[Target]) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets as functions of the final norm's output, before its bias: rows [place, d_model], constants
    [place]."""
    unembedding = frozen.parts.unembedding
    directions = torch.stack([target.weigh(unembedding.weight.T) for target in targets])
    constants = torch.zeros_like(directions[:, 0])
    if unembedding.bias is not None:
        constants = torch.stack([target.weigh(unembedding.bias) for target in targets])
    if frozen.final_norm.bias is not None:
        constants = constants + directions @ frozen.final_norm.bias
    return directions, constants


def _parts(frozen: FrozenModel, places: list[int], gradients: torch.Tensor, constants: torch.Tensor) -> list[Written]:
    """All parts, in the model's order; gradients [place, d_model], constants [place]."""

    def at_home(vectors: torch.Tensor) -> torch.Tensor:
        """Of what was written where it is read, [position, d_model]."""
        return _on_places((vectors[places] * gradients).sum(1), places, frozen.n_positions)

    parts: list[Written] = [("embedding", "embedding", None, None, at_home(frozen.embeddings))]
    if frozen.parts.positions is not None:
        parts.append(("position embedding", "embedding", None, None, at_home(frozen.position_embeddings)))
    after = [*frozen.residual_pre[1:], frozen.residual_final]
    for l in range(frozen.n_layers):
        if frozen.parts.layout:
            attention = FrozenAttention.of(frozen, l)
            heads = _heads(attention, frozen.residual_pre[l], places, gradients)
            parts += [(f"head {l}.{h}", "attention", l, h, values) for h, values in enumerate(heads)]
            if attention.constant is not None:
                parts.append((f"attention bias {l}", "attention", l, None, at_home(attention.constant)))
            mlp = frozen.mlp_out[l]
        else:  # what is added to the stream may be scaled (Granite), so the stream itself says what it was
            attention = frozen.residual_mid[l] - frozen.residual_pre[l]
            parts.append((f"attention {l}", "attention", l, None, at_home(attention)))
            mlp = after[l] - frozen.residual_mid[l]
        parts.append((f"MLP {l}", "MLP", l, None, at_home(mlp)))
    return [*parts, ("final bias", "bias", None, None, _on_places(constants, places, frozen.n_positions))]


def _on_places(values: torch.Tensor, places: list[int], n_positions: int) -> torch.Tensor:
    """values [place] -> [place, source position], each at its own place."""
    found = values.new_zeros(len(places), n_positions)
    found[range(len(places)), places] = values
    return found


def _heads(
    attention: FrozenAttention, stream: torch.Tensor, places: list[int], gradients: torch.Tensor
) -> torch.Tensor:
    """What each head brought, by the position it came from: [head, place, source position]."""
    groups, keys, _, per_group = attention.pattern.shape
    wanted = (gradients @ attention.out).view(len(places), groups, per_group, -1)  # of each head's values
    values = (stream @ attention.value.T).view(keys, groups, -1)
    brought = torch.einsum("ngjw,kgw,gknj->gjnk", wanted, values, attention.pattern[:, :, places])
    return brought.reshape(groups * per_group, len(places), keys)
