"""A page of text as a drawing: words on coloured ground, bars, and lines between; the picture of cards and strips."""

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from .colours import BLUE, ORANGE
from .plain_text import UNSEEN
from .svg import INK, LINE, MONO, QUIET, add, drawing, finished, write

LETTER = 0.602  # width of a letter of the monospaced font, in font sizes
LEADING = 1.55  # from line to line, in font sizes
MARGIN = 10
MOST_LINES = 80  # a picture that is longer than a screen or two shows nothing more


class Run(NamedTuple):
    """Words of one look. ground: a CSS colour behind them, or ""."""

    text: str
    ground: str = ""
    ink: str = INK
    bold: bool = False
    underlined: bool = False


class Sheet:
    """A page that is filled from top to bottom.

    >>> sheet = Sheet("a text in colours")
    >>> sheet.flow([Run(" Dallas", ground="rgba(0,114,178,0.50)")])
    >>> sheet.finished()[:4]
    '<svg'
    """

    def __init__(self, about: str, width: float = 760) -> None:
        self.about, self.width, self.y, self.lines = about, width, float(MARGIN), 0
        self.svg = drawing(width, 0, about)

    def flow(self, runs: Iterable[Run], size: float = 12.5) -> None:
        """Words from left to right, on as many lines as they need. A line break in a run breaks the line."""
        x, room = float(MARGIN), self.width - MARGIN
        for run in runs:
            for number, part in enumerate(run.text.split("\n")):
                if number:
                    x = self._next_line(size)
                while part and self.lines < MOST_LINES:
                    fits = _fitting(part, (room - x) / (LETTER * size), x == MARGIN)
                    if not fits:
                        x = self._next_line(size)
                        continue
                    self._put(x, run, part[:fits], size)
                    x, part = x + _letters(part[:fits]) * LETTER * size, part[fits:]
        self._next_line(size)

    def bars(self, heights: Iterable[float]) -> None:
        """A histogram; heights in percent."""
        for i, height in enumerate(heights):
            tall = 0.44 * height
            add(self.svg, "rect", x=MARGIN + 11 * i, y=self.y + 44 - tall, width=10, height=tall, fill=BLUE)
        self.y += 52

    def gap(self, height: float = 6) -> None:
        """Leaves some room."""
        self.y += height

    def rule(self) -> None:
        """A thin line across."""
        add(self.svg, "line", x1=MARGIN, x2=self.width - MARGIN, y1=self.y, y2=self.y, stroke=LINE)
        self.y += 4

    def finished(self) -> str:
        """The page as text, as high as it was filled."""
        height = self.y + MARGIN
        self.svg.set("height", f"{height:.0f}")
        self.svg.set("viewBox", f"0 0 {self.width:.0f} {height:.0f}")
        return finished(self.svg)

    def _next_line(self, size: float) -> float:
        self.y, self.lines = self.y + LEADING * size, self.lines + 1
        if self.lines == MOST_LINES:
            write(self.svg, MARGIN, self.y + size, "…", size)
        return MARGIN

    def _put(self, x: float, run: Run, text: str, size: float) -> None:
        width, base = _letters(text) * LETTER * size, self.y + 1.1 * size
        if run.ground:
            add(self.svg, "rect", x=x, y=self.y, width=width, height=LEADING * size - 1, fill=run.ground, rx=2)
        if run.underlined:
            line = {"stroke": ORANGE, "stroke_width": 1.5, "stroke_dasharray": "4 2"}
            add(self.svg, "line", x1=x, x2=x + width, y1=base + 3, y2=base + 3, **line)
        look = {"font_weight": "bold"} if run.bold else {}
        element = add(self.svg, "text", x=x, y=base, font_size=size, fill=run.ink, font_family=MONO, **look)
        element.set("xml:space", "preserve")
        element.text = _seen(text)


def quiet(text: str) -> Run:
    """Words in grey.

    >>> quiet("layer").ink
    '#5b6673'
    """
    return Run(text, ink=QUIET)


def _seen(text: str) -> str:
    """Inside a text blanks stay blanks; what cannot be seen becomes a sign."""
    return UNSEEN.sub("�", text.replace("\t", "⇥"))


def _letters(text: str) -> int:
    """How many letters wide a text is: marks that sit on a letter take no room."""
    return sum(not unicodedata.combining(letter) for letter in text)


def _fitting(text: str, room: float, whole_line: bool) -> int:
    """How many letters fit: all, or as far as the last blank, or on a line of its own as many as there is room for."""
    if _letters(text) <= room:
        return len(text)
    blank = text.rfind(" ", 0, max(int(room), 0) + 1)
    return blank + 1 if blank > 0 else max(int(room), 1) if whole_line else 0
