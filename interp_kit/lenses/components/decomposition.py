"""Who wrote the answer? The residual stream is a sum, and the final norm (its denominator held fixed) and the
unembedding are linear, so a logit is the sum of what each part of the model wrote towards it: direct logit attribution
(Elhage et al. 2021). What a part does through later parts is not in it; `ablate` measures that."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ...models.frozen import FrozenModel
from ...models.frozen.algebra import FrozenAttention
from ...models.targets import named, token_of

COLOURS = {"MLP": "#0072B2", "attention": "#D55E00", "embedding": "#777777", "bias": "#BBBBBB"}


@dataclass(repr=False)
class Decomposition:
    """A logit (or the difference of two), taken apart.

    table: a row a part: component ("MLP 3", "head 2.5", "embedding", ...), kind (MLP, attention, embedding, bias),
        layer, head and contribution, in the units of the logit. Of several positions, all rows of each, with
        `position`, the `token` there and the `target`.
    sources: DataFrame [part, position]: the same contributions by the position they came from. Heads move them there
        from other positions; all other parts read where they write. None for several positions.
    total: the contributions' sum, [position] for several; logit: what the model says.
    """

    question: str
    table: pd.DataFrame
    sources: pd.DataFrame | None
    total: float | np.ndarray
    logit: float | np.ndarray

    @property
    def layers(self) -> pd.DataFrame:
        """Contributions by layer [layer, kind], heads and attention's biases summed; of several positions, their
        mean."""
        parts = self.table[self.table["layer"] >= 0]
        grouped = parts.groupby(["layer", "kind"])["contribution"].sum().unstack(fill_value=0.0)
        return grouped / np.size(self.total)

    def show(self):
        """A plotly figure: what each layer's MLP and attention wrote."""
        import plotly.graph_objects as go

        from ...widgets.heat_map import plain

        figure = go.Figure()
        for kind in (kind for kind in ("attention", "MLP") if kind in self.layers):
            figure.add_bar(x=self.layers.index, y=self.layers[kind], name=kind, marker_color=COLOURS[kind])
        figure.update_layout(title=plain(f"written towards {self.question}"), template="plotly_white", height=360)
        return figure.update_xaxes(title="layer").update_yaxes(title="contribution to the logit")

    def show_sources(self, top: int = 15):
        """A plotly heat map: the `top` largest parts, by the position that they brought it from.

        Raises ValueError for a decomposition of several positions.
        """
        from ...widgets.heat_map import heat_map, places

        if self.sources is None:
            raise ValueError("sources are kept for one position: decompose(model, prompt, position=-1).show_sources()")
        largest = self.table["contribution"].abs().sort_values(ascending=False).index[:top]
        rows = self.sources.iloc[sorted(largest)]
        limit = float(rows.abs().to_numpy().max())
        title = f"towards {self.question}, by place of origin"
        figure = heat_map(rows, places(rows.columns), rows.index, title, limit)
        return figure.update_yaxes(autorange="reversed")

    def __repr__(self):
        return f"Decomposition({self.question}: logit {np.mean(self.logit):.3f}, {len(self.table)} rows)"

    def _repr_html_(self):
        import html

        kinds = self.table.groupby("kind")["contribution"].sum() / np.size(self.total)
        parts = " ".join(f"{value:+.2f} {kind}" for kind, value in kinds.items())
        title = f"{self.question}: {np.mean(self.logit):.2f} = {parts}"
        largest = self.table["contribution"].abs().sort_values(ascending=False).index[:10]
        rows = self.table.loc[largest].to_html(index=False, float_format="{:.3g}".format, na_rep="")
        return f"<p>{html.escape(title)}</p>{rows}"


