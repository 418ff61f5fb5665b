"""A text whose tokens are coloured by a number each, with more to read where the pointer rests."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2

from .colours import shade
from .picture import Picture
from .sheet import Run, Sheet, quiet

_TEMPLATE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
    (Path(__file__).parent / "token_strip.html").read_text(encoding="utf-8")
)
LARGEST_OPACITY = 0.65  # of the colour of the largest value: black text stays readable on it


class TokenStrip:
    """A text in colours, shown by a notebook: blue above zero, orange and underlined below.

    values: a number for each token, None or NaN for none. tips: for each token, lines of text that are shown at the
    pointer. title and note stand above and below. The largest absolute value, or `limit`, has the deepest colour.

    >>> TokenStrip([" Dallas", " is"], [0.8, -0.1], title="towards Austin")
    TokenStrip(' Dallas is')
    """

    def __init__(
        self,
        tokens: Iterable[str],
        values: Iterable[float | None],
        tips: Sequence[str] | None = None,
        title: str = "",
        note: str = "",
        limit: float | None = None,
    ) -> None:
        self.tokens = list(tokens)
        self.values = [0.0 if value is None or value != value else float(value) for value in values]
        self.tips = list(tips) if tips is not None else [f"{value:.3g}" for value in self.values]
        self.title, self.note = title, note
        self.limit = limit or max(map(abs, self.values), default=0) or 1.0

    def _repr_html_(self) -> str:
        cells = [(text, colour, tip, below) for (text, colour, below), tip in zip(self._cells(), self.tips)]
        return _TEMPLATE.render(title=self.title, cells=cells, note=self.note)

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        picture, metadata = self.picture().bundle()
        return {"text/html": self._repr_html_(), "text/plain": repr(self), **picture}, metadata

    def picture(self) -> Picture:
        """The text in colours, drawn."""
        about = f"{self.title or 'a text in colours'}: {''.join(self.tokens)}"
        sheet = Sheet(about, width=860)
        if self.title:
            sheet.flow([Run(self.title, bold=True)])
        sheet.flow(Run(text, colour, underlined=below) for text, colour, below in self._cells())
        if self.note:
            sheet.gap()
            sheet.flow([quiet(self.note)], size=11)
        return Picture(sheet.finished(), about)

    def _cells(self) -> list[tuple[str, str, bool]]:
        """(text, colour, is it below zero) of each token."""
        texts = [token.replace("\n", "↵\n") for token in self.tokens]  # a line break is seen, and breaks the line
        colours = [shade(value, min(abs(value / self.limit), 1) * LARGEST_OPACITY) for value in self.values]
        return list(zip(texts, colours, [value < 0 for value in self.values]))

    def __repr__(self) -> str:
        return f"TokenStrip({''.join(self.tokens)!r})"
