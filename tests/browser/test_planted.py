"""Planted markup in a browser: every view and exported page is opened, and nothing of it runs, links or asks."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import planted
import plotly.offline
import pytest
from lab_server import jupyterlab, run_notebook
from planted import RESULTS

import interp_kit
from interp_kit.widgets.chart import Chart

REPOSITORY = Path(interp_kit.__file__).parents[1]
CELLS = [
    f"""import sys
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}]
from IPython.display import display
import planted
from test_planted import charts
from interp_kit.widgets.progress import ProgressBar""",
    "for make in planted.RESULTS.values():\n    display(make())",
    "for make in planted.RESULTS.values():\n    for chart in charts(make()):\n        display(chart)",
    "import time\nfor _ in ProgressBar(range(4), desc=planted.EVIL, mininterval=0):\n    time.sleep(0.3)",
]
# What a stranger's text could leave behind: something that ran, a link, an element that is none of ours.
TRACES = """() => [
  window.planted ?? 'nothing ran',
  [...document.querySelectorAll('a')].map(a => a.getAttribute('href') ?? a.getAttribute('xlink:href') ?? '')
    .filter(href => /evil|javascript/.test(href)).length,
  document.querySelectorAll('planted, [onerror], [onload], iframe[src*=evil]').length,
]"""
NOTHING = ["nothing ran", 0, 0]


def asked(page):
    """What was asked of others than this machine."""
    return [url for url in page.blocked if "127.0.0.1" not in url]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    nbformat.write(book, folder / "planted.ipynb")
    return folder


def test_nothing_runs_on_a_page_of_all_views(tmp_path, page):
    """Without any cleaning, as an exported notebook shows them."""
    bundles = [make()._repr_mimebundle_()[0] for make in RESULTS.values() if hasattr(make(), "_repr_mimebundle_")]
    parts = [make()._repr_html_() for make in RESULTS.values() if getattr(make(), "_repr_html_", None)]
    parts += [bundle["text/html"] for bundle in bundles if "text/html" in bundle]
    shown = [
        make().show()
        for name, make in RESULTS.items()
        if hasattr(make(), "show") and name not in ("store", "attention")
    ]
    drawn = [json.dumps(chart.live()) for chart in shown if isinstance(chart, Chart)]
    calls = "".join(
        f"{{const [figure] = Object.values({figure}); const at = document.createElement('div');"
        "document.body.append(at); Plotly.newPlot(at, figure.data, figure.layout);}\n"
        for figure in (text.replace("</", "<\\/").replace("<!--", "<\\!--") for text in drawn)
    )
    text = f"<!doctype html><meta charset=utf-8><body>{''.join(parts)}<script>{plotly.offline.get_plotlyjs()}</script>"
    (tmp_path / "all.html").write_text(f"{text}<script>{calls}; window.ready = true</script>", encoding="utf-8")
    page.allowed = (f"file://{tmp_path}/all.html", "data:", "blob:", "about:")
    page.goto((tmp_path / "all.html").as_uri())
    page.wait_for_function("() => window.ready")
    page.wait_for_timeout(1000)
    assert page.evaluate(TRACES) == NOTHING and page.blocked == []
    assert page.locator(".js-plotly-plot").count() == len(drawn) >= 10 and len(parts) >= 25
    assert page.evaluate("() => document.body.innerText.includes('window.planted=1')")
    assert page.locator(".js-plotly-plot").get_by_text("window.planted=1").count() > 0


def test_nothing_runs_in_an_exported_graph(tmp_path, page):
    planted.graph().to_html(tmp_path / "graph.html", threshold=1.0)
    page.allowed = (f"file://{tmp_path}", "data:", "blob:", "about:")
    page.goto((tmp_path / "graph.html").as_uri())
    page.locator(".ik-node").first.wait_for()
    for node in page.locator(".ik-canvas .ik-node").all()[:12]:
        node.dispatch_event("click")
    assert page.evaluate(TRACES) == NOTHING and page.blocked == [] and page.complaints == []


def test_nothing_runs_in_jupyterlab(notebook, page):
    page.set_viewport_size({"width": 1200, "height": 20_000})
    with jupyterlab(notebook) as base:
        assert run_notebook(page, base, "planted.ipynb") == []
        page.locator(".ik-canvas .ik-node").first.wait_for(timeout=60_000)
        page.locator(".ik-canvas .ik-node").first.dispatch_event("click")
        for picture in page.locator(".plot-img").all():
            picture.dispatch_event("mouseenter")  # the live figure takes the picture's place
        page.locator(".js-plotly-plot .gtitle").first.wait_for()
        page.locator(".widget-select select").first.select_option(index=0)
        page.wait_for_timeout(2000)
        assert page.evaluate(TRACES) == NOTHING and asked(page) == []
        assert page.get_by_text("window.planted=1").count() > 20


def test_nothing_runs_in_an_exported_notebook(notebook, page):
    command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "html", notebook / "planted.ipynb"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr
    page.allowed = ("file:", "data:", "blob:", "about:")
    page.goto((notebook / "planted.html").as_uri(), wait_until="domcontentloaded")
    page.wait_for_timeout(2000)
    assert page.evaluate(TRACES) == NOTHING
    assert not [url for url in page.blocked if "evil" in url]  # nbconvert's own page asks for its scripts
