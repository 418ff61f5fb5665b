"""The interactive attribution graph for a notebook, and the same view as one self-contained file."""

import base64
import hashlib
import html
import json
from pathlib import Path
from string import Template

import anywidget
import traitlets

from .graph_data import check_graph, check_ids, check_supernodes, check_threshold
from .graph_svg import graph_svg

HERE = Path(__file__).parent


class GraphView(anywidget.AnyWidget):
    """An attribution graph to explore: token positions across, layers upwards.

    Click a node for its card, press `p` to pin it, tick pinned nodes to group them into a supernode,
    drag the slider to prune. What the reader does is readable here, and settable:

    data        the graph as a plain dict, see `graph_data`
    pinned      ids of the pinned nodes, in the order they were pinned
    supernodes  [{"name": str, "nodes": [id, ...]}, ...]
    selected    id of the node whose card is open, or ""
    threshold   0..1; features and errors with a larger cumulative influence are hidden

    Raises ValueError where the data, an id or the threshold is not what it should be.
    """

    _esm = HERE / "graph_view.js"
    _css = HERE / "graph_view.css"

    data = traitlets.Dict().tag(sync=True)
    pinned = traitlets.List(traitlets.Unicode()).tag(sync=True)
    supernodes = traitlets.List(traitlets.Dict()).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    threshold = traitlets.Float(0.8).tag(sync=True)

    def __init__(self, data, pinned=(), threshold=0.8):
        check_graph(data)
        check_threshold(threshold)
        check_ids(pinned, _ids(data), "pinned")
        super().__init__(data=data, pinned=list(pinned), threshold=threshold, supernodes=data["supernodes"])

    @traitlets.validate("data")
    def _check_data(self, proposal):
        check_graph(proposal.value)
        return proposal.value

    @traitlets.validate("pinned")
    def _check_pinned(self, proposal):
        check_ids(proposal.value, _ids(self.data), "pinned")
        return proposal.value

    @traitlets.validate("supernodes")
    def _check_supernodes(self, proposal):
        check_supernodes(proposal.value, _ids(self.data))
        return proposal.value

    @traitlets.validate("selected")
    def _check_selected(self, proposal):
        check_ids([proposal.value] if proposal.value else [], _ids(self.data), "selected")
        return proposal.value

    @traitlets.validate("threshold")
    def _check_threshold(self, proposal):
        check_threshold(proposal.value)
        return proposal.value

    @traitlets.observe("data")
    def _forget(self, change):
        """A new graph: keep the pins it also has, and take its own supernodes."""
        if not change.old:
            return  # the first graph: __init__ sets the rest
        ids = _ids(self.data)
        self.pinned = [name for name in self.pinned if name in ids]
        self.selected = self.selected if self.selected in ids else ""
        self.supernodes = self.data["supernodes"]

    def _repr_mimebundle_(self, **kwargs):
        """The live view, and beside it the static picture for GitHub, nbconvert and print."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        kept = {*self.pinned, *(name for group in self.supernodes for name in group["nodes"])}
        return {**data, "text/html": graph_svg(self.data, self.threshold, kept)}, metadata


def graph_page(data, threshold=0.8):
    """One self-contained HTML document (str) with the interactive view: no network, no kernel.

    The Content-Security-Policy names our one script and one style sheet by hash and forbids all else.
    Raises ValueError as `GraphView` does.
    """
    check_graph(data)
    check_threshold(threshold)
    script = _read("graph_view.js") + _read("graph_page.js")
    style = _read("graph_view.css") + _read("graph_page.css")
    return Template(_read("graph_page.html")).substitute(
        title=html.escape(data["title"]),
        script=script,
        script_hash=_hash(script),
        style=style,
        style_hash=_hash(style),
        state=_embedded_json(
            {"data": data, "threshold": threshold, "pinned": [], "selected": "", "supernodes": data["supernodes"]}
        ),
        twin=graph_svg(data, threshold),
    )


def _ids(data):
    return {node["id"] for node in data["nodes"]}


def _read(name):
    return (HERE / name).read_text(encoding="utf-8")


def _hash(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded_json(value):
    # Escaped so that no label can close the script element it sits in, or break a JavaScript parser.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
