"""Long work in a real JupyterLab: one chart, redrawn in its place, and no bar or widget left behind."""

from pathlib import Path

import nbformat
from lab_server import jupyterlab, run_notebook

import interp_kit

CELL = """import sys, time
sys.path.insert(0, {repository!r})
from interp_kit.transcoders.training import progress
from interp_kit.widgets.progress import ProgressBar
progress.REDRAW_SECONDS = 0.0
for _ in ProgressBar(range(4), desc="gone", leave=False, mininterval=0):
    time.sleep(0.3)
shown, history = progress.Progress(8, 0), []
for step in range(1, 9):
    history.append(dict(step=step, tokens=1, loss=1 / step, NMSE=1 / step, L0=2.0, dead=0.1))
    shown.update(history)
    time.sleep(0.4)
shown.close(history)"""
# How many charts stand in the notebook, and how many pictures of one were seen.
WATCH = """() => {
  window.most = 0; window.drawn = new Set();
  setInterval(() => {
    const charts = [...document.querySelectorAll('.jp-OutputArea img')].filter(image => image.src);
    window.most = Math.max(window.most, charts.length);
    for (const chart of charts) window.drawn.add(chart.src.length + chart.src.slice(-400, -200));
  }, 50);
}"""


def test_one_chart_is_redrawn(tmp_path, page):
    repository = str(Path(interp_kit.__file__).parents[1])
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [nbformat.v4.new_code_cell(CELL.format(repository=repository))]
    nbformat.write(book, tmp_path / "work.ipynb")
    page.add_init_script(f"({WATCH})()")
    with jupyterlab(tmp_path) as base:
        assert run_notebook(page, base, "work.ipynb") == []
        page.locator(".jp-RenderedPlotly .plot-img").wait_for()
        assert page.evaluate("most") == 1, "charts stood side by side"
        assert page.evaluate("drawn.size") >= 4, "the chart was not redrawn"
        assert page.locator(".jp-OutputArea-child img").count() == 1
        assert page.get_by_text("transcoder: 100%").count() == 1 and page.get_by_text("gone").count() <= 1  # the code
        assert page.locator(".jp-OutputArea .jupyter-widgets, [data-mime-type*=stderr]").count() == 0
