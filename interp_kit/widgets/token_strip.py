"""A text whose tokens are coloured by a number each, with more to read where the pointer rests."""

from pathlib import Path

import jinja2

_TEMPLATE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
    (Path(__file__).parent / "token_strip.html").read_text(encoding="utf-8")
)
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # above 0, below 0; tokens below are underlined as well
DEEPEST = 0.65  # opacity of the largest value: black text stays readable on it


class TokenStrip:
    """tokens: texts; values: a number for each, None or NaN for none; tips: what is shown at the pointer, lines of
    text.

    The largest absolute value, or `limit`, has the deepest colour. title and note stand above and below.
    """

    def __init__(self, tokens, values, tips=None, title="", note="", limit=None):
        self.tokens = list(tokens)
        self.values = [0.0 if value is None or value != value else float(value) for value in values]
        self.tips = list(tips) if tips is not None else [f"{value:.3g}" for value in self.values]
        self.title, self.note = title, note
        self.limit = limit or max(map(abs, self.values), default=0) or 1.0

    def _repr_html_(self) -> str:
        cells = [
            (_visible(token), _colour(value / self.limit), tip, value < 0)
            for token, value, tip in zip(self.tokens, self.values, self.tips)
        ]
        return _TEMPLATE.render(title=self.title, cells=cells, note=self.note)

    def __repr__(self):
        return f"TokenStrip({''.join(self.tokens)!r})"


def _colour(share):
    r, g, b = BLUE if share >= 0 else ORANGE
    return f"rgba({r},{g},{b},{min(abs(share), 1) * DEEPEST:.2f})"


def _visible(token):
    """A line break is seen as a sign, and breaks the line."""
    return token.replace("\n", "↵\n")
