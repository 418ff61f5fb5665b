"""LIT in a browser, offline: what a reader of its page sees of a model that knows its facts."""

from pathlib import Path

import nbformat
import pytest
from lab_server import jupyterlab, run_notebook
from playwright.sync_api import expect

import interp_kit as ik

PROMPT = "The capital of the state containing Dallas is"
CELLS = [
    "import sys\nsys.path.insert(0, {repository!r})\nimport interp_kit as ik",
    "ik.lit.open_lit(ik.load_model('pocket'), [{prompt!r}])",
]


@pytest.fixture(scope="module")
def model():
    return ik.load_model("pocket")


@pytest.fixture(scope="module")
def server(lit, model):
    with ik.lit.open_lit(model, [PROMPT, "The capital of Texas is"]) as server:
        yield server


@pytest.fixture
def opened(page, server):
    """LIT's page, on the first prompt."""
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.allowed = (server.url.partition("?")[0], "data:", "blob:")
    page.goto(server.url)
    page.locator("salience-map-module .salient-token").first.wait_for(timeout=60_000)
    return page


def salience(page, method):
    """[(token, score, background)] of a salience map as drawn."""
    row = page.locator(f"salience-map-module .method-row[id='{method}']")
    row.locator(".salient-token").first.wait_for(timeout=60_000)
    return row.locator(".salient-token").evaluate_all(
        "chips => chips.map(chip => [chip.innerText, +chip.querySelector('lit-tooltip').getAttribute('content'), "
        "getComputedStyle(chip).backgroundColor])"
    )


def test_salience_maps_name_the_city(opened, model):
    for method in ("grad l2 norm", "grad ⋅ input"):
        chips = salience(opened, method)
        assert [text for text, _, _ in chips] == model.tokens(PROMPT)
        assert all(score for _, score, _ in chips) and sum(abs(s) for _, s, _ in chips) == pytest.approx(1, abs=0.01)
        city = next(chip for chip in chips if chip[0] == " Dallas")
        assert city[1] == max(score for _, score, _ in chips)
        assert [colour for _, _, colour in chips].count(city[2]) == 1  # it stands out
    opened.locator("[id='lime'] expansion-panel").click(position={"x": 20, "y": 10})
    assert [text for text, _, _ in salience(opened, "lime")] == PROMPT.split()


def test_another_candidate_is_explained(opened):
    city = opened.locator("[id='grad ⋅ input'] .salient-token").filter(has_text="Dallas").locator("lit-tooltip")
    before = city.get_attribute("content")
    opened.locator("select.salience-target-dropdown").last.select_option(label=" Houston")
    expect(city).not_to_have_attribute("content", before, timeout=60_000)


def test_candidates_and_generated_text(opened, model):
    expect(opened.locator("generated-text-vis .candidate-text")).to_have_text(model.complete(PROMPT))
    rows = opened.locator("classification-module tbody tr")
    expect(rows.first).to_contain_text("Austin")
    score = rows.first.locator("annotated-score-bar").evaluate("bar => bar.value")
    assert score == pytest.approx(model.next_tokens(PROMPT)["probability"].iloc[0], abs=1e-5)
    # Selecting another prompt draws its text as well.
    opened.locator("lit-data-table").get_by_text("The capital of Texas is").first.click()
    expect(opened.locator("salience-map-module .salient-token").nth(4)).to_contain_text("Texas")
    expect(opened.locator("generated-text-vis .candidate-text")).to_have_text(model.complete("The capital of Texas is"))


def test_sequence_salience(opened, model):
    opened.get_by_text("Sequence salience").first.click()
    opened.locator(".interstitial-target-option").first.click()
    chips = opened.locator("sequence-salience-chips .salient-token")
    expect(chips).to_have_count(len(model.tokens(PROMPT)) + 1, timeout=60_000)  # words; the answer is one
    chips.last.click()
    city = chips.filter(has_text="Dallas").locator("lit-tooltip")
    expect(city).not_to_have_attribute("content", "0.00", timeout=60_000)


def test_words_are_replaced(opened):
    opened.get_by_text("Replace words").first.click()
    replacer = opened.locator("generator-module")
    replacer.get_by_text("Word Replacer").click()
    replacer.locator("input.control").fill("Dallas -> Chicago")
    replacer.get_by_role("button", name="Apply").click()
    new = PROMPT.replace("Dallas", "Chicago")
    expect(replacer.get_by_text(new).or_(replacer.locator(f"[value='{new}']")).first).to_be_visible(timeout=60_000)


def test_in_a_notebook_behind_a_hub(lit, page, tmp_path):
    """Everything comes through the notebook server: the page may ask no other port."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    repository = str(Path(ik.__file__).parents[1])
    book.cells = [nbformat.v4.new_code_cell(cell.format(repository=repository, prompt=PROMPT)) for cell in CELLS]
    nbformat.write(book, tmp_path / "written.ipynb")
    page.set_viewport_size({"width": 1500, "height": 1400})
    with jupyterlab(tmp_path, prefix="/user/ada") as base:
        assert run_notebook(page, base, "written.ipynb") == []
        frame = page.frame_locator("iframe[title='Language Interpretability Tool on pocket']")
        city = frame.locator("salience-map-module .salient-token").filter(has_text="Dallas").first
        city.wait_for(timeout=60_000)
        expect(frame.locator("generated-text-vis .candidate-text")).to_have_text(" Austin.")
        assert [url for url in page.blocked if "127.0.0.1" in url] == []
