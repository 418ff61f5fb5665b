"""The views of the lenses in a real JupyterLab: heads are leafed through, tokens are coloured, nothing is fetched."""

import re
from pathlib import Path

import nbformat
from lab_server import jupyterlab, run_notebook
from playwright.sync_api import expect

import interp_kit

CELLS = [
    """import sys
sys.path[:0] = [{repository!r}, {repository!r} + "/tests"]
import interp_kit as ik
from tiny import tiny_model
model, prompt = tiny_model(), "the capital of Texas is"
browser = ik.lenses.attention_patterns(model, prompt).browse()""",
    "browser",
    "ik.lenses.logprobs(model, prompt)",
    "ik.side_by_side(model, prompt, 'Austin', 'Ohio', baseline='city')",
]


def test_lenses_show_themselves(tmp_path, page):
    page.set_viewport_size({"width": 1300, "height": 2600})
    repository = str(Path(interp_kit.__file__).parents[1])
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    first, *rest = CELLS
    book.cells = [nbformat.v4.new_code_cell(cell) for cell in (first.format(repository=repository), *rest)]
    nbformat.write(book, tmp_path / "lenses.ipynb")
    with jupyterlab(tmp_path) as base:
        assert run_notebook(page, base, "lenses.ipynb") == []
        title = page.locator(".widget-output .gtitle")
        expect(title).to_contain_text("layer 0, all heads: attention", timeout=60_000)
        page.locator(".widget-dropdown select").select_option("2")
        expect(title).to_contain_text("layer 0, head 2: attention")
        page.get_by_text("what it moves", exact=True).click()
        expect(title).to_contain_text("layer 0, head 2: moved")
        strip = page.locator("span[title*='bits']").filter(has_text="Texas").first
        expect(strip).to_have_attribute("title", re.compile("entropy .* bits\n.*%"))
        details = page.locator("details").filter(has_text="LIME")
        details.locator("summary").click()
        expect(details.locator("span[title]").first).to_be_visible()
        page.screenshot(path=str(tmp_path / "lenses.png"), full_page=True)
        assert not page.blocked
