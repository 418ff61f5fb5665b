"""The static twin of the attribution-graph view: one SVG string, no script, for GitHub, nbconvert and print.

`svg.py` escapes what stands in it.
"""

import math
from collections.abc import Collection, Sequence
from xml.etree.ElementTree import Element

from .colours import BLUE, ORANGE
from .geometry import GEOMETRY, Measures, Placement, arrange, measure, place_labels
from .graph_data import GraphData, GraphNode, NodeKind, check_graph, check_ids, check_threshold, is_solid, shown_nodes
from .picture import Picture
from .plain_text import spelled
from .svg import INK, LINE, MONO, QUIET, add, drawing, finished, number, write

NODE, PALE, GOLD = "#85909c", "#bcc3ca", "#F2C14E"  # as in graph_view.css
LEAST_PLOT = 860  # width that the columns share at least
RIGHT_MARGIN, LEGEND_HEIGHT = 10, 42
LOOKS: dict[NodeKind, tuple[str, str]] = {  # fill and stroke
    "feature": (NODE, "#ffffff"),
    "embedding": (PALE, "#ffffff"),
    "error": ("#ffffff", QUIET),
    "left_out": ("#ffffff", QUIET),
    "logit": ("#ffffff", NODE),
}
LEGEND: dict[str, NodeKind] = {
    "feature": "feature", "error (not explained)": "error", "embedding": "embedding", "output": "logit",
    "pinned": "feature",
}  # fmt: skip
ADDS, TAKES_AWAY = {"stroke": BLUE}, {"stroke": ORANGE, "stroke_dasharray": "5 3"}
FAINT = 0.35  # of the opacity, where an edge is less sure than half; the same in graph_view.js
HALO = {"stroke": "#ffffff", "stroke_width": "3", "stroke_opacity": "0.85", "paint_order": "stroke"}


def graph_svg(data: GraphData, threshold: float = 0.8, kept: Collection[str] = ()) -> str:
    """The graph as one `<svg role="img">` string: nodes at `threshold`, the strongest edges, labels, legend.

    kept: ids that are drawn whatever the threshold, and filled as pinned.
    Raises ValueError where `data` is not a graph (see `graph_data`), `threshold` is not in 0..1 or `kept` names a node
    that the graph does not have.

    >>> Path("graph.svg").write_text(graph_svg(graph.view_data(), threshold=0.6), encoding="utf-8")
    """
    data, threshold = check_graph(data), check_threshold(threshold)
    kept = check_ids(list(kept), {node["id"] for node in data["nodes"]}, "kept")
    return draw_graph(data, threshold, kept).svg


def draw_graph(data: GraphData, threshold: float, kept: Collection[str] = ()) -> Picture:
    """As `graph_svg`, for arguments that are known to be right."""
    shown, measures = shown_nodes(data, threshold, kept), measure(data)
    place = arrange(data, measures, shown, LEAST_PLOT)
    heading = 68 if data["scores"] else 50
    width, height = GEOMETRY.axis + place.width + RIGHT_MARGIN, heading + place.height + LEGEND_HEIGHT
    summary = _summary(data, shown)
    svg = drawing(width, height, summary)
    _draw_heading(svg, data, width)
    plot = add(svg, "g", transform=_moved(GEOMETRY.axis, heading))  # the page's plot starts here
    _draw_background(plot, data, place)
    _draw_edges(plot, data, measures, place)
    for i in shown:
        node = data["nodes"][i]
        _draw_node(plot, node, place.points[i], measures["half_sizes"][i], node["id"] in kept)
    _draw_labels(plot, data, measures, place, kept)
    _draw_legend(svg, GEOMETRY.axis, height - 20, any(len(edge) == 4 for edge in data["edges"]))
    return Picture(finished(svg), summary)


def _summary(data: GraphData, shown: Sequence[int]) -> str:
    logits = sorted((n for n in data["nodes"] if n["kind"] == "logit"), key=lambda n: -(n["probability"] or 0))
    outputs = ", ".join(f"{spelled(n['label'])} {_percent(n['probability'])}" for n in logits[:3])
    strongest = sorted((n for n in data["nodes"] if n["kind"] == "feature"), key=lambda n: -n["influence"])
    features = ", ".join(spelled(n["label"]) for n in strongest[:5])
    return (
        f"Attribution graph of: {spelled(data['prompt'])}. {len(shown)} of {len(data['nodes'])} nodes. "
        f"Outputs: {outputs or 'none'}. Strongest features: {features or 'none'}."
    )


# ---------------------------------------------------------------- drawing


def _draw_heading(svg: Element, data: GraphData, width: float) -> None:
    write(svg, 10, 22, _clip(data["title"], int(width / 9)), size=16, font_weight="600")
    write(svg, 10, 42, _clip(data["prompt"], int(width / 7.6)), size=12, fill=QUIET, font_family=MONO)
    scores = " · ".join(f"{spelled(name)} {value:.3g}" for name, value in data["scores"].items())
    if scores:
        write(svg, 10, 62, scores, size=12, fill=QUIET)


