"""Smoke tests in a real JupyterLab: what the reader does in a widget arrives in Python, and back."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from fake_graph_data import fake_graph
from lab_server import jupyterlab, run_notebook
from playwright.sync_api import expect

import interp_kit

GRAPH = [
    """import json, sys
sys.path.insert(0, {repository!r})
import ipywidgets
from interp_kit.widgets import GraphView
view = GraphView(json.load(open("graph.json")))
said = ipywidgets.Label("nothing yet")
said.add_class("said")
def report(change):
    said.value = f"pinned {{view.pinned}} selected {{view.selected}} threshold {{view.threshold}}"
view.observe(report, ["pinned", "selected", "threshold"])
prune = ipywidgets.Button(description="prune from Python")
prune.on_click(lambda _: setattr(view, "threshold", 0.25))""",
    "view",
    "ipywidgets.VBox([said, prune])",
]
FEATURES = [
    """import sys
sys.path[:0] = [{repository!r}, {repository!r} + "/tests"]
import ipywidgets
import interp_kit as ik
from tiny import tiny_model, tiny_texts, tiny_transcoder
model = tiny_model()
store = ik.collect_features(model, tiny_transcoder(model), tiny_texts(), n_examples=4)
browser = store.browse(ik.label_features(store).assign(label="<b>Texas</b>"))
said = ipywidgets.Label("nothing yet")
said.add_class("said")
browser._label.observe(lambda change: setattr(said, "value", str(browser.labels)), "value")""",
    "browser",
    "said",
]


@pytest.fixture
def written(tmp_path):
    """written(cells) writes them as a notebook; returns its folder."""
    (tmp_path / "graph.json").write_text(json.dumps(fake_graph()), encoding="utf-8")
    repository = str(Path(interp_kit.__file__).parents[1])

    def write(cells):
        book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
        first, *rest = cells
        book.cells = [nbformat.v4.new_code_cell(cell) for cell in (first.format(repository=repository), *rest)]
        nbformat.write(book, tmp_path / "written.ipynb")
        return tmp_path

    return write


def test_a_feature_is_found_and_named(written, page):
    page.set_viewport_size({"width": 1300, "height": 1500})
    with jupyterlab(written(FEATURES)) as base:
        assert run_notebook(page, base, "written.ipynb") == []
        options = page.locator(".widget-select option")
        options.first.wait_for(timeout=60_000)
        before = options.count()
        page.locator(".widget-dropdown select").select_option("1")
        expect(options.first).to_contain_text("1/", timeout=30_000)
        assert 0 < options.count() < before
        page.locator(".widget-select select").select_option(index=1)
        card = page.locator(".widget-html").filter(has_text="layer 1, feature")
        expect(card).to_contain_text("<b>Texas</b>", timeout=30_000)  # as text, not as HTML
        mine = page.locator(".widget-text input").last
        mine.fill("cities in Texas")
        mine.press("Enter")
        expect(page.locator(".said")).to_contain_text("cities in Texas", timeout=30_000)
        assert [url for url in page.blocked if "127.0.0.1" not in url] == []


def test_pins_travel_between_the_view_and_python(written, page):
    page.set_viewport_size({"width": 1300, "height": 1500})
    with jupyterlab(written(GRAPH)) as base:
        assert run_notebook(page, base, "written.ipynb") == []
        said = page.locator(".said")
        texas = page.locator(".ik-canvas .ik-node[data-id='f3_6_Texas']")
        texas.wait_for(timeout=60_000)

        texas.click()
        expect(page.locator(".ik-card-title")).to_have_text("Texas")
        expect(said).to_contain_text("selected f3_6_Texas", timeout=30_000)

        page.keyboard.press("p")  # the click left the keyboard on the node
        expect(said).to_contain_text("pinned ['f3_6_Texas']", timeout=30_000)

        cells = page.locator(".jp-Notebook .jp-CodeCell").count()
        page.locator(".ik-pin").focus()
        page.keyboard.press("x")  # in command mode this would cut the cell
        assert page.locator(".jp-Notebook .jp-CodeCell").count() == cells == len(GRAPH)

        page.get_by_role("button", name="prune from Python").click()
        expect(page.locator(".ik-kept")).to_have_text("25 %", timeout=30_000)
        expect(texas).to_have_class(re.compile("ik-pinned"))
        assert [url for url in page.blocked if "127.0.0.1" not in url] == []
