"""How a run is going: a progress bar, and in a notebook a chart that is redrawn while it trains."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from IPython import get_ipython
from IPython.display import display

from ...widgets.progress import ProgressBar

if TYPE_CHECKING:
    from ...widgets.chart import Chart

REDRAW_SECONDS = 2.0
COLOURS = {"NMSE": "#0072B2", "L0": "#D55E00", "dead": "#555555"}  # told apart by colour-blind readers too

History = Sequence[Mapping[str, float]]


class Progress:
    """Shows the lines of a run's history (step, loss, NMSE, L0, dead) as they come; silent where `shown` is False."""

    def __init__(self, steps: int, done: int, shown: bool = True):
        self.bar = ProgressBar(total=steps, initial=done, desc="transcoder", mininterval=1, disable=not shown)
        self.chart = None
        self.live = shown and hasattr(get_ipython(), "kernel")
        self.drawn = time.monotonic()

    def update(self, history: History) -> None:
        """Moves the bar to the last line, and redraws the chart where that was some time ago."""
        line = history[-1]
        self.bar.n = line["step"]
        self.bar.set_postfix(loss=f"{line['loss']:.4f}", L0=f"{line['L0']:.1f}", dead=f"{line['dead']:.0%}")
        if self.live and time.monotonic() - self.drawn > REDRAW_SECONDS:
            self.draw(history)

    def draw(self, history: History, done: bool = False) -> None:
        """Draws the chart, in place of the last one: a picture while it grows, plotly's chart when it is done."""
        from ...widgets.chart import Snapshot

        figure = curves(pd.DataFrame(history))
        figure = figure if done else Snapshot(figure)
        if self.chart is None:
            self.chart = display(figure, display_id=True)
        else:
            self.chart.update(figure)
        self.drawn = time.monotonic()

    def close(self, history: History, message: str | None = None) -> None:
        """Draws the whole history, and writes the message, if any, above the bar."""
        if self.chart is not None:
            self.draw(history, done=True)
        if message:
            self.bar.write(message)
        self.bar.close()


def curves(history: pd.DataFrame) -> "Chart":
    """A plotly figure of NMSE, L0 and dead share over the steps."""
    from ...widgets.chart import panels

    titles = ("unexplained (NMSE)", "features on (L0, a layer)", "dead features")
    figure = panels(1, 3, titles)
    for column, (name, colour) in enumerate(COLOURS.items(), 1):
        figure.add_scatter(
            x=history["step"], y=history[name], mode="lines", line_color=colour, showlegend=False, row=1, col=column
        )
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", row=1, col=3)
    figure.update_xaxes(title="step")
    return figure.update_layout(template="plotly_white", height=300, margin={"t": 40, "b": 40})
