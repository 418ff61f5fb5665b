"""Progress bars: in a terminal as tqdm's, in a notebook's kernel one line, which goes when the work is done."""

import io
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from interp_kit.widgets import progress
from interp_kit.widgets.plain_text import printable
from interp_kit.widgets.progress import ProgressBar, in_kernel


@pytest.fixture
def kernel(monkeypatch):
    """As in a kernel: for each display what it showed, one after the other."""
    shown = []

    def display(data, raw, display_id):
        shown.append([data])
        return SimpleNamespace(update=lambda data, raw: shown[-1].append(data))

    monkeypatch.setattr(progress, "in_kernel", lambda: True)
    monkeypatch.setattr(progress, "display", display)
    monkeypatch.setattr(progress, "DELAY", 0)
    return shown


def test_one_line_is_redrawn_and_goes(kernel, capsys):
    assert list(ProgressBar(range(3), desc="reading", leave=False, mininterval=0)) == [0, 1, 2]
    (bar,) = kernel
    assert "reading" in bar[0]["text/plain"] and "2/3" in str(bar)
    assert bar[-1] == {"text/plain": "", "text/html": ""}
    assert capsys.readouterr() == ("", "")


def test_a_bar_that_should_stay_stays(kernel):
    list(ProgressBar(range(3), desc="reading"))
    assert "3/3" in kernel[0][-1]["text/plain"]


def test_short_work_shows_nothing(kernel, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 60)
    list(ProgressBar(range(3), desc="reading"))
    assert kernel == []


def test_a_bar_that_is_off_shows_nothing(kernel, capsys):
    list(ProgressBar(range(3), disable=True))
    assert kernel == [] and capsys.readouterr() == ("", "")


def test_a_terminal_gets_the_bar_of_tqdm():
    file = io.StringIO()
    with ProgressBar(total=2, desc="reading", file=file) as bar:
        bar.update(2)
    assert "reading: 100%" in file.getvalue() and not in_kernel()


@pytest.mark.parametrize("evil", ["\x1b]8;;http://evil\x07link", "\x9b31m", "a\rb", "\u202etxt"])
def test_a_file_name_cannot_steer_the_terminal(evil, kernel):
    file = io.StringIO()
    progress.in_kernel = lambda: False
    with ProgressBar(total=1, desc=f"Converting {evil}", file=file) as bar:
        bar.set_postfix_str(evil)
    assert printable(evil) in file.getvalue() and evil not in file.getvalue()
    progress.in_kernel = lambda: True
    list(ProgressBar(range(1), desc=f"{evil}<script>"))
    page = kernel[0][0]["text/html"]
    assert evil not in page and "<script" not in page and "&lt;script" in page


def test_printable_keeps_what_can_be_seen():
    assert printable("é 日本\n\tb") == "é 日本\n\tb"
    assert printable("\x1b\x00\x7f\u202e\ud800") == r"\x1b\x00\x7f\u202e\ud800"


def test_in_a_real_kernel_one_chart_stays_and_no_bar():
    """A long training, as nbclient and nbconvert run it: a bar that stays, one chart, nothing on stderr."""
    code = """
        import sys, time
        from interp_kit.transcoders.training import progress
        from interp_kit.widgets.progress import ProgressBar
        progress.REDRAW_SECONDS = 0.0
        for _ in ProgressBar(range(3), desc="gone", leave=False, mininterval=0):
            time.sleep(0.4)
        shown, history = progress.Progress(30, 0), []
        for step in range(1, 6):
            history.append({"step": step, "tokens": 1, "loss": 1 / step, "NMSE": 1 / step, "L0": 2.0, "dead": 0.1})
            shown.update(history)
        time.sleep(0.6)
        shown.close(history, "stopped")
    """
    lines = [line.removeprefix("        ") for line in code.strip("\n").splitlines()]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    assert not [output for output in outputs if output.get("name") == "stderr"]
    charts = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(charts) == 1 and "application/vnd.plotly.v1+json" in charts[0].data  # live when it is done
    gone, bar = (output.data for output in outputs if "image/png" not in output.get("data", {"image/png": 0}))
    assert gone == {"text/plain": "", "text/html": ""} and "transcoder" in bar["text/plain"]
    assert "widget-view" not in str(outputs) and len(outputs) == 4
