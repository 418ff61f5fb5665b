"""What is seen of a view where no kernel answers, nobody is trusted, or there is no JupyterLab at all."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from lab_server import jupyterlab, open_notebook, run_notebook, save_and_stop

import interp_kit

REPOSITORY = Path(interp_kit.__file__).parents[1]
VIEWS = [
    f"""import json, sys
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}, {str(REPOSITORY / "tests" / "widgets")!r}]
from fake_graph_data import fake_graph
from interp_kit.widgets import FeatureBrowser, GraphView
from interp_kit.widgets.attention_browser import AttentionBrowser
from interp_kit.widgets.chart import Chart
from interp_kit.widgets.heat_map import heat_map
from interp_kit.widgets.token_strip import TokenStrip
card = lambda layer, feature: dict(title=f"layer {{layer}}, feature {{feature}}", label="Texas")
draw = lambda layer, head, weighted: heat_map([[1, 0], [0, layer]], ["a", "b"], ["c", "d"], f"layer {{layer}}")""",
    "GraphView(fake_graph())",
    "FeatureBrowser([dict(layer=0, feature=i, label='Texas', search='') for i in range(9)], card)",
    "AttentionBrowser(draw, 3, 2)",
    "Chart().add_scatter(x=[0, 1], y=[0, 1], name='calibrated').update_layout(title='calibration')",
    "TokenStrip([' Dallas', ' is'], [0.8, -0.1])",
]
LIVE = VIEWS[1:4]  # they have a picture of their own, which hides while they live
# Pictures on the page and their widths, drawn or not.
WIDTHS = """() => [...document.images].filter(image => image.alt)
  .map(image => image.complete && image.naturalWidth ? image.getBoundingClientRect().width : 0)"""

TRUSTED = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.context.ready;
  const cells = [...panel.context.model.cells].filter(cell => cell.type === 'code');
  return [...new Set(cells.map(cell => cell.trusted))];
}"""


def notebook(folder, cells):
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(book, folder / "views.ipynb")
    return folder


def seen(page, least, wide=300):
    """Waits until so many pictures are at least so wide."""
    page.wait_for_function(f"() => ({WIDTHS})().filter(width => width >= {wide}).length >= {least}", timeout=60_000)
    return page.evaluate(WIDTHS)


def test_the_tour_shows_its_graph_untrusted_and_before_it_is_run(tmp_path, page):
    shutil.copy(REPOSITORY / "notebooks" / "00_tour.ipynb", tmp_path)
    with jupyterlab(tmp_path) as base:
        open_notebook(page, base, "00_tour.ipynb")
        assert page.evaluate(TRUSTED) == [False]
        page.locator(".jp-Notebook img").first.scroll_into_view_if_needed()
        assert max(seen(page, 1)) > 300
        alt = page.locator(".jp-Notebook img").first.get_attribute("alt")
        assert "Attribution graph" in alt and "Austin" in alt
        assert "modelnotfound" not in page.content().replace(" ", "")
        assert [url for url in page.blocked if "127.0.0.1" not in url] == []


def test_a_view_hides_its_picture_and_leaves_it_when_the_kernel_is_gone(tmp_path, page):
    page.set_viewport_size({"width": 1200, "height": 4000})
    with jupyterlab(notebook(tmp_path, VIEWS)) as base:
        assert run_notebook(page, base, "views.ipynb") == []
        page.locator(".ik-canvas .ik-node").first.wait_for(timeout=60_000)
        page.locator(".widget-select").first.wait_for()
        page.locator(".widget-output .gtitle").wait_for()
        assert not any(page.evaluate(WIDTHS)), "the live views stand alone"

        page.emulate_media(media="print")
        seen(page, len(LIVE))
        page.emulate_media(media="screen")

        save_and_stop(page)
        open_notebook(page, base, "views.ipynb")
        seen(page, len(LIVE))
        assert not page.get_by_text("model not found").first.is_visible()
        page.locator(".plot-img").hover(
            force=True
        )  # plotly's renderer shows our picture, and comes alive under the pointer
        page.locator(".jp-RenderedPlotly .gtitle").get_by_text("calibration").wait_for()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The notebook run and exported by nbconvert, as a page."""
    folder = notebook(tmp_path_factory.mktemp("exported"), VIEWS)
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "html", folder / "views.ipynb"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return folder / "views.html"


def test_an_exported_page_shows_every_view_without_the_network(exported, page):
    page.allowed = ("file:", "data:", "blob:", "about:")
    page.goto(exported.as_uri(), wait_until="domcontentloaded")
    seen(page, len(LIVE) + 1)  # the chart is a picture too
    assert page.get_by_text("Dallas").first.is_visible()
    assert all(page.evaluate("() => [...document.images].map(image => image.alt.length > 5)"))
