"""The traces of a chart, drawn into a panel: lines, marks, bars and cells."""

import math
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from .chart_axes import Axis, written
from .chart_values import (
    Part,
    clip,
    each,
    hexadecimal,
    is_light,
    limits_of,
    marker_colours,
    mode_of,
    points_of,
    shades_of,
)
from .svg import INK, add, number, write

DASHES = {"dash": "7 5", "dot": "2 4", "dashdot": "7 4 2 4", "longdash": "12 5", "longdashdot": "12 4 2 4"}
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down")


class Box(NamedTuple):
    """A rectangle."""

    left: float
    top: float
    width: float
    height: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it, or within a pixel."""
        return -1 <= x - self.left <= self.width + 1 and -1 <= y - self.top <= self.height + 1


class Panel(NamedTuple):
    """The traces that share a pair of axes, with their places among all traces."""

    names: tuple[str, str]  # of the axes, such as ("x2", "y2")
    traces: list[tuple[int, Part]]
    x: Axis
    y: Axis


def draw_scatter(group: Element, panel: Panel, box: Box, trace: Part, colour: str) -> None:
    """Lines, marks and texts, as the trace's mode says."""
    mode = mode_of(trace)
    points = [(*at(panel, box, x, y), i) for i, (x, y) in enumerate(zip(*points_of(trace)))]
    seen = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    inside = [(x, y, i) for x, y, i in seen if box.holds(x, y)]
    look = {"fill_opacity": float(trace.opacity or 1), "stroke_opacity": float(trace.opacity or 1)}
    if "lines" in mode and len(seen) > 1:
        d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y, _ in seen)
        dash = {"stroke_dasharray": DASHES[trace.line.dash]} if trace.line.dash in DASHES else {}
        stroke = trace.line.color or colour
        add(group, "path", d=d, fill="none", stroke=stroke, stroke_width=float(trace.line.width or 2), **dash)
    if "markers" in mode:
        marker = trace.marker
        shades = marker_colours(marker, len(points), colour)
        for x, y, i in inside:
            size, symbol = each(marker.size, i, 6), each(marker.symbol, i, "circle")
            opacity = float(each(marker.opacity, i, 1.0))
            draw_mark(group, x, y, float(size) / 2, symbol, shades[i], {**look, "fill_opacity": opacity})
    if "text" in mode:
        for x, y, i in inside:
            write(group, x, y - 6, str(each(trace.text, i, "")), size=11, text_anchor="middle")


def draw_mark(group: Element, x: float, y: float, r: float, symbol: Part, colour: str, look: dict) -> None:
    """One mark of radius r; plotly knows symbols by number and by name."""
    name = SYMBOLS[int(symbol) % 100 % len(SYMBOLS)] if str(symbol).isdigit() else str(symbol).removesuffix("-open")
    shapes = {
        "square": f"M{-r} {-r}H{r}V{r}H{-r}Z",
        "diamond": f"M0 {-1.3 * r}L{1.3 * r} 0L0 {1.3 * r}L{-1.3 * r} 0Z",
        "triangle-up": f"M0 {-1.2 * r}L{1.1 * r} {r}H{-1.1 * r}Z",
        "triangle-down": f"M0 {1.2 * r}L{1.1 * r} {-r}H{-1.1 * r}Z",
        "cross": f"M{-r} 0H{r}M0 {-r}V{r}",
        "x": f"M{-r} {-r}L{r} {r}M{-r} {r}L{r} {-r}",
    }
    hollow = name in ("x", "cross") or str(symbol).endswith("-open")
    fill = {"fill": "none", "stroke": colour, "stroke_width": 2} if hollow else {"fill": colour}
    if name in shapes:
        add(group, "path", d=shapes[name], transform=f"translate({number(x)} {number(y)})", **{**look, **fill})
    else:
        add(group, "circle", cx=x, cy=y, r=r, **{**look, **fill})


def draw_bars(group: Element, panel: Panel, box: Box, trace: Part, colour: str, rank: int, n: int) -> None:
    """Bars of all traces beside one another."""
    flat = trace.orientation == "h"
    along, across = (panel.y, panel.x) if flat else (panel.x, panel.y)
    xs, ys = points_of(trace)
    places = sorted({along.place(value) for value in (ys if flat else xs)})
    step = min((b - a for a, b in zip(places, places[1:])), default=0.8)
    thick = 0.8 * step / n
    zero = min(max(across.place(0), 0), 1) if not across.log else 0
    hatched = each(trace.marker.pattern.shape, 0, "")
    for i, (x, y) in enumerate(zip(xs, ys)):
        middle = along.place(y if flat else x) + thick * (rank - (n - 1) / 2)
        end = min(max(across.place(x if flat else y), 0), 1)
        if not math.isfinite(end) or not math.isfinite(middle):
            continue
        low, long = min(zero, end), abs(end - zero)
        start, size = (middle - thick / 2, low), (thick, long)
        (left, under), (wide, high) = (start[::-1], size[::-1]) if flat else (start, size)
        shape = {
            "x": box.left + left * box.width, "y": box.top + (1 - under - high) * box.height,
            "width": wide * box.width, "height": high * box.height,
        }  # fmt: skip
        add(group, "rect", **shape, fill=each(trace.marker.color, i, colour))
        if hatched:
            hatch(group, **shape)


def hatch(group: Element, x: float, y: float, width: float, height: float) -> None:
    """White stripes that rise, within a rectangle."""
    for start in np.arange(-height, width, 8):
        a, b = max(start, 0), min(start + height, width)
        if b > a:
            ends = {"x1": x + a, "y1": y + height - (a - start), "x2": x + b, "y2": y + height - (b - start)}
            add(group, "line", **ends, stroke="#ffffff", stroke_width=1.5)


def draw_cells(group: Element, panel: Panel, box: Box, trace: Part) -> None:
    """A heat map, with its texts where they find room."""
    values = np.asarray(trace.z, dtype=float)
    low, high = limits_of(trace, values)
    colours = shades_of(trace.colorscale, np.clip((values.ravel() - low) / ((high - low) or 1), 0, 1))
    xs, ys = points_of(trace)
    wide, tall = box.width / max(len(xs), 1), box.height / max(len(ys), 1)
    texts = _cell_texts(trace, values) if wide > 12 and tall > 10 else None
    for k, value in enumerate(values.ravel()):
        row, column = divmod(k, len(xs))
        if not math.isfinite(value):
            continue
        x, y = at(panel, box, xs[column], ys[row])
        size = {"width": wide + 0.3, "height": tall + 0.3}  # a little more, or seams show
        add(group, "rect", x=x - wide / 2, y=y - tall / 2, fill=hexadecimal(colours[k]), **size)
        if texts is not None:
            ink = INK if is_light(colours[k]) else "#ffffff"
            write(group, x, y + 4, clip(texts[row][column], int(wide / 6)), size=10, fill=ink, text_anchor="middle")


def _cell_texts(trace: Part, values: np.ndarray) -> list[list[str]] | None:
    template = trace.texttemplate
    if not template:
        return None
    if template == "%{text}":
        return [[str(word) for word in row] for row in trace.text]
    form = template.removeprefix("%{z").removesuffix("}").lstrip(":")
    return [[written(value, form or None) for value in row] for row in values]


def at(panel: Panel, box: Box, x: Part, y: Part) -> tuple[float, float]:
    """Where a point of the data lies on the drawing."""
    return box.left + panel.x.place(x) * box.width, box.top + (1 - panel.y.place(y)) * box.height
