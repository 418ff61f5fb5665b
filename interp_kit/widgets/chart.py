"""The figures of the kit: plotly's, with a picture beside them, and with texts from prompts that stay texts."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self, cast

import numpy as np
import plotly.graph_objects as go
import plotly.io
from IPython import get_ipython
from plotly.subplots import make_subplots

from .chart_svg import describe, draw_chart
from .chart_values import Part
from .picture import Picture
from .plain_text import UNSEEN

PLOTLY = "application/vnd.plotly.v1+json"
# Places that draw a figure from HTML alone.
WITHOUT_PLOTLY = {"azure", "cocalc", "colab", "databricks", "kaggle"}
# Keys whose texts are instructions to plotly, written by us; everything else that is a text is shown as it is.
INSTRUCTIONS = re.compile("template$|format$")
MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "\n": "↵"}  # $ begins a formula where MathJax is loaded


class Chart(go.Figure):
    """A plotly figure that a notebook keeps with a picture of itself, and in which no text is taken for markup.

    Plotly reads `<b>` and `<a href>` in every title, name, tick and hover text, and these come from prompts and files.
    So all that leaves the figure (`to_dict`, on which plotly's exports are built) has its texts escaped;
    inside, `figure.layout.title.text` is what it was.

    >>> Chart().update_layout(title="<b>").to_dict()["layout"]["title"]["text"]
    '&lt;b&gt;'
    """

    # Plotly's own loads its script from the network; where HTML is needed, the bundle has it.
    _repr_html_ = cast(Part, None)

    if TYPE_CHECKING:  # plotly's methods return the figure itself, which is more than their stubs say

        def update_layout(self, *args: Part, **options: Part) -> Self: ...
        def update_xaxes(self, *args: Part, **options: Part) -> Self: ...
        def update_yaxes(self, *args: Part, **options: Part) -> Self: ...
        def add_bar(self, *args: Part, **options: Part) -> Self: ...
        def add_heatmap(self, *args: Part, **options: Part) -> Self: ...
        def add_scatter(self, *args: Part, **options: Part) -> Self: ...

    def to_dict(self) -> dict:
        """The figure as plain data for plotly, its texts escaped."""
        return escaped(super().to_dict())

    def __reduce__(self) -> tuple:
        # Copies and pickles begin with what the figure holds, not with what it gives away.
        plain = {**super().to_dict(), "_grid_str": self._grid_str, "_grid_ref": self._grid_ref}
        return type(self), (plain,)

    def picture(self) -> Picture:
        """The figure, drawn without a browser."""
        return draw_chart(self)

    def live(self) -> dict:
        """The figure alone, as data for plotly's own renderer: {mime type: figure}."""
        return {PLOTLY: json.loads(str(plotly.io.to_json(self, validate=False)))}

    # JupyterLab shows the picture, and the live figure once the pointer enters it: plotly's own renderer does so.
    def _repr_mimebundle_(self, include: Part = None, exclude: Part = None, **kwargs: Part) -> tuple[dict, dict]:
        picture, metadata = self.picture().bundle()
        data = {**self.live(), "text/plain": repr(self), **picture}
        if WITHOUT_PLOTLY & set(str(plotly.io.renderers.default).split("+")):
            data |= super()._repr_mimebundle_(include, exclude, **kwargs)
        return data, metadata

    def _ipython_display_(self) -> None:
        # Plotly's own way of showing itself passes by display ids, so that a redrawn chart would be a second one.
        if hasattr(get_ipython(), "kernel"):
            raise NotImplementedError("shown by _repr_mimebundle_")
        super()._ipython_display_()

    def __repr__(self) -> str:
        return f"Chart({describe(self)!r})"


class Snapshot(Chart):
    """A chart of unfinished work: the picture alone. Plotly's renderer draws a figure once, and what follows under the
    same display id would not be seen.

    >>> list(Snapshot(chart)._repr_mimebundle_()[0])
    ['text/plain', 'image/png']
    """

    def live(self) -> dict:
        """Nothing."""
        return {}


def panels(rows: int, columns: int, titles: Sequence[str], **options: Part) -> Chart:
    """An empty chart of panels side by side. options: further ones of plotly's `make_subplots`.

    >>> panels(1, 2, ["before", "after"]).add_scatter(y=[1.0], row=1, col=2)
    Chart('scatter')
    """
    return cast(Chart, make_subplots(rows=rows, cols=columns, subplot_titles=titles, figure=Chart(), **options))


def escaped(value: Part) -> Part:
    """A figure's data with every text in it escaped, but for plotly's own instructions.

    >>> escaped({"name": "<b>", "hovertemplate": "%{x}<br>"})
    {'name': '&lt;b&gt;', 'hovertemplate': '%{x}<br>'}
    """
    if isinstance(value, Mapping):
        return {key: inner if INSTRUCTIONS.search(str(key)) else escaped(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(inner) for inner in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return np.array([escaped(inner) for inner in value.ravel()], dtype=object).reshape(value.shape)
    return "".join(MARKUP.get(sign, sign) for sign in _seen(value)) if isinstance(value, str) else value


def _seen(text: str) -> str:
    return UNSEEN.sub(lambda match: "\n" if match[0] in "\n\r" else "�", text)
