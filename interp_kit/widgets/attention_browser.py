"""Look through the heads of a model, one heat map at a time."""

import ipywidgets as widgets


class AttentionBrowser(widgets.VBox):
    """Controls for layer, head and view above the figure that `draw(layer, head, weighted)` makes; head is None for all
    together."""

    def __init__(self, draw, n_layers: int, n_heads: int):
        self._draw = draw
        self.layer = widgets.IntSlider(0, 0, n_layers - 1, description="layer", continuous_update=False)
        heads = [("all", None), *((str(h), h) for h in range(n_heads))]
        self.head = widgets.Dropdown(options=heads, description="head")
        views = [("what it looks at", False), ("what it moves", True)]
        self.weighted = widgets.ToggleButtons(options=views)
        self._figure = widgets.Output()
        for control in (self.layer, self.head, self.weighted):
            control.observe(self._show, "value")
        super().__init__([widgets.HBox([self.layer, self.head, self.weighted]), self._figure])
        self._show()

    def _show(self, _=None):
        figure = self._draw(self.layer.value, self.head.value, self.weighted.value)
        self._figure.outputs = ({"output_type": "display_data", "data": figure._repr_mimebundle_(), "metadata": {}},)
