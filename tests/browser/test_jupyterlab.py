"""One smoke test in a real JupyterLab: what the reader does in the view arrives in Python, and back."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from fake_graph_data import fake_graph
from lab_server import jupyterlab, run_notebook
from playwright.sync_api import expect

import interp_kit

CELLS = [
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


@pytest.fixture
def notebook(tmp_path):
    (tmp_path / "graph.json").write_text(json.dumps(fake_graph()), encoding="utf-8")
    repository = str(Path(interp_kit.__file__).parents[1])
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [
        nbformat.v4.new_code_cell(CELLS[0].format(repository=repository)),
        *map(nbformat.v4.new_code_cell, CELLS[1:]),
    ]
    nbformat.write(book, tmp_path / "graph.ipynb")
    return tmp_path


def test_pins_travel_between_the_view_and_python(notebook, page):
    page.set_viewport_size({"width": 1300, "height": 1500})
    with jupyterlab(notebook) as base:
        assert run_notebook(page, base, "graph.ipynb") == []
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
        assert page.locator(".jp-Notebook .jp-CodeCell").count() == cells == len(CELLS)

        page.get_by_role("button", name="prune from Python").click()
        expect(page.locator(".ik-kept")).to_have_text("25 %", timeout=30_000)
        expect(texas).to_have_class(re.compile("ik-pinned"))
        assert [url for url in page.blocked if "127.0.0.1" not in url] == []
