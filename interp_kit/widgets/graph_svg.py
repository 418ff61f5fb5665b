"""The static twin of the attribution-graph view: one SVG string, no script, for GitHub, nbconvert and print.

Built as an element tree, so that labels from strangers are escaped by construction. Colours and sizes are
presentation attributes: they survive where style sheets are stripped, and a content policy allows them.
"""

import math
import re
from collections import defaultdict
from xml.etree import ElementTree

from .graph_data import check_graph, check_threshold, shown_nodes

BLUE, ORANGE, GOLD = "#0072B2", "#D55E00", "#F2C14E"
INK, QUIET, LINE, NODE, PALE = "#1d2733", "#5b6673", "#dde1e6", "#85909c", "#bcc3ca"
SANS, MONO = "Helvetica, Arial, sans-serif", "Menlo, Consolas, monospace"
PITCH, PER_LINE, AXIS, ROOM = 24, 5, 56, 860  # as in graph_view.js; ROOM is the width columns share at least
EDGES, LABELS = 200, 60
MARKS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}


def graph_svg(data, threshold=0.8, kept=()):
    """The graph as one `<svg role="img">` string: nodes at `threshold`, the strongest edges, labels, legend.

    kept: ids that are drawn whatever the threshold, and filled as pinned.
    Raises ValueError where `data` is not a graph (see `graph_data`) or `threshold` is not in 0..1.
    """
    check_graph(data)
    check_threshold(threshold)
    shown = shown_nodes(data, threshold, kept)
    place = _arrange(data, shown)
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "role": "img",
            "aria-label": _summary(data, shown),
            "width": _n(place["width"]),
            "height": _n(place["height"]),
            "viewBox": f"0 0 {_n(place['width'])} {_n(place['height'])}",
            "font-family": SANS,
        },
    )
    _add(svg, "rect", width="100%", height="100%", fill="#ffffff")
    _draw_heading(svg, data, place)
    _draw_background(svg, data, place)
    _draw_edges(svg, data, shown, place)
    for i in shown:
        node = data["nodes"][i]
        _draw_node(svg, node, place["nodes"][i], node["id"] in kept)
    _draw_labels(svg, data, shown, place)
    _draw_legend(svg, place)
    return ElementTree.tostring(svg, encoding="unicode")


def spelled(text):
    """`text` with the white space that a tokenizer cares about made visible, on one line."""
    text = re.sub(r"^ +| +$|[\n\r\t]+", lambda match: "".join(MARKS[c] for c in match[0]), text)
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "�", text)


def _summary(data, shown):
    logits = [n for n in data["nodes"] if n["kind"] == "logit"]
    logits.sort(key=lambda n: -(n["probability"] or 0))
    outputs = ", ".join(f"{spelled(n['label'])} {_percent(n['probability'])}" for n in logits[:3])
    strongest = [n for n in data["nodes"] if n["kind"] == "feature"]
    strongest.sort(key=lambda n: -n["influence"])
    features = ", ".join(spelled(n["label"]) for n in strongest[:5])
    return (
        f"Attribution graph of: {spelled(data['prompt'])}. {len(shown)} of {len(data['nodes'])} nodes. "
        f"Outputs: {outputs or 'none'}. Strongest features: {features or 'none'}."
    )


# ---------------------------------------------------------------- layout, the same as in graph_view.js


def _arrange(data, shown):
    nodes = data["nodes"]
    cells = defaultdict(list)
    for i in shown:
        if nodes[i]["kind"] != "logit":
            cells[nodes[i]["layer"], nodes[i]["position"]].append(i)
    for members in cells.values():
        members.sort(key=lambda i: (nodes[i]["kind"] == "error", i))
    columns = _columns(data["tokens"], cells)
    logits = sorted(
        (i for i in shown if nodes[i]["kind"] == "logit"), key=lambda i: (-(nodes[i]["probability"] or 0), i)
    )
    letters = max((min(14, len(spelled(nodes[i]["label"]))) for i in logits), default=0)
    logit_width = 54 + 7.2 * letters
    boxes = _flow(nodes, logits, columns, logit_width)
    rows, bottom = _rows(data["n_layers"], cells, boxes, top=76 if data["scores"] else 58)
    place = {
        "columns": columns,
        "rows": rows,
        "bottom": bottom,
        "logit_width": logit_width,
        "width": columns[-1][0] + columns[-1][1] + 10,
        "height": bottom + 66,
    }
    place["nodes"] = _points(data, cells, boxes, place)
    return place


def _columns(tokens, cells):
    widths = [max(42, 10 + 7.4 * min(14, len(spelled(token)))) for token in tokens]
    for (_, position), members in cells.items():
        widths[position] = max(widths[position], 18 + PITCH * _per_line(members))
    spare = max(0, ROOM - sum(widths)) / len(widths)
    columns, x = [], AXIS
    for width in widths:
        columns.append((x, width + spare))
        x += width + spare
    return columns


def _per_line(members):
    return math.ceil(len(members) / math.ceil(len(members) / PER_LINE))


