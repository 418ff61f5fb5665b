"""The kit's two colours, told apart by readers who do not see red and green: blue adds, orange takes away."""

BLUE, ORANGE = "#0072B2", "#D55E00"


def shade(value: float, opacity: float) -> str:
    """The colour of `value`'s sign as CSS, see-through by `opacity` (0 to 1), so that text on it stays readable.

    >>> shade(-2.0, 0.5)
    'rgba(213,94,0,0.50)'
    """
    colour = BLUE if value >= 0 else ORANGE
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:.2f})"
