"""A plotly figure drawn without a browser: the same data, axes, titles and legend, as SVG.

It knows what the kit's figures are made of: scatter (lines, marks, texts), bars, heat maps and histograms, side by side
in panels. What else a figure holds is named under it, so that the picture does not pass for the whole.
"""

from xml.etree.ElementTree import Element

from .chart_axes import Axis
from .chart_beside import COLOUR_BAR, colour_bar, draw_beside, legend_size
from .chart_traces import Box, Panel, draw_bars, draw_cells, draw_scatter
from .chart_values import LETTER, LONGEST_NAME, Figure, Part, clip, colour_of, mode_of, points_of, title_of
from .picture import Picture
from .plain_text import spelled
from .svg import QUIET, add, drawing, finished, number, write

WIDTH, HEIGHT = 700, 450
GRID, ZERO = "#e8ecf1", "#c3ccd6"
BARS = ("bar", "histogram")
KNOWN = (*BARS, "heatmap", "scatter", "scattergl")


def draw_chart(figure: Figure) -> Picture:
    """The figure as it is, drawn.

    >>> draw_chart(Chart().add_bar(x=["a"], y=[1.0])).svg[:4]
    '<svg'
    """
    layout = figure.layout
    width, height = float(layout.width or WIDTH), float(layout.height or HEIGHT)
    about = describe(figure)
    svg = drawing(width, height, about)
    panels = _panels(figure)
    plot = _plot_box(figure, panels, width, height)
    if layout.title.text:
        write(svg, 24, 30, clip(layout.title.text, int((width - 30) / 9)), size=16)
    for panel in panels:
        _draw_panel(svg, figure, panel, _panel_box(layout, panel, plot))
    draw_beside(svg, figure, plot, width, height)
    if unknown := sorted({trace.type for trace in figure.data} - set(KNOWN)):
        write(svg, 24, height - 6, f"not drawn here: {', '.join(unknown)}", size=11, fill=QUIET)
    return Picture(finished(svg), about)


def describe(figure: Figure) -> str:
    """The figure in words: its title, axes and traces.

    >>> describe(Chart().add_bar(y=[1.0], name="before").update_layout(title="Next token"))
    'Next token. bar: before'
    """
    layout = figure.layout
    axes = [title_of(layout[key].title) for key in layout if key.startswith(("xaxis", "yaxis"))]
    notes = [spelled(note.text) for note in layout.annotations if note.text]
    traces = [f"{trace.type}{': ' + trace.name if trace.name else ''}" for trace in figure.data]
    words = ", ".join(notes), ", ".join(dict.fromkeys(filter(None, axes))), "; ".join(dict.fromkeys(traces))
    parts = [title_of(layout.title), *words]
    return spelled(". ".join(filter(None, parts)) or "an empty chart")


def _panels(figure: Figure) -> list[Panel]:
    grouped: dict[tuple[str, str], list[tuple[int, Part]]] = {}
    for i, trace in enumerate(figure.data):
        if trace.type in KNOWN and trace.visible is not False:
            grouped.setdefault((trace.xaxis or "x", trace.yaxis or "y"), []).append((i, trace))
    grouped = grouped or {("x", "y"): []}
    return [_panel(figure.layout, names, traces) for names, traces in grouped.items()]


def _panel(layout: Part, names: tuple[str, str], traces: list[tuple[int, Part]]) -> Panel:
    """The traces with their two axes. Cells fill both; bars stand beside one another on one, from zero on the other."""
    data = [points_of(trace) for _, trace in traces]
    x_axis, y_axis = _axis(layout, names[0]), _axis(layout, names[1])
    xs, ys = [v for xs, _ in data for v in xs], [v for _, ys in data for v in ys]
    flat = [trace.orientation == "h" for _, trace in traces if trace.type in BARS]
    if any(trace.type == "heatmap" for _, trace in traces):
        return Panel(names, traces, _cells(x_axis, xs), _cells(y_axis, ys))
    if flat and all(flat):
        return Panel(names, traces, Axis(x_axis, xs, from_zero=True), _cells(y_axis, ys))
    if flat:
        return Panel(names, traces, _cells(x_axis, xs), Axis(y_axis, ys, from_zero=True))
    marks = any("markers" in mode_of(trace) for _, trace in traces)
    return Panel(names, traces, Axis(x_axis, xs, 0.05 if marks else 0.0), Axis(y_axis, ys))


def _cells(layout: Part, values: list) -> Axis:
    """An axis of cells or bars: half a one beyond the middles of the first and the last."""
    axis = Axis(layout, values, padding=0)
    if axis.names is None and layout.range is None and values:
        places = sorted({axis.number(value) for value in values})
        half = (places[1] - places[0]) / 2 if len(places) > 1 else 0.5
        low, high = places[0] - half, places[-1] + half
        axis.start, axis.end = (high, low) if axis.start > axis.end else (low, high)
    return axis