def _flow(nodes, logits, columns, width):
    """Output boxes leftwards from their column's right edge, the most probable first: (node, line, x)."""
    if not logits:
        return []
    last = columns[max(nodes[i]["position"] for i in logits)]
    right, step = last[0] + last[1] - 6, width + 8
    most = max(1, int((right - AXIS + 8) // step))
    per_line = math.ceil(len(logits) / math.ceil(len(logits) / most))  # lines of about equal length
    boxes = []
    for k, i in enumerate(logits):
        line = k // per_line
        on_line = min(per_line, len(logits) - line * per_line)
        boxes.append((i, line, right - width / 2 - (on_line - 1 - k % per_line) * step))
    return boxes


def _rows(n_layers, cells, boxes, top):
    """{layer: (y, height)} from the outputs at the top down to the embeddings, and the bottom edge."""
    lines = defaultdict(int)
    for (layer, _), members in cells.items():
        lines[layer] = max(lines[layer], math.ceil(len(members) / PER_LINE))
    rows, y = {}, top
    for layer in range(n_layers, -2, -1):
        height = 24 + PITCH * lines[layer] if lines[layer] else 18
        if layer == n_layers:
            height = 30 * (max((line for _, line, _ in boxes), default=-1) + 1) + 14
        rows[layer] = (y, height)
        y += height
    return rows, y


def _points(data, cells, boxes, place):
    """{node: (x, y, half width, half height)}."""
    nodes, points = data["nodes"], {}
    top = max((n["influence"] for n in nodes if n["kind"] in ("feature", "error")), default=0) or 1
    for (layer, position), members in cells.items():
        per_line, lines = _per_line(members), math.ceil(len(members) / PER_LINE)
        (left, width), (y, height) = place["columns"][position], place["rows"][layer]
        for k, i in enumerate(members):
            line = k // per_line
            on_line = min(per_line, len(members) - line * per_line)
            share = max(0, nodes[i]["influence"]) / top
            r = 6 if nodes[i]["kind"] == "embedding" else 4.5 + 5 * math.sqrt(share)
            points[i] = (
                left + width / 2 + PITCH * (k % per_line - (on_line - 1) / 2),
                y + height / 2 + PITCH * (line - (lines - 1) / 2),
                r,
                r,
            )
    for i, line, x in boxes:
        points[i] = (x, place["rows"][data["n_layers"]][0] + 20 + 30 * line, place["logit_width"] / 2, 12)
    return points


# ---------------------------------------------------------------- drawing


def _draw_heading(svg, data, place):
    width = place["width"]
    _text(svg, 10, 22, _clip(data["title"], int(width / 9)), size=16, weight="600")
    _text(svg, 10, 42, _clip(data["prompt"], int(width / 7.6)), size=12, fill=QUIET, family=MONO)
    scores = " · ".join(f"{spelled(name)} {value:.3g}" for name, value in data["scores"].items())
    if scores:
        _text(svg, 10, 62, scores, size=12, fill=QUIET)


def _draw_background(svg, data, place):
    first = place["rows"][data["n_layers"] - 1][0]
    for k, (x, width) in enumerate(place["columns"]):
        if k % 2:
            _add(svg, "rect", x=x, y=first, width=width, height=place["bottom"] + 20 - first, fill="#f7f8f9")
        _text(
            svg,
            x + width / 2,
            place["bottom"] + 10,
            _clip(data["tokens"][k], 14),
            size=12,
            family=MONO,
            anchor="middle",
        )
    for layer, (y, height) in place["rows"].items():
        name = {data["n_layers"]: "output", -1: "embed"}.get(layer, f"L{layer}")
        _text(svg, AXIS - 10, y + height / 2 + 4, name, size=11, fill=QUIET, anchor="end")
        if layer != data["n_layers"]:
            _add(svg, "line", x1=AXIS, x2=place["width"] - 10, y1=y, y2=y, stroke=LINE)


def _draw_edges(svg, data, shown, place):
    shown = set(shown)
    edges = [edge for edge in data["edges"] if edge[0] in shown and edge[1] in shown]
    edges = sorted(edges, key=lambda edge: -abs(edge[2]))[:EDGES]
    group = _add(svg, "g", fill="none")
    for source, target, weight in reversed(edges):
        (x1, y1, _, h1), (x2, y2, _, h2) = place["nodes"][source], place["nodes"][target]
        y1, y2, share = y1 - h1, y2 + h2, abs(weight) / (abs(edges[0][2]) or 1)
        bend = 0.45 * (y1 - y2)
        path = _add(
            group,
            "path",
            d=f"M{_n(x1)} {_n(y1)}C{_n(x1)} {_n(y1 - bend)} {_n(x2)} {_n(y2 + bend)} {_n(x2)} {_n(y2)}",
            stroke=ORANGE if weight < 0 else BLUE,
            stroke_width=0.6 + 3.4 * math.sqrt(share),
            stroke_opacity=0.1 + 0.5 * share,
        )
        if weight < 0:
            path.set("stroke-dasharray", "5 3")


def _draw_node(svg, node, point, pinned):
    x, y, w, h = point
    group = _add(svg, "g", transform=f"translate({_n(x)} {_n(y)})")
    _add(group, "title").text = _title(node)
    _draw_shape(group, node["kind"], w, h, pinned)
    if node["kind"] == "logit":
        probability = min(1, max(0, node["probability"] or 0))
        _add(group, "rect", x=2 - w, y=7, width=(2 * w - 4) * probability, height=3, fill=NODE)
        _text(group, 9 - w, 3, _clip(node["label"], 14), size=12, family=MONO)
        if node["probability"] is not None:
            _text(group, w - 8, 3, _percent(node["probability"]), size=11, fill=QUIET, anchor="end")


def _draw_shape(group, kind, w, h, pinned):
    look = {
        "feature": {"fill": NODE, "stroke": "#ffffff"},
        "embedding": {"fill": PALE, "stroke": "#ffffff"},
        "error": {"fill": "#ffffff", "stroke": QUIET},
        "logit": {"fill": "#ffffff", "stroke": NODE},
    }[kind]
    if pinned:
        look = {"fill": GOLD, "stroke": INK}
    if kind == "feature":
        _add(group, "circle", r=w, stroke_width=1.5, **look)
    elif kind == "error":
        d = f"M0 {_n(-w - 1)}L{_n(w + 1)} 0L0 {_n(w + 1)}L{_n(-w - 1)} 0Z"
        _add(group, "path", d=d, stroke_width=1.5, **look)
    else:
        _add(
            group,
            "rect",
            x=-w,
            y=-h,
            width=2 * w,
            height=2 * h,
            rx=6 if kind == "logit" and w > 8 else 0,
            stroke_width=1.2,
            **look,
        )


def _draw_labels(svg, data, shown, place):
    """Greedy: the most important feature first; above, below or beside its node; no room, no label."""
    nodes = data["nodes"]
    taken = [(x - w - 1, y - h - 1, x + w + 1, y + h + 1) for x, y, w, h in place["nodes"].values()]
    order = [i for i in shown if nodes[i]["kind"] == "feature"]
    order.sort(key=lambda i: (-nodes[i]["influence"], i))
    for i in order[:LABELS]:
        text, (x, y, r, _) = _clip(nodes[i]["label"], 22), place["nodes"][i]
        w = 3 + 2.95 * len(text)
        for cx, cy in [(x, y - r - 8), (x, y + r + 8), (x + r + w + 2, y), (x - r - w - 2, y)]:
            box = (cx - w, cy - 6, cx + w, cy + 6)
            inside = AXIS <= box[0] and box[2] <= place["width"]
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                _text(svg, cx, cy + 3.5, text, size=10.5, anchor="middle", halo=True)
                break


def _draw_legend(svg, place):
    x, y = AXIS, place["height"] - 20
    for kind, name in [
        ("feature", "feature"),
        ("error", "error (not explained)"),
        ("embedding", "embedding"),
        ("logit", "output"),
        ("pinned", "pinned"),
    ]:
        group = _add(svg, "g", transform=f"translate({_n(x + 8)} {_n(y - 4)})")
        _draw_shape(group, "feature" if kind == "pinned" else kind, 8 if kind == "logit" else 5, 5, kind == "pinned")
        _text(svg, x + 21, y, name, size=11.5, fill=QUIET)
        x += 42 + 5.6 * len(name)
    for colour, name, dash in [(BLUE, "adds", None), (ORANGE, "takes away", "5 3")]:
        line = _add(svg, "line", x1=x, x2=x + 28, y1=y - 4, y2=y - 4, stroke=colour, stroke_width=2.4)
        if dash:
            line.set("stroke-dasharray", dash)
        _text(svg, x + 34, y, name, size=11.5, fill=QUIET)
        x += 56 + 5.6 * len(name)


# ---------------------------------------------------------------- small helpers


def _add(parent, tag, **attributes):
    named = {key.replace("_", "-"): value if isinstance(value, str) else _n(value) for key, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, named)


def _text(parent, x, y, text, size, fill=INK, family=None, anchor=None, weight=None, halo=False):
    element = _add(parent, "text", x=x, y=y, font_size=size, fill=fill)
    optional = {"font-family": family, "text-anchor": anchor, "font-weight": weight}
    if halo:
        optional |= {"stroke": "#ffffff", "stroke-width": "3", "stroke-opacity": "0.85", "paint-order": "stroke"}
    element.attrib.update({key: value for key, value in optional.items() if value})
    element.text = spelled(text)


def _title(node):
    parts = [f"{node['kind']} '{spelled(node['label'])}'", f"layer {node['layer']}", f"position {node['position']}"]
    if node["activation"] is not None:
        parts.append(f"activation {node['activation']:.3g}")
    return ", ".join(parts)


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _clip(text, length):
    text = spelled(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _percent(value):
    return "" if value is None else f"{100 * value:.{1 if value < 0.0995 else 0}f} %"


def _n(value):
    return f"{value:.2f}".rstrip("0").rstrip(".")
