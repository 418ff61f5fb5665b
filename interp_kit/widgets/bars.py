"""Signed parts of one sum, as bars."""

from collections.abc import Sequence

from .chart import Chart


def signed_bars(values: Sequence[float], names: Sequence[str], title: str, xaxis_title: str) -> Chart:
    """Bars to the right for what adds and to the left for what takes away, the first on top.

    >>> signed_bars([1.5, -0.5], ["L3 head 2", "no head"], "Through which heads the edge runs", "part of the edge")
    """
    colours = ["#0072B2" if value > 0 else "#D55E00" for value in values]
    bars = {"x": values[::-1], "y": names[::-1], "marker": {"color": colours[::-1]}}
    figure = Chart().add_bar(orientation="h", **bars)
    return figure.update_layout(
        title=title, template="plotly_white", height=120 + 26 * len(values), xaxis_title=xaxis_title
    )
