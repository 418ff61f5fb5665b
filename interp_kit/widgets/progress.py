"""A progress bar: in a terminal tqdm's own, in a notebook one line that is redrawn, and gone when the work is done.

tqdm's bar for notebooks is a widget: a saved notebook or an exported page says "Error displaying widget" in its place,
and without ipywidgets it writes a red warning into every cell.
"""

import html
import sys

import tqdm.std
from IPython.display import display

from .plain_text import printable

DELAY = 0.5  # seconds that work takes before a notebook shows a bar


class Nowhere:
    """A file that keeps nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """As if it were written.

        >>> Nowhere().write("a line")
        6
        """
        return len(text)

    def flush(self) -> None:
        """There is nothing to be written."""


class ProgressBar(tqdm.std.tqdm):
    """tqdm's bar, with its arguments; in a notebook's kernel it is shown by a display of its own.

    Nothing of it goes to stderr there, and with `leave=False` nothing stays in the notebook.

    >>> for text in ProgressBar(texts, desc="reading", leave=False): ...
    """

    def __init__(self, *args: object, delay: float = 0, **options: object) -> None:
        self._shown, self._in_notebook = None, in_kernel()
        if self._in_notebook:
            options, delay = {"file": Nowhere(), "ncols": 90, **options}, max(delay, DELAY)
        super().__init__(*args, delay=delay, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draws the bar as it is now, or `msg` in its place."""
        if not self._in_notebook:
            return super().display(msg, pos)
        text = str(self) if msg is None else printable(msg)
        data = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>" if text else ""}
        if self._shown is None:
            self._shown = display(data, raw=True, display_id=True)
        else:
            self._shown.update(data, raw=True)

    def __str__(self) -> str:
        return printable(super().__str__())


def in_kernel() -> bool:
    """Whether a notebook's kernel runs this.

    >>> in_kernel()
    False
    """
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython() if ipython else None, "kernel")
