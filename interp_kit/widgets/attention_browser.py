"""Look through the heads of a model, one heat map at a time."""

from collections.abc import Callable

import ipywidgets as widgets

from .chart import Chart
from .live import Live
from .picture import Picture


class AttentionBrowser(Live, widgets.VBox):
    """Controls for layer, head and view above a figure.

    draw: called as `draw(layer, head, weighted)`, returns the figure; head is None for all heads together. weighted: by
    what the head moves, rather than what it looks at.

    >>> AttentionBrowser(patterns.show, n_layers=6, n_heads=4)
    """

    def __init__(self, draw: Callable[[int, int | None, bool], Chart], n_layers: int, n_heads: int) -> None:
        self._draw = draw
        self.layer = widgets.IntSlider(0, 0, n_layers - 1, description="layer", continuous_update=False)
        heads = [("all", None), *((str(h), h) for h in range(n_heads))]
        self.head = widgets.Dropdown(options=heads, description="head")
        self.weighted = widgets.ToggleButtons(options=[("what it looks at", False), ("what it moves", True)])
        self._figure = widgets.Output()
        for control in (self.layer, self.head, self.weighted):
            control.observe(self._show, "value")
        super().__init__([widgets.HBox([self.layer, self.head, self.weighted]), self._figure])
        self._show()

    def picture(self) -> Picture:
        """The figure that is shown."""
        return self._drawn().picture()

    def _drawn(self) -> Chart:
        return self._draw(self.layer.value, self.head.value, bool(self.weighted.value))

    def _show(self, _: object = None) -> None:
        self._figure.outputs = ({"output_type": "display_data", "data": self._drawn().live(), "metadata": {}},)