def _draw_background(plot: Element, data: GraphData, place: Placement) -> None:
    first = place.rows[data["n_layers"] - 1].start
    for k, (token, column) in enumerate(zip(data["tokens"], place.columns)):
        if k % 2:
            height = place.height - first
            add(plot, "rect", x=column.start, y=first, width=column.size, height=height, fill="#f7f8f9")
        text, y = _clip(token, GEOMETRY.token_letters), place.bottom + GEOMETRY.foot_text
        write(plot, column.centre, y, text, size=12, font_family=MONO, text_anchor="middle")
    for layer, row in place.rows.items():
        name = {data["n_layers"]: "output", -1: "embed"}.get(layer, f"L{layer}")
        write(plot, -GEOMETRY.axis_gap, row.centre + 3.5, name, size=11, fill=QUIET, text_anchor="end")
        if layer != data["n_layers"]:
            add(plot, "line", x1=0, x2=place.width, y1=row.start, y2=row.start, stroke=LINE)


def _draw_edges(plot: Element, data: GraphData, measures: Measures, place: Placement) -> None:
    strongest = max((abs(edge[2]) for edge in data["edges"]), default=0) or 1
    edges = [edge for edge in data["edges"] if edge[0] in place.points and edge[1] in place.points]
    edges = sorted(edges, key=lambda edge: -abs(edge[2]))[: GEOMETRY.edges]
    group = add(plot, "g", fill="none")
    for edge in reversed(edges):
        source, target, weight = edge[:3]
        (x1, y1), (x2, y2) = place.points[source], place.points[target]
        y1, y2 = y1 - measures["half_sizes"][source][1], y2 + measures["half_sizes"][target][1]
        bend, share = GEOMETRY.bend * (y1 - y2), abs(weight) / strongest
        places = x1, y1, x1, y1 - bend, x2, y2 + bend, x2, y2
        d = "M{} {}C{} {} {} {} {} {}".format(*map(number, places))
        width, opacity = 0.6 + 3.4 * math.sqrt(share), (0.14 + 0.42 * share) * (1 if is_solid(edge) else FAINT)
        look = TAKES_AWAY if weight < 0 else ADDS
        add(group, "path", d=d, stroke_width=width, stroke_opacity=opacity, **look)


def _draw_node(
    plot: Element, node: GraphNode, point: tuple[float, float], half_size: tuple[float, float], pinned: bool
) -> None:
    (x, y), (w, h) = point, half_size
    group = add(plot, "g", transform=_moved(x, y))
    add(group, "title").text = _title(node)
    _draw_shape(group, node["kind"], w, h, pinned)
    if node["kind"] == "logit":
        probability = min(1, max(0, node["probability"] or 0))
        add(group, "rect", x=2 - w, y=7, width=(2 * w - 4) * probability, height=3, fill=NODE)
        write(group, 9 - w, 3, _clip(node["label"], GEOMETRY.token_letters), size=12, font_family=MONO)
        if node["probability"] is not None:
            write(group, w - 8, 3, _percent(node["probability"]), size=11, fill=QUIET, text_anchor="end")


def _draw_shape(group: Element, kind: NodeKind, w: float, h: float, pinned: bool) -> None:
    fill, stroke = (GOLD, INK) if pinned else LOOKS[kind]
    if kind == "feature":
        add(group, "circle", r=w, stroke_width=1.5, fill=fill, stroke=stroke)
    elif kind in ("error", "left_out"):
        r = w + GEOMETRY.diamond_extra
        d = f"M0 {number(-r)}L{number(r)} 0L0 {number(r)}L{number(-r)} 0Z"
        add(group, "path", d=d, stroke_width=1.5, fill=fill, stroke=stroke)
    else:
        box = {"x": -w, "y": -h, "width": 2 * w, "height": 2 * h, "rx": 6 if kind == "logit" and w > 8 else 0}
        add(group, "rect", **box, stroke_width=1.2, fill=fill, stroke=stroke)


def _draw_labels(plot: Element, data: GraphData, measures: Measures, place: Placement, kept: Collection[str]) -> None:
    for node, x, y in place_labels(data, measures, place, lambda i: data["nodes"][i]["id"] in kept):
        text = _clip(data["nodes"][node]["label"], GEOMETRY.label_letters)
        write(plot, x, y + 3.5, text, size=10.5, text_anchor="middle", **HALO)


def _draw_legend(svg: Element, x: float, y: float, beliefs: bool) -> None:
    for name, kind in LEGEND.items():
        group = add(svg, "g", transform=_moved(x + 8, y - 4))
        _draw_shape(group, kind, 8 if kind == "logit" else 5, 5, name == "pinned")
        write(svg, x + 21, y, name, size=11.5, fill=QUIET)
        x += 42 + 5.6 * len(name)
    lines = {"adds": ADDS, "takes away": TAKES_AWAY}
    lines |= {"faint: sure by less than half": ADDS | {"stroke_opacity": FAINT}} if beliefs else {}
    for name, look in lines.items():
        add(svg, "line", x1=x, x2=x + 28, y1=y - 4, y2=y - 4, stroke_width=2.4, **look)
        write(svg, x + 34, y, name, size=11.5, fill=QUIET)
        x += 56 + 5.6 * len(name)


# ---------------------------------------------------------------- small helpers


def _title(node: GraphNode) -> str:
    activation = "" if node["activation"] is None else f", activation {node['activation']:.3g}"
    return f"{node['kind']} '{spelled(node['label'])}', layer {node['layer']}, position {node['position']}{activation}"


def _clip(text: str, length: int) -> str:
    text = spelled(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.{1 if value < 0.0995 else 0}f} %"


def _moved(x: float, y: float) -> str:
    return f"translate({number(x)} {number(y)})"
