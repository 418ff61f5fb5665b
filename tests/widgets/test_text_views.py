import pandas as pd

from interp_kit.widgets.text_table import text_table
from interp_kit.widgets.token_strip import TokenStrip

EVIL = "<img src=x onerror=alert(1)>"


def test_a_table_is_whole_and_escaped():
    long = "word " * 40
    page = text_table(pd.DataFrame({EVIL: [EVIL, long], "n": [1.234, 2.0]}, index=[EVIL, "b"]))
    assert "<img" not in page and page.count("&lt;img") == 3
    assert long in page and "1.23<" in page


def test_a_strip_is_escaped():
    page = TokenStrip([EVIL, "b"], [1.0, -1.0], [EVIL, "tip"], title=EVIL, note=EVIL)._repr_html_()
    assert "<img" not in page and page.count("&lt;img") == 4


def test_colours_follow_sign_and_size():
    page = TokenStrip(["a", "b", "c", "d"], [2.0, -1.0, 0.0, float("nan")])._repr_html_()
    assert "rgba(0,114,178,0.65)" in page and "rgba(213,94,0,0.33)" in page
    assert page.count(",0.00)") == 2 and page.count("underline") == 1  # below zero is underlined as well
    fixed = TokenStrip(["a"], [0.5], limit=1.0)._repr_html_()
    assert "rgba(0,114,178,0.33)" in fixed or "rgba(0,114,178,0.32)" in fixed


def test_empty_and_broken_lines():
    assert "<div" in TokenStrip([], [])._repr_html_()
    assert "↵\n" in TokenStrip(["a\n"], [1.0])._repr_html_()
