"""Plotly heat maps in the kit's colours, with texts from prompts made harmless: plotly renders tags in labels."""

import html

import numpy as np
import plotly.graph_objects as go

SIGNED = [[0, "#D55E00"], [0.5, "#FFFFFF"], [1, "#0072B2"]]


def plain(text) -> str:
    """A text as plotly shows it: no tags, line breaks as signs."""
    return html.escape(str(text)).replace("\n", "↵")


def places(tokens) -> list[str]:
    """Tokens as labels of an axis: numbered, since equal labels would fall together."""
    return [f"{i} {plain(token)}" for i, token in enumerate(tokens)]


def heat_map(values, x, y, title: str, limit=None, colours=SIGNED, **options) -> go.Figure:
    """values [row, column] with labels of columns and rows, taken as they are; signed colours go from -limit to
    limit."""
    if colours is SIGNED:
        options = {"zmin": -limit, "zmax": limit} | options
    figure = go.Figure(go.Heatmap(z=np.asarray(values), x=list(x), y=list(y), colorscale=colours, **options))
    return figure.update_layout(title=plain(title), height=160 + 24 * len(y), template="plotly_white")