@torch.no_grad()
def decompose(model, prompt, target=None, contrast=None, position=-1, dtype=torch.float32) -> Decomposition:
    """What every MLP, attention head, embedding and bias wrote towards a next token.

    prompt: text, or ids [position]. target: the next token (its text or id); without one the model's likeliest.
    contrast: another token; then the difference of the two logits is taken apart, which says more: most parts raise
    many logits at once. position: where the prediction is made, or "all": every position towards the token that
    follows it there (the last one towards `target`); a contrast is then the same everywhere.

    The contributions add up to the logit (before Gemma 2's cap and Granite's scale), up to rounding in `dtype`.
    Families that are not computed by algebra (`models/anatomy.py`) have one row for a layer's attention in place of
    its heads.

    Raises ValueError for a position outside, and what `encode` and `token_id` raise.
    """
    frozen = FrozenModel(model, prompt, dtype)
    places = _places(position, frozen.n_positions)
    last = token_of(model, target, frozen.logits[places[-1]])
    targets = torch.tensor([int(frozen.ids[p + 1]) if p + 1 < frozen.n_positions else last for p in places])
    if len(places) == 1:
        targets = torch.tensor([last])
    other = None if contrast is None else token_of(model, contrast, frozen.logits[-1])
    directions, constant = _directions(frozen, targets, other)
    scale = frozen.final_norm.scale(frozen.residual_final[places])
    gradients = frozen.final_norm.pull(directions) * scale[:, None]  # [place, d_model]
    parts = _parts(frozen, places, gradients, constant)
    values = torch.stack([part[-1].sum(1) for part in parts])  # [part, place]
    logit = frozen.uncapped[places, targets]
    logit = logit if other is None else logit - frozen.uncapped[places, other]
    question = named(model, last, other) if len(places) == 1 else "the token that follows"
    tokens = model.tokens(frozen.ids)
    table = pd.DataFrame([part[:-1] for part in parts], columns=["component", "kind", "layer", "head"])
    table = table.astype({"layer": "Int64", "head": "Int64"})
    if len(places) == 1:
        sources = pd.DataFrame(
            torch.cat([part[-1] for part in parts]).numpy(), index=list(table["component"]), columns=tokens
        )
        total = float(values.sum())
        return Decomposition(question, table.assign(contribution=values[:, 0].numpy()), sources, total, float(logit))
    names = model.tokens(targets)
    tables = [
        table.assign(contribution=values[:, i].numpy(), position=p, token=tokens[p], target=names[i])
        for i, p in enumerate(places)
    ]
    return Decomposition(question, pd.concat(tables, ignore_index=True), None, values.sum(0).numpy(), logit.numpy())


def _places(position, n):
    if position == "all":
        return list(range(n))
    try:
        return [range(n)[position] if not isinstance(position, bool | slice) else range(n)[n]]
    except (IndexError, TypeError):
        message = f"position {position!r}: expected 'all' or an index; the prompt has positions 0 to {n - 1}"
        raise ValueError(message) from None


def _directions(frozen, targets, contrast):
    """The logits as functions of the final norm's output, before its bias: rows [place, d_model], constants [place]."""
    rows, bias = frozen.parts.unembedding.weight, frozen.parts.unembedding.bias
    directions, constant = rows[targets], torch.zeros(len(targets), dtype=rows.dtype)
    if bias is not None:
        constant = constant + bias[targets]
    if contrast is not None:
        directions = directions - rows[contrast]
        constant = constant - (0 if bias is None else bias[contrast])
    if frozen.final_norm.bias is not None:
        constant = constant + directions @ frozen.final_norm.bias
    return directions, constant


def _parts(frozen, places, gradients, constant):
    """[(component, kind, layer, head, contributions [place, source position])], None where a part has no layer or
    head."""

    def at_home(vectors):
        """Of what was written where it is read, [position, d_model]."""
        values = torch.zeros(len(places), frozen.n_positions, dtype=gradients.dtype)
        values[range(len(places)), places] = (vectors[places] * gradients).sum(1)
        return values

    parts = [("embedding", "embedding", None, None, at_home(frozen.embeddings))]
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
            written = frozen.mlp_out[l]
        else:  # what is added to the stream may be scaled (Granite), so the stream itself says what it was
            attention = frozen.residual_mid[l] - frozen.residual_pre[l]
            parts.append((f"attention {l}", "attention", l, None, at_home(attention)))
            written = after[l] - frozen.residual_mid[l]
        parts.append((f"MLP {l}", "MLP", l, None, at_home(written)))
    final = torch.zeros(len(places), frozen.n_positions, dtype=gradients.dtype)
    final[range(len(places)), places] = constant
    return [*parts, ("final bias", "bias", None, None, final)]


def _heads(attention, stream, places, gradients):
    """What each head brought, by the position it came from: [head, place, source position]."""
    groups, keys, per_group, _ = attention.pattern.shape
    wanted = (gradients @ attention.out).view(len(places), groups, per_group, -1)  # of each head's values
    values = (stream @ attention.value.T).view(keys, groups, -1)
    brought = torch.einsum("ngjw,kgw,gkjn->gjnk", wanted, values, attention.pattern[..., places])
    return brought.reshape(groups * per_group, len(places), keys)