def _axis(layout: Part, name: str) -> Part:
    """The layout of the axis "x2": `layout.xaxis2`."""
    return layout[f"{name[0]}axis{name[1:]}"]


def _plot_box(figure: Figure, panels: list[Panel], width: float, height: float) -> Box:
    """What margins, names beside the axes, legend and colour bar leave."""
    layout, first = figure.layout, panels[0]
    left = 16 + LETTER * _longest(first.y) + (20 if title_of(first.y.layout.title) else 0)
    top = 64 if layout.title.text else 40 if layout.annotations else 24
    turned = [LETTER * 0.75 * _longest(panel.x) for panel in panels if _turned(panel.x, width - left)]
    bottom = 24 + max(turned, default=6) + (20 if title_of(first.x.layout.title) else 0)
    under, right = legend_size(figure, width)
    right += COLOUR_BAR if colour_bar(figure) else 0
    return Box(left, top, max(width - left - max(right, 24), 60), max(height - top - bottom - under, 40))


def _panel_box(layout: Part, panel: Panel, plot: Box) -> Box:
    across = _axis(layout, panel.names[0]).domain or (0, 1)
    up = _axis(layout, panel.names[1]).domain or (0, 1)
    left, top = plot.left + across[0] * plot.width, plot.top + (1 - up[1]) * plot.height
    return Box(left, top, (across[1] - across[0]) * plot.width, (up[1] - up[0]) * plot.height)


def _draw_panel(svg: Element, figure: Figure, panel: Panel, box: Box) -> None:
    cells = any(trace.type == "heatmap" for _, trace in panel.traces)
    _draw_x_axis(svg, panel.x, box, not cells)
    _draw_y_axis(svg, panel.y, box, not cells)
    group = add(svg, "g")
    bars = [i for i, trace in panel.traces if trace.type in BARS]
    for i, trace in panel.traces:
        colour = colour_of(figure, trace, i)
        if trace.type == "heatmap":
            draw_cells(group, panel, box, trace)
        elif trace.type in BARS:
            draw_bars(group, panel, box, trace, colour, bars.index(i), len(bars))
        else:
            draw_scatter(group, panel, box, trace, colour)


def _draw_x_axis(svg: Element, axis: Axis, box: Box, grid: bool) -> None:
    bottom, turned = box.top + box.height, _turned(axis, box.width)
    for at, text in axis.ticks(box.width / (16 if turned else 46)):
        x = box.left + at * box.width
        if grid and axis.names is None:
            add(svg, "line", x1=x, x2=x, y1=box.top, y2=bottom, stroke=ZERO if text == "0" else GRID)
        look: dict[str, Part] = {"size": 11, "fill": QUIET, "text_anchor": "middle"}
        if turned:
            look |= {"transform": f"rotate(-45 {number(x)} {number(bottom + 12)})", "text_anchor": "end"}
        write(svg, x, bottom + (12 if turned else 16), clip(text, LONGEST_NAME), **look)
    if title := title_of(axis.layout.title):
        below = bottom + 36 + (LETTER * 0.75 * _longest(axis) - 6 if turned else 0)
        write(svg, box.left + box.width / 2, below, title, size=12, text_anchor="middle")


def _draw_y_axis(svg: Element, axis: Axis, box: Box, grid: bool) -> None:
    right, bottom = box.left + box.width, box.top + box.height
    for at, text in axis.ticks(box.height / 14):
        y = bottom - at * box.height
        if grid and axis.names is None:
            add(svg, "line", x1=box.left, x2=right, y1=y, y2=y, stroke=ZERO if text == "0" else GRID)
        if axis.layout.showticklabels is not False:
            write(svg, box.left - 6, y + 4, clip(text, LONGEST_NAME), size=11, fill=QUIET, text_anchor="end")
    if title := title_of(axis.layout.title):
        x, y = 16, box.top + box.height / 2
        write(svg, x, y, title, size=12, text_anchor="middle", transform=f"rotate(-90 {number(x)} {number(y)})")


def _turned(axis: Axis, width: float) -> bool:
    """Whether the names below the axis need more room than they have side by side."""
    if axis.names is None:
        return False
    longest = max((len(clip(name, LONGEST_NAME)) for name in axis.names), default=0)
    return LETTER * (longest + 1) > width / max(len(axis.names), 1)


def _longest(axis: Axis) -> int:
    """Letters of the longest name or number beside an axis."""
    return max((len(clip(text, LONGEST_NAME)) for _, text in axis.ticks(40)), default=1)
