"""SVG as an element tree, so that texts from strangers are escaped by construction.

Colours and sizes are presentation attributes: they survive where style sheets are stripped, and a content policy allows
them.
"""

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from .plain_text import spelled

# As in graph_view.css, which has a dark set as well.
INK, QUIET, LINE = "#1d2733", "#5b6673", "#dde1e6"
SANS, MONO = "Helvetica, Arial, sans-serif", "Menlo, Consolas, monospace"


def drawing(width: float, height: float, about: str) -> Element:
    """An empty `<svg role="img">` on white, `about` for those who do not see it.

    >>> drawing(40, 20, "nothing").get("aria-label")
    'nothing'
    """
    label = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": spelled(about)}
    size = {"width": number(width), "height": number(height), "viewBox": f"0 0 {number(width)} {number(height)}"}
    svg = Element("svg", {**label, **size, "font-family": SANS})
    add(svg, "rect", width="100%", height="100%", fill="#ffffff")
    return svg


def add(parent: Element, tag: str, **attributes: str | float) -> Element:
    """A new element in `parent`; `stroke_width=2` becomes `stroke-width="2"`.

    >>> add(drawing(40, 20, ""), "rect", stroke_width=2).get("stroke-width")
    '2'
    """
    texts = {key: value if isinstance(value, str) else number(value) for key, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, {key.replace("_", "-"): text for key, text in texts.items()})


def write(parent: Element, x: float, y: float, text: str, size: float, fill: str = INK, **more: str | float) -> None:
    """A text with its base line at y.

    >>> write(drawing(40, 20, ""), 5, 15, " Dallas", size=12)
    """
    add(parent, "text", x=x, y=y, font_size=size, fill=fill, **more).text = spelled(text)


def number(value: float) -> str:
    """A number with at most two digits after the point.

    >>> number(1.5)
    '1.5'
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def finished(svg: Element) -> str:
    """The drawing as text.

    >>> finished(drawing(40, 20, ""))[:4]
    '<svg'
    """
    return ElementTree.tostring(svg, encoding="unicode")
