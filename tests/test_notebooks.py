"""Every lesson runs from a clean kernel in its time, is committed clean, and keeps the form of the course.

`docs/lessons.py` runs each once, with the checks of tests/lessons/; the documentation shows the same copies.
"""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from docs import lessons
from docs.lessons import LESSONS, LIVE_VIEW, executed

# The lesson a visitor reads first, on GitHub and without a kernel, may show its outputs.
WITH_OUTPUTS = [path for path in LESSONS if path.name.startswith("00_")]

SECONDS_A_LESSON = 150  # the longest, one that trains; side by side with another, a core computes more slowly
SECONDS_FOR_ALL = 720
KERNEL_MB = 1500  # of Binder's 2,000, which JupyterLab's server and the system's copies of files need a part of
ROWS, COLUMNS = 10, 80  # of a code cell

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
seconds_spent: dict[str, float] = {}


def cells(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_there_are_lessons():
    assert LESSONS


@each_lesson
def test_runs_within_its_time(path):
    """Processor seconds of the kernel on one thread, not wall time: the limit holds on a busy machine too."""
    seconds_spent[path.stem] = executed(path).metadata.interp_kit.seconds
    assert seconds_spent[path.stem] < SECONDS_A_LESSON


@each_lesson
def test_warns_of_nothing(path):
    """Nothing at all on stderr, whoever writes it there. A lesson's progress bars are displays."""
    outputs = [output for cell in executed(path).cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


@each_lesson
def test_reaches_nobody(path):
    """No connection but within this machine, and none tried."""
    assert not executed(path).metadata.interp_kit.network


@each_lesson
def test_fits_into_what_binder_gives(path):
    """The kernel and its processes. (tests/test_binder.py runs them under Binder's limit.)"""
    assert executed(path).metadata.interp_kit.megabytes <= KERNEL_MB


def test_an_attempt_to_reach_out_is_seen(tmp_path):
    source = "import socket\ntry: socket.create_connection(('example.org', 80))\nexcept OSError as error: print(error)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    ran = lessons._run(notebook, tmp_path / "no checks")
    assert "the tests have no network" in notebook.cells[0].outputs[0].text
    assert "example.org" in ran["network"] and 20 < ran["megabytes"] < 200


@pytest.mark.parametrize(
    "source",
    [
        "import warnings; warnings.warn('old', FutureWarning)",
        "import logging; logging.getLogger('any.library').warning('old')",
        "import os; os.write(2, b'past Python')",
        "import subprocess; subprocess.run('echo a child >&2', shell=True)",
        "import warnings; warnings.warn_explicit('old', DeprecationWarning, 'f.py', 1, module='interp_kit.a.b')",
    ],
)
def test_whatever_writes_to_stderr_is_seen(source, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "loud.ipynb")
    lessons._run(notebook, tmp_path / "no checks")
    assert [output.name for output in notebook.cells[0].outputs if output.output_type == "stream"] == ["stderr"]


def test_all_run_within_twelve_minutes():
    """Adds up what ran above, so it holds for a selection of lessons too."""
    assert sum(seconds_spent.values()) < SECONDS_FOR_ALL, seconds_spent


@each_lesson
def test_is_committed_clean(path):
    notebook = nbformat.read(path, as_version=4)
    # Saved widgets weigh megabytes and show nothing without a kernel; the picture that each left does.
    assert not notebook.metadata.get("widgets")
    if path not in WITH_OUTPUTS:
        command = [sys.executable, "-m", "nbstripout", "--verify", path]
        out = subprocess.run(command, capture_output=True, text=True)
        assert out.returncode == 0, f"run nbstripout on it: {out.stdout}"
        return
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
    kinds = [set(output.get("data", {})) for cell in notebook.cells for output in cell.get("outputs", [])]
    # A graph and a chart, and neither needs a script to be seen.
    assert {"image/png", "text/html"} in [kind - {"text/plain"} for kind in kinds]
    assert all("image/png" in kind for kind in kinds if "application/vnd.plotly.v1+json" in kind)


@each_lesson
def test_first_cell_says_what_and_how_long(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and re.match(r"# \S", first.source)
    assert re.search(r"\d+\s*min", first.source)


@each_lesson
def test_code_cells_are_small(path):
    for source in cells(path, "code"):
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) <= ROWS, source
        assert max(map(len, lines), default=0) <= COLUMNS, source


@each_lesson
def test_whatever_lives_leaves_a_picture(path):
    """A page made of the lesson, on GitHub or by nbconvert, has neither plotly nor a kernel."""
    outputs = [output.get("data", {}) for cell in executed(path).cells for output in cell.get("outputs", [])]
    for before, data in zip([{}, *outputs], outputs):
        assert "application/vnd.plotly.v1+json" not in data or "image/png" in data
        assert LIVE_VIEW not in data or "image/png" in before  # beside each live view stands its picture


@each_lesson
def test_styled_tables_escape_their_labels(path):
    """Pandas escapes a plain table, and not a styled one: a row called <bos> would have no name."""
    for source in cells(path, "code"):
        assert ".style" not in source or 'format_index(escape="html")' in source, source
        assert "escape=False" not in source and "HTML(" not in source, source


@each_lesson
def test_every_image_has_alt_text(path):
    for source in cells(path, "markdown"):
        without = re.findall(r"!\[\s*\][(\[].*", source)
        tags = re.findall(r"<img\b[^>]*>", source)
        without += [tag for tag in tags if not re.search(r"\balt=(['\"])\s*\w", tag)]
        assert not without
