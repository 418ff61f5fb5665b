"""The interactive attribution graph for a notebook, and the same view as one self-contained file."""

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Generic, TypeVar, cast

import anywidget
import traitlets

from .geometry import measure
from .graph_data import GraphData, check_ends, check_graph, check_ids, check_supernodes, check_threshold
from .graph_svg import draw_graph
from .live import Live
from .picture import Picture

HERE = Path(__file__).parent
GENERATOR = b'<meta name="generator" content="interp_kit">'
T = TypeVar("T")


class Checked(traitlets.TraitType[T, T], Generic[T]):
    """A trait that keeps what `check(view, value)` returns. The check raises ValueError where the value is wrong."""

    def __init__(self, check: Callable[["GraphView", object], T], default: T | None = None) -> None:
        super().__init__(default)
        self.check = check

    def validate(self, obj: "GraphView", value: object) -> T:
        """Called by traitlets when the trait of the view `obj` is set."""
        if self.name and value is obj._trait_values.get(self.name):
            return cast("T", value)  # traitlets sets what __init__ got a second time
        return self.check(obj, value)


class GraphView(Live, anywidget.AnyWidget):
    """An attribution graph to explore: token positions across, layers upwards.

    Click a node for its card, press `p` to pin it, tick pinned nodes to group them into a supernode,
    drag the slider to prune. What the reader does is readable here, and settable:

    data        the graph, a `GraphData`
    pinned      ids of the pinned nodes, in the order they were pinned
    supernodes  [{"name": str, "nodes": [id, ...]}, ...]
    selected    id of the node whose card is open, or ""
    edge        [source, target], the ids of the edge that was clicked last, in the picture or in a card; or []
    threshold   0..1; features and errors with a larger cumulative influence are hidden

    Raises ValueError where the data, an id or the threshold is not what it should be.

    >>> view = GraphView(graph.view_data(), threshold=0.6)
    >>> view.pinned    # after a click and the key p
    ['3_512_6']
    """

    _esm = HERE / "graph_view.js"
    _css = HERE / "graph_view.css"

    # The one door: everything behind these checks trusts what it gets.
    data = Checked(lambda view, data: check_graph(data)).tag(sync=True, to_json=lambda data, view: _for_page(data))
    pinned = Checked(lambda view, names: check_ids(names, _ids(view.data), "pinned")).tag(sync=True)
    supernodes = Checked(lambda view, groups: check_supernodes(groups, _ids(view.data)), []).tag(sync=True)
    selected = Checked(lambda view, name: check_ids([name], {"", *_ids(view.data)}, "selected")[0], "").tag(sync=True)
    edge = Checked(lambda view, ends: check_ends(ends, _ids(view.data)), []).tag(sync=True)
    threshold = Checked(lambda view, threshold: check_threshold(threshold)).tag(sync=True)

    def __init__(self, data: GraphData, pinned: Sequence[str] = (), threshold: float = 0.8) -> None:
        super().__init__(data=data, pinned=pinned, threshold=threshold)  # data first: the pins are looked up in it

    @traitlets.observe("data")
    def _forget(self, change: traitlets.Bunch) -> None:
        """A new graph: keep the pins it also has, and take its own supernodes."""
        ids = _ids(self.data)
        self.pinned = [name for name in self.pinned if name in ids]
        self.selected = self.selected if self.selected in ids else ""
        self.edge = self.edge if ids.issuperset(self.edge) else []
        self.supernodes = self.data["supernodes"]

    def picture(self) -> Picture:
        """The graph at the threshold, with what is pinned: the static twin, for GitHub, nbconvert and print."""
        kept = {*self.pinned, *(name for group in self.supernodes for name in group["nodes"])}
        return draw_graph(self.data, self.threshold, kept)


def graph_page(data: GraphData, threshold: float = 0.8) -> str:
    """One self-contained HTML document with the interactive view: no network, no kernel.

    The Content-Security-Policy names our one script and one style sheet by hash and forbids all else.
    Raises ValueError as `GraphView` does.

    >>> Path("graph.html").write_text(graph_page(graph.view_data()), encoding="utf-8")
    """
    data, threshold = check_graph(data), check_threshold(threshold)
    script = _read("graph_view.js") + _read("graph_page.js")
    style = _read("graph_view.css") + _read("graph_page.css")
    traits = {"threshold": threshold, "pinned": [], "selected": "", "edge": [], "supernodes": data["supernodes"]}
    return Template(_read("graph_page.html")).substitute(
        title=html.escape(data["title"]),
        script=script,
        script_hash=_hash(script),
        style=style,
        style_hash=_hash(style),
        state=_embedded_json({"data": _for_page(data), **traits}),
        twin=draw_graph(data, threshold).svg,
    )


def is_page(path: Path) -> bool:
    """Whether a file is a page that `graph_page` made, which another one may replace."""
    with open(path, "rb") as file:
        return GENERATOR in file.read(1000)


def _for_page(data: GraphData) -> dict:
    """What the page draws: the graph, and the sizes of everything in it (see `geometry`)."""
    return {**data, "measures": measure(data)}


def _ids(data: GraphData) -> set[str]:
    return {node["id"] for node in data["nodes"]}


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded_json(value: object) -> str:
    # Escaped so that no label can close the script element it sits in, or break a JavaScript parser.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")  # much faster than str.translate
    return text
