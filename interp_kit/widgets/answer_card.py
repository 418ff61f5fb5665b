"""What became of an answer: a sentence or two, and what was given beside what was expected."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from .colours import shade
from .picture import Picture
from .plain_text import UNSEEN
from .sheet import Run, Sheet

_TEMPLATE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
    (Path(__file__).parent / "answer_card.html").read_text(encoding="utf-8")
)
LARGEST_OPACITY = 0.5  # of the colour of the largest number: black text stays readable on it
CLOSE = 1e-4  # of the largest number: a cell that differs by less is not marked
MOST_ROWS = 24
MOST_COLUMNS = 12

Rows = Sequence[Sequence[object]]


class AnswerCard:
    """A card with a mark, lines of text and small tables side by side, shown by a notebook.

    tables: by their captions, the first beside the last: in the first, the cells that differ are marked.

    >>> AnswerCard("topk: not yet", False, ["Trial 1 of 6."], {"yours": [[1.0, 0.0]], "expected": [[1.0, 2.0]]})
    AnswerCard(topk: not yet)
    """

    def __init__(self, title: str, good: bool, lines: Sequence[str], tables: Mapping[str, Rows]) -> None:
        self.title, self.good, self.lines = _seen(title), good, [_seen(line) for line in lines]
        shown = {
            _shown(caption, rows): [row[:MOST_COLUMNS] for row in rows[:MOST_ROWS]] for caption, rows in tables.items()
        }
        values = [value for rows in shown.values() for row in rows for value in row]
        self._largest = max([abs(v) for v in values if isinstance(v, float) and math.isfinite(v)], default=0) or 1.0
        last = list(shown.values())[-1] if shown else []
        self.tables = [
            (caption, [[self._cell(value, i, j, last) for j, value in enumerate(row)] for i, row in enumerate(rows)])
            for caption, rows in shown.items()
        ]

    def _cell(self, value: object, i: int, j: int, last: Rows) -> tuple[str, str, bool]:
        """(text, colour, whether the last table has another value in its place, or none)."""
        there = last[i][j] if i < len(last) and j < len(last[i]) else None
        if not isinstance(value, float):
            return _seen(str(value)), "transparent", value != there
        size = min(abs(value) / self._largest, 1) if math.isfinite(value) else 0
        same = isinstance(there, float) and abs(value - there) <= CLOSE * self._largest
        return f"{value:.3g}", shade(value, size * LARGEST_OPACITY), not same

    def _repr_html_(self) -> str:
        return _TEMPLATE.render(title=self.title, good=self.good, lines=self.lines, tables=self.tables)

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        picture, metadata = self.picture().bundle()
        return {"text/html": self._repr_html_(), "text/plain": repr(self), **picture}, metadata

    def picture(self) -> Picture:
        """The card, drawn."""
        sheet = Sheet(" ".join([self.title, *self.lines]), width=860)
        sheet.flow([Run(f"{'+' if self.good else 'x'} {self.title}", bold=True)])
        for line in self.lines:
            sheet.flow([Run(line)])
        for caption, rows in self.tables:
            sheet.gap()
            sheet.flow([Run(caption, bold=True)])
            for row in rows:
                sheet.flow(Run(f"{text:>8} ", colour, underlined=differs) for text, colour, differs in row)
        return Picture(sheet.finished(), sheet.about)

    def __repr__(self) -> str:
        return f"AnswerCard({self.title})"


def _shown(caption: str, rows: Rows) -> str:
    """The caption, which says so where a table is cut."""
    n_rows, n_columns = len(rows), max(map(len, rows), default=0)
    cut = n_rows > MOST_ROWS or n_columns > MOST_COLUMNS
    return _seen(caption) + (f", the beginning of {n_rows} x {n_columns}" if cut else "")


def _seen(text: str) -> str:
    return UNSEEN.sub("�", text)
