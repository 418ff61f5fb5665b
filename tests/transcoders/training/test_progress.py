"""The bar says how it goes; in a notebook a chart is drawn once and then redrawn in place."""

from types import SimpleNamespace

import pandas as pd
import pytest
from tiny import tiny_model

import interp_kit as ik
from interp_kit.transcoders.training import progress
from interp_kit.transcoders.training.progress import Progress, curves

LINES = [
    {"step": 25 * i, "tokens": 100 * i, "loss": 1 / i, "NMSE": 1 / i, "L0": 8.0, "dead": 0.01 * i} for i in range(1, 5)
]
TEXTS = ["the capital of Texas is Austin .", "Dallas is a city"] * 20


@pytest.fixture
def notebook(monkeypatch):
    """As in a kernel: what is displayed, and what it is changed to."""
    shown = []

    def display(figure, display_id):
        shown.append([figure])
        return SimpleNamespace(update=shown[-1].append)

    monkeypatch.setattr(progress, "get_ipython", lambda: SimpleNamespace(kernel=True))
    monkeypatch.setattr(progress, "display", display)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    return shown


def test_one_chart_is_redrawn_in_place(notebook):
    run = ik.train_transcoder(tiny_model(), TEXTS, n_features=48, k=5, steps=100, batch=64)
    (chart,) = notebook
    assert len(chart) >= 4  # at each line of history
    points = [len(figure.data[0].x) for figure in chart]
    assert points == sorted(points) and points[-1] == len(run.history)


def test_no_chart_outside_a_notebook(monkeypatch):
    monkeypatch.setattr(progress, "display", None)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    ik.train_transcoder(tiny_model(), TEXTS, n_features=48, k=5, steps=30, batch=64)


def test_only_the_first_process_shows_anything(notebook, capsys):
    shown = Progress(100, 0, shown=False)
    shown.update(LINES)
    shown.close(LINES)
    assert not notebook and not capsys.readouterr().err


def test_the_bar_names_loss_l0_dead_share_and_time_left(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # on a narrow terminal the line is cut
    bar = Progress(100, 0)
    bar.update(LINES[:1])
    bar.bar.refresh()
    bar.close(LINES[:1])
    text = capsys.readouterr().err
    assert all(part in text for part in ("loss=1.0000", "L0=8.0", "dead=1%", "25/100", "<"))


def test_the_curves_are_the_history():
    figure = curves(pd.DataFrame(LINES))
    for trace, name in zip(figure.data, ("NMSE", "L0", "dead"), strict=True):
        assert list(trace.y) == [line[name] for line in LINES]
    run = ik.train_transcoder(tiny_model(), TEXTS, n_features=48, k=5, steps=50, batch=64)
    assert len(run.show().data[0].x) == 2 and "CrossLayerTranscoder" in run._repr_html_()
