"""What stands beside the panels of a chart: their titles, the legend, the bar that explains the colours."""

import math
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from .chart_axes import nice_step, written
from .chart_traces import DASHES, Box, draw_mark, hatch
from .chart_values import (
    LETTER,
    LONGEST_NAME,
    Figure,
    Part,
    clip,
    colour_of,
    each,
    hexadecimal,
    limits_of,
    marker_colours,
    mode_of,
    shades_of,
    title_of,
)  # fmt: skip
from .svg import QUIET, add, write

LINE = 22  # height of a line of the legend
COLOUR_BAR = 80  # width of the bar with its numbers
SHADES = 32


class ColourBar(NamedTuple):
    """What the bar explains: a colour scale from the value `low` to `high`."""

    scale: Part
    low: float
    high: float
    title: str


def draw_beside(svg: Element, figure: Figure, plot: Box, width: float, height: float) -> None:
    """Titles of panels, legend and colour bar, around `plot`."""
    for note in figure.layout.annotations:
        if note.xref == "paper" and note.yref == "paper" and note.text:
            x, y = plot.left + (note.x or 0) * plot.width, plot.top + (1 - (note.y or 0)) * plot.height
            write(svg, x, y - 6, note.text, size=13, text_anchor="middle")
    _draw_legend(svg, figure, plot, width, height)
    if bar := colour_bar(figure):
        _draw_colour_bar(svg, bar, plot, plot.left + plot.width + 16 + legend_size(figure, width)[1])


def legend_size(figure: Figure, width: float) -> tuple[float, float]:
    """(height below the chart, width at its right) that the legend takes: one of them, or neither."""
    widths = [46 + LETTER * len(clip(trace.name, LONGEST_NAME)) for _, trace in _entries(figure)]
    if not widths:
        return 0, 0
    return (LINE * math.ceil(sum(widths) / (width - 80)), 0) if _flat(figure) else (0, max(widths) + 8)


def colour_bar(figure: Figure) -> ColourBar | None:
    """What the colours of the first heat map, or of marks with a number each, mean."""
    for trace in figure.data:
        if trace.type == "heatmap" and trace.showscale is not False:
            low, high = limits_of(trace, np.asarray(trace.z, float))
            return ColourBar(trace.colorscale, low, high, title_of(trace.colorbar.title))
        values = trace.marker.color if trace.type.startswith("scatter") else None
        if values is not None and np.asarray(values).dtype.kind in "fiu":
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            return ColourBar(trace.marker.colorscale, low, high, title_of(trace.marker.colorbar.title))
    return None


def _draw_legend(svg: Element, figure: Figure, plot: Box, width: float, height: float) -> None:
    flat, under = _flat(figure), legend_size(figure, width)[0]
    x, y = (plot.left, height - under + 6) if flat else (plot.left + plot.width + 16, plot.top + 10)
    for i, trace in _entries(figure):
        name = clip(trace.name, LONGEST_NAME)
        if flat and x + 34 + LETTER * len(name) > width and x > plot.left:
            x, y = plot.left, y + LINE
        _draw_sample(svg, trace, colour_of(figure, trace, i), x, y)
        write(svg, x + 28, y + 4, name, size=11.5)
        x, y = (x + 46 + LETTER * len(name), y) if flat else (x, y + LINE)


def _draw_sample(svg: Element, trace: Part, colour: str, x: float, y: float) -> None:
    """How a trace looks, in small."""
    mode = mode_of(trace)
    if not mode:
        box = {"x": x + 4, "y": y - 5, "width": 16, "height": 10}
        add(svg, "rect", **box, fill=each(trace.marker.color, 0, colour))
        if each(trace.marker.pattern.shape, 0, ""):
            hatch(svg, **box)
    if "lines" in mode:
        dash = {"stroke_dasharray": DASHES[trace.line.dash]} if trace.line.dash in DASHES else {}
        add(svg, "line", x1=x, x2=x + 24, y1=y, y2=y, stroke=trace.line.color or colour, stroke_width=2, **dash)
    if "markers" in mode:
        draw_mark(
            svg, x + 12, y, 4, each(trace.marker.symbol, 0, "circle"), marker_colours(trace.marker, 1, colour)[0], {}
        )


def _draw_colour_bar(svg: Element, bar: ColourBar, plot: Box, x: float) -> None:
    step, length = plot.height / SHADES, (bar.high - bar.low) or 1
    for i, colour in enumerate(shades_of(bar.scale, np.linspace(1, 0, SHADES))):
        add(svg, "rect", x=x, y=plot.top + i * step, width=14, height=step + 0.4, fill=hexadecimal(colour))
    unit = nice_step(length)
    for k in range(math.ceil(bar.low / unit - 1e-9), math.floor(bar.high / unit + 1e-9) + 1):
        y = plot.top + (1 - (k * unit - bar.low) / length) * plot.height
        write(svg, x + 20, y + 4, written(k * unit, ".4g"), size=11, fill=QUIET)
    if bar.title:
        write(svg, x - 4, plot.top - 8, bar.title, size=11, fill=QUIET)


def _entries(figure: Figure) -> list[tuple[int, Part]]:
    """The traces that the legend lists, with their places: none where there is only one."""
    listed = [(i, trace) for i, trace in enumerate(figure.data) if trace.name and trace.type != "heatmap"]
    listed = [(i, trace) for i, trace in listed if trace.showlegend is not False]
    wanted = len(listed) > 1 if figure.layout.showlegend is None else figure.layout.showlegend
    return listed if wanted else []


def _flat(figure: Figure) -> bool:
    return figure.layout.legend.orientation == "h"
