"""What a trace of a plotly figure holds: its points, its colours, its words, as plain Python."""

from typing import Any

import numpy as np
from plotly import colors

from .plain_text import spelled

Figure = Any  # plotly's own, whose attributes no type checker knows
Part = Any  # of such a figure: a trace, an axis, or what one of their attributes holds
LETTER = 6.6  # width of a letter, 11 px
LONGEST_NAME = 28  # letters of a tick or a legend entry
COLOURS = ("#636EFA", "#EF553B", "#00CC96", "#AB63FA", "#FFA15A", "#19D3F3", "#FF6692", "#B6E880")  # as plotly's


def points_of(trace: Part) -> tuple[list, list]:
    """x and y of a trace, counted where they are not given."""
    if trace.type == "histogram":
        return _counted(trace)
    if trace.type == "heatmap":
        n_rows, n_columns = np.shape(trace.z)
        return _listed(trace.x, n_columns), _listed(trace.y, n_rows)
    n = max(len(trace.x) if trace.x is not None else 0, len(trace.y) if trace.y is not None else 0)
    return _listed(trace.x, n), _listed(trace.y, n)


def _counted(trace: Part) -> tuple[list, list]:
    """A histogram's middles and counts."""
    flat = trace.x is None
    values = np.asarray(trace.y if flat else trace.x, dtype=float)
    values, bins = values[np.isfinite(values)], trace.ybins if flat else trace.xbins
    n = int((trace.nbinsy if flat else trace.nbinsx) or 10)
    edges = np.linspace(*_ends(values), n + 1)
    if bins.size:
        edges = np.arange(bins.start, bins.end + bins.size / 2, bins.size)
    counts, middles = np.histogram(values, edges)[0].tolist(), ((edges[:-1] + edges[1:]) / 2).tolist()
    return (counts, middles) if flat else (middles, counts)


def _ends(values: np.ndarray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def mode_of(trace: Part) -> str:
    """What a scatter is made of; where it does not say, as plotly has it."""
    if not trace.type.startswith("scatter"):
        return ""
    return trace.mode or ("lines+markers" if len(points_of(trace)[0]) < 20 else "lines")


def _listed(values: Part, n: int) -> list:
    return list(range(n)) if values is None else np.asarray(values).tolist()


def each(value: Part, i: int, default: Part) -> Part:
    """The i-th of several values, or the one value of all."""
    if value is None:
        return default
    return value if isinstance(value, (str, int, float)) else value[i] if i < len(value) else default


def colour_of(figure: Figure, trace: Part, i: int) -> str:
    """The one colour of a trace, the i-th of its figure."""
    given = [getattr(trace, part, None) for part in ("line", "marker")]
    found = [part.color for part in given if part is not None and isinstance(part.color, str)]
    others = figure.layout.colorway or COLOURS
    return str(found[0] if found else others[i % len(others)])


def marker_colours(marker: Part, n: int, default: str) -> list[str]:
    """A colour for each of n marks."""
    if marker.color is None or isinstance(marker.color, str):
        return [marker.color or default] * n
    values = np.asarray(marker.color)
    if values.dtype.kind not in "fiu":
        return [str(colour) for colour in values.tolist()]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return [hexadecimal(colour) for colour in shades_of(marker.colorscale, (values - low) / ((high - low) or 1))]


def limits_of(trace: Part, values: np.ndarray) -> tuple[float, float]:
    """The values at the two ends of a heat map's colours."""
    finite = values[np.isfinite(values)]
    low, high = _ends(finite)
    if trace.zmid is not None:
        reach = max(high - trace.zmid, trace.zmid - low)
        low, high = trace.zmid - reach, trace.zmid + reach
    return float(low if trace.zmin is None else trace.zmin), float(high if trace.zmax is None else trace.zmax)


def shades_of(scale: Part, shares: Part) -> list[tuple[float, float, float]]:
    """Colours (red, green, blue; 0 to 255) at the shares of a colour scale."""
    steps = scale or colors.get_colorscale("Plasma")
    places, shades = [at for at, _ in steps], [_rgb(colour) for _, colour in steps]
    channels = [np.interp(shares, places, [shade[c] for shade in shades]) for c in range(3)]
    return [(float(r), float(g), float(b)) for r, g, b in zip(*channels)]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(colors.hex_to_rgb(colour)) if colour.startswith("#") else tuple(colors.unlabel_rgb(colour))


def hexadecimal(colour: tuple[float, float, float]) -> str:
    """A colour as CSS."""
    return "#" + "".join(f"{round(part):02x}" for part in colour)


def is_light(colour: tuple[float, float, float]) -> bool:
    """Whether dark words can be read on a colour."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140


def title_of(title: Part) -> str:
    """The words of a title, or ""."""
    return spelled(str(title.text)) if title is not None and title.text else ""


def clip(text: Part, length: int) -> str:
    """A text with its white space seen, cut to a length."""
    text = spelled(str(text))
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"
