"""Plotly heat maps in the kit's colours."""

from collections.abc import Collection, Iterable

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from .chart import Chart
from .colours import BLUE, ORANGE

SIGNED_COLOURS = [[0, ORANGE], [0.5, "#FFFFFF"], [1, BLUE]]


def places(tokens: Iterable[object]) -> list[str]:
    """Tokens as labels of an axis: numbered, since equal labels would fall together.

    >>> places(["the", " the"])
    ['0 the', '1  the']
    """
    return [f"{i} {token}" for i, token in enumerate(tokens)]


def heat_map(
    values: ArrayLike,
    x: Iterable[object],
    y: Collection[object],
    title: str,
    limit: float | None = None,
    colours: str | list = SIGNED_COLOURS,
    **options: object,
) -> Chart:
    """A heat map of values [row, column]. x and y are the labels of the columns and rows.

    limit: the colours go from -limit to limit. options: further ones of plotly's `Heatmap`.

    >>> heat_map([[1.0, -0.5]], places([" Dallas", " is"]), ["layer 0"], "written towards Austin", limit=1)
    """
    if limit is not None:
        options = {"zmin": -limit, "zmax": limit} | options
    figure = Chart(go.Heatmap(z=np.asarray(values), x=list(x), y=list(y), colorscale=colours, **options))
    return figure.update_layout(title=title, height=160 + 24 * len(y), template="plotly_white")
