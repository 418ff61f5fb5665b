"""Where everything stands in the picture of an attribution graph: one geometry for the page and for the static picture.

The page must arrange the graph again whenever its slider moves, without asking Python. So the algorithm is written
twice: `arrange` here, and function by function in graph_view.js. All numbers are written once. Those of `GEOMETRY`, and
all that can be measured before anything moves, go to the page with the graph (`measure`).
A browser test compares the two pictures, and fails when a single number differs.

Coordinates are pixels from the left top corner of the plot, which starts to the right of the layer names.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from .graph_data import GraphData, GraphNode

LEAST_COLUMN = 42
TOKEN_MARGIN = 10  # beside a token, in its column
TOKEN_WIDTH = 7.4  # of a letter of a token, 12 px monospace
LOGIT_WIDTH = 7.2  # of a letter in an output's box, which is as wide as the longest output and LOGIT_BASE
LOGIT_BASE = 54
LOGIT_HEIGHT = 24
LABEL_WIDTH = 5.9  # of a letter of a node's label, 10.5 px
EMBEDDING_RADIUS = 6
SIZED = ("feature", "error", "left_out")  # kinds whose area follows the influence
SMALLEST_RADIUS, RADIUS_RANGE = 4.5, 5  # of these kinds; the area above the smallest follows the influence


class Geometry(NamedTuple):
    """The numbers that Python and the page both read, in pixels where nothing else is said."""

    axis: float = 52  # width of the layer names at the left
    axis_gap: float = 8  # from the layer names to the plot
    cell_margin: float = 18  # beside the nodes of a cell (those that share a layer and a position), in their column
    pitch: float = 24  # from node to node in a cell
    per_line: int = 5  # nodes side by side in a cell before a second line starts
    top: float = 8  # above the outputs
    row_margin: float = 24  # above and below the nodes of a row, together
    empty_row: float = 18  # height of a layer without nodes
    least_height: float = 400  # of all rows: smaller graphs spread over it
    foot: float = 24  # below the rows, for the tokens
    foot_text: float = 9  # from the rows down to the tokens' base line
    logit_right: float = 6  # from the outputs to the right edge of their column
    logit_gap: float = 8  # between outputs side by side
    logit_pitch: float = 30  # from one line of outputs to the next
    logit_first: float = 20  # from the top of the row to the middle of the first line of outputs
    logit_margin: float = 14  # below the outputs
    token_letters: int = 14  # letters of a token or an output that are shown
    label_letters: int = 22  # letters of a node's label that are shown
    labels: int = 60  # labels that we try to place; most graphs have room for fewer
    label_gap: float = 2  # from a node to its label
    label_half_height: float = 6  # half the height of a label
    diamond_extra: float = 1  # errors are diamonds: they look as large as a circle that is smaller by this
    edges: int = 120  # edges drawn while nothing is selected: more is only fog
    bend: float = 0.45  # of an edge: how far it leaves vertically, in heights of the edge


GEOMETRY = Geometry()


class Measures(TypedDict):
    """What the page needs in order to arrange a graph, as plain data."""

    geometry: dict[str, float]  # `GEOMETRY`
    column_widths: list[float]  # for each token, the width that it needs
    half_sizes: list[tuple[float, float]]  # for each node, half its width and half its height
    half_labels: list[float]  # for each node, half the width of its label
    order: list[int]  # nodes as they fill their cells: errors last; then the outputs, the most probable first


class Cell(NamedTuple):
    """The shown nodes that share a layer and a position, in `lines` of at most `per_line`."""

    layer: int
    position: int
    members: list[int]
    lines: int
    per_line: int


class Span(NamedTuple):
    """A column from left to right, or a row from top to bottom."""

    start: float
    size: float

    @property
    def centre(self) -> float:
        """The middle.

        >>> Span(10, 4).centre
        12.0
        """
        return self.start + self.size / 2


class Placement(NamedTuple):
    """Where everything is. Indices are those of `data["nodes"]` and of `data["tokens"]`."""

    points: dict[int, tuple[float, float]]  # the middle of each shown node
    columns: list[Span]  # one for each token
    rows: dict[int, Span]  # by layer, from the outputs (n_layers) down to the embeddings (-1)
    bottom: float  # of the rows
    width: float
    height: float


def measure(data: GraphData) -> Measures:
    """All sizes of a graph that hold whatever is shown, as data for JSON. Takes a checked graph.

    >>> measure(data)["half_sizes"][0]    # an embedding: half its width, half its height
    (6, 6)
    """
    nodes = data["nodes"]
    logits = [min(len(node["label"]), GEOMETRY.token_letters) for node in nodes if node["kind"] == "logit"]
    logit = ((LOGIT_BASE + LOGIT_WIDTH * max(logits, default=0)) / 2, LOGIT_HEIGHT / 2)
    strongest = max((node["influence"] for node in nodes if node["kind"] in SIZED), default=0)
    tokens = [min(len(token), GEOMETRY.token_letters) for token in data["tokens"]]
    return {
        "geometry": GEOMETRY._asdict(),
        "column_widths": [max(LEAST_COLUMN, TOKEN_MARGIN + TOKEN_WIDTH * n) for n in tokens],
        "half_sizes": [logit if node["kind"] == "logit" else _half_shape(node, strongest) for node in nodes],
        "half_labels": [3 + LABEL_WIDTH / 2 * min(len(node["label"]), GEOMETRY.label_letters) for node in nodes],
        "order": sorted(range(len(nodes)), key=lambda i: (*_rank(nodes[i]), i)),
    }


def arrange(data: GraphData, measures: Measures, shown: Sequence[int], room: float) -> Placement:
    """Places the nodes with the indices `shown` in a plot at least `room` pixels wide. Outputs are always shown.

    >>> place = arrange(data, measure(data), range(len(data["nodes"])), room=860)
    >>> x, y = place.points[0]
    """
    cells = _fill_cells(data, measures, set(shown))
    columns = _place_columns(measures, cells, room)
    logits, logit_lines = _flow_logits(data, measures, columns)
    rows = _place_rows(data["n_layers"], cells, logit_lines)
    points = {}
    for cell in cells:
        for k, node in enumerate(cell.members):
            line = k // cell.per_line
            on_line = min(cell.per_line, len(cell.members) - line * cell.per_line)
            x = columns[cell.position].centre + GEOMETRY.pitch * (k % cell.per_line - (on_line - 1) / 2)
            points[node] = x, rows[cell.layer].centre + GEOMETRY.pitch * (line - (cell.lines - 1) / 2)
    for node, line, x in logits:
        points[node] = x, GEOMETRY.top + GEOMETRY.logit_first + GEOMETRY.logit_pitch * line
    bottom = rows[-1].start + rows[-1].size
    return Placement(points, columns, rows, bottom, columns[-1].start + columns[-1].size, bottom + GEOMETRY.foot)


def place_labels(
    data: GraphData, measures: Measures, place: Placement, importance: Callable[[int], float]
) -> list[tuple[int, float, float]]:
    """Labels of features and of what was left out, the most important first: above, below or beside the node; without
    room, no label.

    Each is (the node's index, and x and y of the label's middle).

    importance: of a node, by its index; the node's influence decides among equals.
    """
    half, taken, labels = measures["half_sizes"], [], []
    for node, (x, y) in place.points.items():
        w, h = half[node]
        taken.append((x - w - 1, y - h - 1, x + w + 1, y + h + 1))
    order = [i for i in place.points if data["nodes"][i]["kind"] in ("feature", "left_out")]
    order.sort(key=lambda i: (-importance(i), -data["nodes"][i]["influence"], i))
    for node in order[: GEOMETRY.labels]:
        (x, y), r, w = place.points[node], half[node][0], measures["half_labels"][node]
        aside, above = r + w + GEOMETRY.label_gap, r + GEOMETRY.label_half_height + GEOMETRY.label_gap
        for cx, cy in [(x, y - above), (x, y + above), (x + aside, y), (x - aside, y)]:
            box = (cx - w, cy - GEOMETRY.label_half_height, cx + w, cy + GEOMETRY.label_half_height)
            if box[0] >= 0 and box[2] <= place.width and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                labels.append((node, cx, cy))
                break
    return labels


def _half_shape(node: GraphNode, strongest: float) -> tuple[float, float]:
    if node["kind"] == "embedding":
        return EMBEDDING_RADIUS, EMBEDDING_RADIUS
    share = max(0, node["influence"]) / max(1e-12, strongest)
    radius = SMALLEST_RADIUS + RADIUS_RANGE * math.sqrt(share)
    return round(radius, 2), round(radius, 2)


def _rank(node: GraphNode) -> tuple[int, float]:
    if node["kind"] == "logit":
        return 2, -(node["probability"] or 0)
    return int(node["kind"] in ("error", "left_out")), 0


def _fill_cells(data: GraphData, measures: Measures, shown: set[int]) -> list[Cell]:
    cells = defaultdict(list)
    for i in measures["order"]:
        node = data["nodes"][i]
        if i in shown and node["kind"] != "logit":
            cells[node["layer"], node["position"]].append(i)
    filled = []
    for (layer, position), members in cells.items():
        lines = math.ceil(len(members) / GEOMETRY.per_line)
        filled.append(Cell(layer, position, members, lines, math.ceil(len(members) / lines)))
    return filled


def _place_columns(measures: Measures, cells: list[Cell], room: float) -> list[Span]:
    widths = list(measures["column_widths"])
    for cell in cells:
        widths[cell.position] = max(widths[cell.position], GEOMETRY.cell_margin + GEOMETRY.pitch * cell.per_line)
    spare = max(0, room - sum(widths)) / len(widths)
    columns, x = [], 0.0
    for width in widths:
        columns.append(Span(x, width + spare))
        x += width + spare
    return columns


def _flow_logits(data: GraphData, measures: Measures, columns: list[Span]) -> tuple[list[tuple[int, int, float]], int]:
    """Outputs leftwards from their column's right edge, the most probable first: (node, line, x), and the lines."""
    logits = [i for i in measures["order"] if data["nodes"][i]["kind"] == "logit"]
    if not logits:
        return [], 0
    last = columns[max(data["nodes"][i]["position"] for i in logits)]
    half = measures["half_sizes"][logits[0]][0]
    right, step = last.start + last.size - GEOMETRY.logit_right, 2 * half + GEOMETRY.logit_gap
    most = max(1, int((right + GEOMETRY.logit_gap) // step))
    lines = math.ceil(len(logits) / most)
    per_line = math.ceil(len(logits) / lines)  # lines of about equal length
    boxes = []
    for k, node in enumerate(logits):
        line = k // per_line
        on_line = min(per_line, len(logits) - line * per_line)
        boxes.append((node, line, right - half - (on_line - 1 - k % per_line) * step))
    return boxes, boxes[-1][1] + 1


def _place_rows(n_layers: int, cells: list[Cell], logit_lines: int) -> dict[int, Span]:
    """Rows from the top: outputs, layers downwards, embeddings. Empty layers shrink, crowded ones grow, and a small
    graph spreads over the height that the card beside it has anyway."""
    lines = defaultdict(int)
    for cell in cells:
        lines[cell.layer] = max(lines[cell.layer], cell.lines)
    heights = {
        layer: GEOMETRY.row_margin + GEOMETRY.pitch * lines[layer] if lines[layer] else GEOMETRY.empty_row
        for layer in range(n_layers - 1, -2, -1)
    }
    head = GEOMETRY.logit_pitch * logit_lines + GEOMETRY.logit_margin
    spare = max(0, GEOMETRY.least_height - head - sum(heights.values())) / len(heights)
    rows, y = {n_layers: Span(GEOMETRY.top, head)}, GEOMETRY.top + head
    for layer, height in heights.items():
        rows[layer] = Span(y, height + spare)
        y += height + spare
    return rows


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
