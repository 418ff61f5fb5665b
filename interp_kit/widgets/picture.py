"""A view as a picture: what a notebook shows where no script runs, no kernel answers and no SVG is let through.

The renderer is a wheel (resvg) and the fonts lie beside this file, so a picture is the same on every machine. The fonts
cover Latin, Greek, Cyrillic and common signs; any other sign is drawn as an empty box (`recipes/fonts.py`).
"""

import base64
import html
import io
import json
import math
import re
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import resvg_py
from PIL import Image

FONTS = Path(__file__).parent / "fonts"
MOST_PIXELS = 2_000_000  # of a picture: a larger view is drawn smaller
BOX = "□"


class Picture(NamedTuple):
    """A drawing and what it says.

    svg: the drawing, as text. alt: for readers who do not see it.
    """

    svg: str
    alt: str

    def png(self) -> bytes:
        """The drawing as a PNG file, in 256 colours.

        >>> Picture(graph_svg(graph.view_data()), "a graph").png()[:4]
        b'\\x89PNG'
        """
        root = ElementTree.fromstring(self.svg)
        for element in root.iter():
            element.text = _drawable(element.text) if element.text else None
        width, height = float(root.get("width", 1)), float(root.get("height", 1))
        large = resvg_py.svg_to_bytes(
            svg_string=ElementTree.tostring(root, encoding="unicode"),
            width=round(width * min(1, math.sqrt(MOST_PIXELS / (width * height)))),
            skip_system_fonts=True,
            font_files=[str(path) for path in sorted(FONTS.glob("*.ttf"))],
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
            monospace_family="DejaVu Sans Mono",
        )
        file = io.BytesIO()  # a palette: half the size, and no difference that one would see
        Image.open(io.BytesIO(bytes(large))).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "png")
        return file.getvalue()

    def bundle(self) -> tuple[dict, dict]:
        """The picture as what `_repr_mimebundle_` returns: data, and the alternative text as metadata.

        >>> Picture(svg, "a graph").bundle()[1]
        {'image/png': {'alt': 'a graph'}}
        """
        return {"image/png": base64.b64encode(self.png()).decode()}, {"image/png": {"alt": self.alt}}

    def tag(self, png: str) -> str:
        """An `<img>` that survives where strangers' HTML is cleaned: `png`, in base64; the drawing itself elsewhere.

        >>> Picture(svg, "a graph").tag(png)[:4]
        '<img'
        """
        drawn = base64.b64encode(self.svg.encode()).decode()
        return (
            f'<img alt="{html.escape(self.alt)}" style="max-width:100%;height:auto" src="data:image/png;base64,{png}" '
            f'srcset="data:image/svg+xml;base64,{drawn}">'
        )


def _drawable(text: str) -> str:
    """The text with a box for each sign that the fonts lack, so that it is seen that something stands there."""
    return re.sub(r"[^\x20-\x7e\n]", lambda match: match[0] if _covered(ord(match[0])) else BOX, text)


def _covered(sign: int) -> bool:
    starts, ends = _ranges()
    at = bisect_right(starts, sign) - 1
    return at >= 0 and sign <= ends[at]


@cache
def _ranges() -> tuple[list[int], list[int]]:
    """Firsts and lasts of the runs of signs that all fonts for running text have."""
    pairs = json.loads((FONTS / "covers.json").read_text(encoding="utf-8"))
    return [first for first, _ in pairs], [last for _, last in pairs]
