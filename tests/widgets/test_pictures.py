"""Every view has a picture that any place can show: a PNG of its size, with its words drawn."""

import base64
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from fake_graph_data import fake_graph
from PIL import Image

import interp_kit.widgets as widgets
from interp_kit.widgets.attention_browser import AttentionBrowser
from interp_kit.widgets.chart import Chart
from interp_kit.widgets.heat_map import heat_map, places
from interp_kit.widgets.picture import BOX, MOST_PIXELS, Picture, _drawable
from interp_kit.widgets.sheet import MOST_LINES, Run, Sheet
from interp_kit.widgets.token_strip import TokenStrip

CARD = {
    "title": "layer 1, feature 2", "label": "Texas", "evidence": "F1 0.9", "facts": {"fires on": 0.1},
    "histogram": [1, 5, 2], "lists": {"promotes": [" Austin"]}, "nodes": ["1_2_3"],
    "groups": {"top": [{"tokens": [" Dallas", " is", "\n"], "activations": [2.0, 0.0, -1.0]}]},
}  # fmt: skip
ROWS = [{"layer": 1, "feature": i, "label": f"label {i}", "search": "x"} for i in range(30)]


def pattern(layer, head, weighted):
    names = places([" The", " capital"])
    return heat_map(np.eye(2) * (layer + 1), names, names, f"layer {layer}", colours="Blues")


VIEWS = {
    "graph": lambda: widgets.GraphView(fake_graph()),
    "card": lambda: widgets.FeatureCard(CARD),
    "browser": lambda: widgets.FeatureBrowser(ROWS, lambda layer, feature: CARD),
    "attention": lambda: AttentionBrowser(pattern, 3, 2),
    "strip": lambda: TokenStrip([" Dallas", " is"], [0.8, -0.1], title="towards Austin", note="a note"),
    "chart": lambda: Chart().add_bar(x=[" Austin", "b"], y=[0.2, 0.7]).update_layout(title="Next token"),
    "heat map": lambda: pattern(1, None, False),
}


def shown(view):
    return Image.open(io.BytesIO(base64.b64decode(view._repr_mimebundle_()[0]["image/png"]))).convert("RGB")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_a_picture_with_its_words(name):
    view = VIEWS[name]()
    image, picture = shown(view), view.picture()
    size = [float(re.search(rf' {side}="([\d.]+)', picture.svg)[1]) for side in ("width", "height")]
    assert image.size == pytest.approx(size, abs=1)
    assert len(image.getcolors(10**6)) > 3
    without = Picture(re.sub("(<text[^>]*>)[^<]*", r"\1", picture.svg), "")
    assert without.png() != picture.png()
    metadata = view._repr_mimebundle_()[1]
    assert metadata["image/png"]["alt"] == picture.alt != ""


@pytest.mark.parametrize("name", [name for name in VIEWS if name not in ("chart", "heat map")])
def test_html_and_picture_stand_side_by_side(name):
    assert {"text/html", "image/png", "text/plain"} <= set(VIEWS[name]()._repr_mimebundle_()[0])


def test_every_view_of_the_room_is_among_them():
    public = {getattr(widgets, name) for name in widgets.__all__}
    views = {kind for kind in public if hasattr(kind, "picture") or hasattr(kind, "_repr_html_")}
    made = [make() for make in VIEWS.values()]
    assert not {kind for kind in views if not any(isinstance(view, kind) for view in made)}


def test_the_first_graph_is_small():
    assert len(widgets.GraphView(fake_graph()).picture().png()) < 100_000


def test_the_browser_pictures_the_open_card():
    browser = VIEWS["browser"]()
    before = browser.picture()
    browser.selected = (1, 2)
    after = browser.picture()
    assert "evidence" not in before.svg and "F1 0.9" in after.svg and "1/2 open" in after.alt


def test_a_huge_view_is_drawn_smaller():
    sheet = Sheet("wide", width=9000)
    for _ in range(60):
        sheet.flow([Run("word " * 100)])
    image = Image.open(io.BytesIO(Picture(sheet.finished(), "wide").png()))
    assert 0.9 * MOST_PIXELS < image.width * image.height < 1.1 * MOST_PIXELS
    assert image.width / image.height == pytest.approx(9000 / (sheet.y + 10), rel=0.01)


def test_signs_without_a_font_are_boxes():
    assert _drawable("aж→▁é 日本😀") == f"aж→▁é {BOX * 3}"


@pytest.mark.parametrize("sign", ["a", "ж", "→", "▁", "␣", "⏎", "é", "…", "�", "Ω", BOX])
def test_signs_of_prompts_are_drawn(sign):
    def drawn(text):
        sheet = Sheet("")
        sheet.flow([Run(text)])
        return Picture(sheet.finished(), "").png()

    assert drawn(sign) != drawn(" ")


def test_a_sheet_breaks_lines_between_words_and_ends():
    sheet = Sheet("text", width=200)
    sheet.flow([Run("several words that do not fit on one line"), Run("w" * 100)])
    lines = re.findall("<text[^>]*>([^<]*)", sheet.finished())
    assert len(lines) > 5 and "".join(lines) == "several words that do not fit on one line" + "w" * 100
    for _ in range(2 * MOST_LINES):
        sheet.flow([Run("more")])
    assert sheet.finished().count("<text") <= MOST_LINES + 1 and ">…<" in sheet.finished()


def test_nothing_is_fetched_for_a_picture():
    """A drawing of ours refers to nothing, so that a renderer has nothing to open."""
    for make in VIEWS.values():
        assert not re.search(r"(href|url\(|<image|<style|<!)", make().picture().svg)


def test_the_fonts_are_small_and_licensed():
    fonts = Path(widgets.__file__).parent / "fonts"
    assert sum(path.stat().st_size for path in fonts.glob("*.ttf")) < 200_000
    assert "Bitstream" in (fonts / "LICENSE_DEJAVU").read_text(encoding="utf-8")


def test_the_renderer_is_a_dependency():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"resvg_py", "pillow"} <= {re.match("[A-Za-z0-9_.-]+", line)[0] for line in project["dependencies"]}
