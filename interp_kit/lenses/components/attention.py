"""Who looks where, and what is brought along. A pattern alone can mislead: a head may look hard at a place whose value
is next to nothing (Kobayashi et al. 2020), so the weighted view multiplies each weight by the size of what it moves."""

from dataclasses import dataclass

import pandas as pd
import torch

from ...models.arguments import checked
from ...models.frozen import FrozenModel
from ...models.frozen.algebra import FrozenAttention
from ...models.language_model import LanguageModel, Prompt
from ...widgets.attention_browser import AttentionBrowser
from ...widgets.chart import Chart
from ...widgets.heat_map import heat_map, places
from ...widgets.plain_text import literal, printable


@dataclass(repr=False)
class AttentionPatterns:
    """What `attention_patterns` found.

    tokens: one a position.
    patterns: [layer, head, query, key], shares of attention; each query's add up to 1.
    moved: [layer, head, query, key], value-weighted attention: the norm of what is added to the residual stream at the
        query because of the key.
    """

    tokens: list[str]
    patterns: torch.Tensor
    moved: torch.Tensor

    def strongest(self, query: int = -1, weighted: bool = True, k: int = 10) -> pd.DataFrame:
        """The k largest of one query, by `moved` or, with weighted=False, by `patterns`: a table of layer, head,
        position and token looked at, pattern and moved, strongest first."""
        values = (self.moved if weighted else self.patterns)[:, :, query]
        at = torch.unravel_index(values.flatten().argsort(descending=True, stable=True)[:k], values.shape)
        layer, head, key = (index.numpy() for index in at)
        table = pd.DataFrame({"layer": layer, "head": head, "position": key, "token": [self.tokens[i] for i in key]})
        return table.assign(pattern=self.patterns[:, :, query][at].numpy(), moved=self.moved[:, :, query][at].numpy())

    def show(self, layer: int, head: int | None = None, weighted: bool = False) -> Chart:
        """A plotly heat map of one head, or of the mean (weighted: the sum) over a layer's heads.

        Raises IndexError for a layer or head that the model does not have.
        """
        values = (self.moved if weighted else self.patterns)[layer]
        values = values[head] if head is not None else values.sum(0) if weighted else values.mean(0)
        names = places(self.tokens)
        what = "moved from key to query (norm)" if weighted else "attention from query to key"
        whose = f"layer {layer}, {'all heads' if head is None else f'head {head}'}"
        figure = heat_map(values.numpy(), names, names, f"{whose}: {what}", colours="Blues", zmin=0)
        figure.update_layout(width=320 + 26 * len(names))
        return figure.update_yaxes(autorange="reversed", title="query").update_xaxes(title="key")

    def browse(self) -> AttentionBrowser:
        """The heat map with controls for layer, head and view: an ipywidgets box, for a notebook with a kernel."""
        return AttentionBrowser(self.show, *self.patterns.shape[:2])

    def __repr__(self) -> str:
        layers, heads, n, _ = self.patterns.shape
        return printable(f"AttentionPatterns({layers} layers x {heads} heads, {n} positions)")

    def _repr_html_(self) -> str:
        table = self.strongest().to_html(index=False, float_format="{:.3g}".format)
        return literal(f"<p>what the last position is given most</p>{table}")


@checked
@torch.no_grad()
def attention_patterns(model: LanguageModel, prompt: Prompt) -> AttentionPatterns:
    """Every head's pattern on one prompt (text, or ids [position]), and what each weight moves.

    moved is |pattern[query, key] W_O W_V norm(x[key])|, biases left out, norms' denominators as on the prompt; with
    Gemma's norm after attention, after it.

        ik.lenses.attention_patterns(model, prompt).strongest(k=6)

    Raises NotImplementedError for a family that is not computed by algebra (`models/families.py`).
    """
    frozen = FrozenModel(model, prompt)
    if not frozen.parts.layout:
        raise NotImplementedError(
            f"what the heads of {model.family!r} models move cannot be told: see models/families.py"
        )
    moved = [_moved(FrozenAttention.of(frozen, l), frozen.residual_pre[l]) for l in range(frozen.n_layers)]
    return AttentionPatterns(model.tokens(frozen.ids), torch.stack(frozen.patterns).cpu(), torch.stack(moved).cpu())


def _moved(attention: FrozenAttention, stream: torch.Tensor) -> torch.Tensor:
    """[head, query, key], from the stream [position, d_model] that the layer reads."""
    groups, keys, _, per_group = attention.pattern.shape
    values = (stream @ attention.value.T).view(keys, groups, -1)
    out = attention.out.view(len(attention.out), groups, per_group, -1)
    sizes = torch.einsum("kgw,dgjw->gjkd", values, out).norm(dim=-1)  # [group, head in group, key]
    return (attention.pattern.permute(0, 3, 2, 1) * sizes[:, :, None]).flatten(0, 1)
