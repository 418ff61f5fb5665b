"""An edge of the graph, the heads that it runs through, and what made a head look there: one after another."""

from collections.abc import Callable

import ipywidgets as widgets
import traitlets

from .chart import Chart
from .graph_view import GraphView
from .live import Live
from .picture import Picture

Ends = tuple[str, str]  # source and target
Heads = list[tuple[str, tuple[int, int]]]  # what is said of each, and its layer and head
HINT = "Click an edge: select a node, then one of its edges, or a row of its card."


class HeadBrowser(Live, widgets.VBox):
    """A graph above two charts: of the edge that is clicked its heads, and of the head that is chosen its pairs.

    heads_of: called with the source and target of an edge, returns its heads, strongest first, and their chart.
    pairs_of: called with source, target, layer and head, returns the chart of what made that head look there.

    >>> HeadBrowser(graph.show(), heads_of, pairs_of)
    """

    def __init__(
        self, view: GraphView, heads_of: Callable[[str, str], tuple[Heads, Chart]],
        pairs_of: Callable[[str, str, int, int], Chart],
    ) -> None:  # fmt: skip
        self.view, self._heads_of, self._pairs_of = view, heads_of, pairs_of
        self.head = widgets.Dropdown(options=[], description="head", layout={"width": "28em"})
        self._hint = widgets.HTML(HINT)
        self._heads, self._pairs = widgets.Output(), widgets.Output()
        self._charts: list[Chart] = []
        view.observe(self._show_heads, "edge")
        self.head.observe(self._show_pairs, "value")
        super().__init__([view, self._hint, self._heads, self.head, self._pairs])
        if view.edge:
            self._show_heads()

    def picture(self) -> Picture:
        """The graph; or, once an edge is chosen, the chart of its heads."""
        return self._charts[0].picture() if self._charts else self.view.picture()

    def _show_heads(self, _: traitlets.Bunch | None = None) -> None:
        if not self.view.edge:
            return
        heads, chart = self._heads_of(*self.view.edge)
        self._charts, self._hint.value = [chart], ""
        self._heads.outputs = _output(chart)
        self.head.value = None  # or the same head of another edge would be no change
        self.head.options = heads
        self.head.value = heads[0][1] if heads else None

    def _show_pairs(self, _: traitlets.Bunch | None = None) -> None:
        if self.head.value is None:
            self._pairs.outputs = ()
            return
        (source, target), (layer, head) = self.view.edge, self.head.value
        self._pairs.outputs = _output(self._pairs_of(source, target, layer, head))


def _output(chart: Chart) -> tuple[dict, ...]:
    return ({"output_type": "display_data", "data": chart.live(), "metadata": {}},)
