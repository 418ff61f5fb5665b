"""What a live view leaves behind: a picture, for the day when no kernel answers."""

import ipywidgets as widgets
from IPython.display import display

from .picture import Picture

# The picture is an output of its own, since JupyterLab puts "model not found" in the place of a widget without a kernel
# and looks at nothing else in that output. While the live view is there, the picture is not, except in print.
STYLE = """<style>
:root:has(.ik-live-{0}) :is(.ik-still-{0}, .jp-OutputArea-child:has(.ik-still-{0})) {{ display: none; }}
.jp-OutputArea-child:has(.ik-still-{0}) + .jp-OutputArea-child > .jupyter-widgets:not(:has(*)) {{ display: none; }}
@media print {{
  :root .ik-still-{0}, :root .jp-OutputArea-child:has(.ik-still-{0}) {{ display: block !important; }}
  .ik-live-{0} {{ display: none !important; }}
}}
</style>"""
NOTHING = {"text/plain": "", "text/html": ""}  # where the widget cannot be shown: its picture stands above


class Live(widgets.DOMWidget):
    """A widget that has a picture, which a notebook keeps beside it.

    The picture is that of the moment in which the view is shown; it is seen where the notebook is not trusted, has no
    kernel, is exported or printed.
    """

    def picture(self) -> Picture:
        """The view as it is now."""
        raise NotImplementedError(f"{type(self).__name__} has no picture")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, a view for a notebook>"

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = _unpacked(super()._repr_mimebundle_(**kwargs))
        still, about = self._still()
        return {**data, **still}, {**metadata, **about}

    def _ipython_display_(self) -> None:
        still, about = self._still()
        live, metadata = _unpacked(super()._repr_mimebundle_())
        style = STYLE.format(self.model_id)
        self.add_class(f"ik-live-{self.model_id}")
        still["text/html"] = f'{style}<div class="ik-still-{self.model_id}">{still["text/html"]}</div>'
        display({**still, "text/plain": repr(self)}, metadata=about, raw=True)
        display({**live, **NOTHING}, metadata=metadata, raw=True)

    def _still(self) -> tuple[dict, dict]:
        picture = self.picture()
        data, about = picture.bundle()
        return {**data, "text/html": picture.tag(data["image/png"])}, about


def _unpacked(bundle: object) -> tuple[dict, dict]:
    """Data and metadata of what `_repr_mimebundle_` may return: a pair, a dict, nothing."""
    if isinstance(bundle, tuple):
        return bundle[0], bundle[1]
    return (bundle if isinstance(bundle, dict) else {}), {}
