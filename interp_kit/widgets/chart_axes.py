"""The axes of a drawn chart: which numbers or names go where, and which of them are written beside it."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from .chart_values import Part

TICKS = 7  # about so many on an axis of numbers


class Axis:
    """One axis of a plotly figure: `place` puts a value between 0, the start, and 1, the end.

    layout: of the axis, from the figure. values: all that is drawn along it. padding: in shares of the range, beyond
    the values; half the room of one name on an axis of names. from_zero: whether 0 is in the range.
    """

    def __init__(self, layout: Part, values: Iterable[Part], padding: float = 0.05, from_zero: bool = False) -> None:
        self.layout, values = layout, [value for value in values if value is not None]
        self.names = _names(values, layout)
        self.log = layout.type == "log"
        low, high = self._range(values, padding, from_zero or layout.rangemode == "tozero")
        self.start, self.end = (high, low) if str(layout.autorange or "").startswith("reversed") else (low, high)

    def place(self, value: Part) -> float:
        """Where a value lies, from 0 to 1; NaN where it lies nowhere."""
        return (self.number(value) - self.start) / (self.end - self.start)

    def number(self, value: Part) -> float:
        """A value as the number that is measured along the axis: its logarithm, or its place among names."""
        if self.names is not None:
            return self.names.get(value, math.nan) if isinstance(value, str) else float(value)
        value = float(value)
        return value if not self.log else math.log10(value) if value > 0 else math.nan

    def ticks(self, room: float) -> list[tuple[float, str]]:
        """[(place, what is written there)]. room: for how many names there is room."""
        low, high = sorted((self.start, self.end))
        if self.names is not None:
            step = max(1, math.ceil(len(self.names) / max(room, 1)))
            pairs = [(float(i), name) for name, i in self.names.items() if i % step == 0]
        elif self.layout.tickvals is not None:
            texts = self.layout.ticktext or [self._written(value) for value in self.layout.tickvals]
            pairs = [(self.number(value), str(text)) for value, text in zip(self.layout.tickvals, texts)]
        elif self.log:
            pairs = [(math.log10(value), self._written(value)) for value in _decades(low, high)]
        else:
            step = self.layout.dtick if isinstance(self.layout.dtick, (int, float)) else nice_step(high - low)
            step *= max(1, math.ceil((high - low) / step / max(room, 1)))
            pairs = [(value, self._written(value)) for value in _multiples(low, high, step)]
        return [((at - self.start) / (self.end - self.start), text) for at, text in pairs if low <= at <= high]

    def _range(self, values: Sequence[Part], padding: float, from_zero: bool) -> tuple[float, float]:
        if self.layout.range is not None:
            return float(self.layout.range[0]), float(self.layout.range[1])
        if self.names is not None:
            return -0.5, max(len(self.names), 1) - 0.5
        numbers = np.array([self.number(value) for value in values] + [0.0] * (from_zero and not self.log), float)
        numbers = numbers[np.isfinite(numbers)]
        low, high = (numbers.min(), numbers.max()) if len(numbers) else (0.0, 1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        room = padding * (high - low)
        return float(low - room * (not from_zero or low < 0)), float(high + room * (not from_zero or high > 0))

    def _written(self, value: float) -> str:
        return written(value, self.layout.tickformat)


def written(value: float, format: str | None = None) -> str:
    """A number as plotly writes it, in a format of d3's such as ".0%".

    >>> written(0.25, ".0%")
    '25%'
    """
    value = 0.0 if abs(value) < 1e-12 else value
    try:
        text = f"{value:{(format or '.6g').lstrip('~')}}"
    except ValueError:  # d3 has formats that Python does not have
        text = f"{value:.6g}"
    return text.replace("-", "−")


def nice_step(length: float) -> float:
    """1, 2 or 5 times a power of ten, so that about `TICKS` steps make `length`.

    >>> nice_step(1.1)
    0.2
    """
    rough = max(length, 1e-300) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def _names(values: Sequence[Part], layout: Part) -> dict[str, int] | None:
    """{name: place} where what is drawn are names: texts that are no numbers."""
    texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    if layout.type != "category" and (not texts or all(_is_number(text) for text in texts)):
        return None
    every = list(dict.fromkeys(str(value) for value in values))
    return {name: i for i, name in enumerate(every)}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _multiples(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, first + 200) if i * step <= high + 1e-9 * step]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten, and twice and five times them where there are few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    parts = (1,) if len(powers) > 4 else (1, 2, 5)
    return [part * 10.0**power for power in powers for part in parts]
