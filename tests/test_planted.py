"""Whatever stands in a token, a label, a prompt or a name is shown as text: in HTML, charts, pictures and terminals.

The matrix: each class that shows itself, by each way in which it does. `RESULTS` of planted.py has one of each; a class
that is not among them stands in `BLANK`, with the reason.
"""

import importlib
import inspect
import pkgutil
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pandas as pd
import planted
import pytest
from planted import EVIL, PROMPT, RESULTS, WORDS

import interp_kit
from interp_kit.widgets import graph_page
from interp_kit.widgets.chart import Chart
from interp_kit.widgets.live import Live
from interp_kit.widgets.plain_text import UNSEEN

SHOWS = ("_repr_html_", "_repr_mimebundle_", "show", "browse", "picture")
NEVER = {"script", "iframe", "planted", "svg", "a", "noscript", "object", "embed", "link", "meta", "base"}
BLANK = {
    "Live": "the base of views that live; each of them is here",
    "Chart": "each result's show() is one; its own tests are in widgets/test_chart.py",
}


@pytest.fixture(scope="module", params=RESULTS)
def result(request):
    return RESULTS[request.param]()


def charts(result):
    """All charts of a result, by every way that it has to draw one."""
    if isinstance(result, pd.DataFrame):
        return []
    name = type(result).__name__
    calls = {"FeatureStore": [], "AttentionPatterns": [lambda: result.show(0), lambda: result.show(1, 0, True)]}
    calls = calls.get(name, [result.show] if hasattr(result, "show") else [])
    calls += [result.show_sources] if hasattr(result, "show_sources") else []
    return [drawn for drawn in (call() for call in calls) if isinstance(drawn, Chart)]


class Outline(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_data(self, text):
        self.text += text


def check_page(page):
    outline = Outline(page)
    assert not outline.tags & NEVER, outline.tags
    for tag, name, value in outline.attributes:
        assert not name.startswith("on") and name not in ("href", "action", "formaction", "background"), (tag, name)
        assert name not in ("src", "srcset") or value.startswith("data:image/"), (tag, name)
    assert not UNSEEN.search(re.sub(r"[\n\t]", "", re.sub("[\u2028\u202e]|\x1b|\x07", "", page)))
    return outline


def pages(result):
    """The HTML that a notebook shows of a result."""
    bundle = result._repr_mimebundle_()[0] if hasattr(type(result), "_repr_mimebundle_") else {}
    own = result._repr_html_() if getattr(type(result), "_repr_html_", None) else None
    return [page for page in (own, bundle.get("text/html")) if page]


def texts_of(value, key=""):
    if isinstance(value, dict):
        return [pair for name, inner in value.items() if name != "template" for pair in texts_of(inner, name)]
    if isinstance(value, (list, tuple)):
        return [pair for inner in value for pair in texts_of(inner, key)]
    return [(key, value)] if isinstance(value, str) else []


def test_html_has_no_markup_of_a_stranger(result):
    for page in pages(result):
        check_page(page)


def test_no_formula_is_looked_for(result):
    """A notebook's MathJax would set what stands between two $, and make a link of an \\href."""
    for page in pages(result):
        ignored = Outline(page).attributes[0] == ("div", "class", "mathjax_ignore tex2jax_ignore")
        if isinstance(result, pd.DataFrame):
            ignored = "mathjax_ignore" in dict((name, value) for tag, name, value in Outline(page).attributes)["class"]
        assert ignored or Outline(page).text.strip() == ""


def test_charts_have_none(result):
    for chart in charts(result):
        for key, text in texts_of(chart.live()):
            assert key.endswith("template") or not re.search(r"[<>$]", text), (key, text)
            assert not UNSEEN.search(text), (key, text)


def test_pictures_have_none(result):
    drawn = [result] if hasattr(result, "picture") else charts(result)
    for picture in (one.picture() for one in drawn):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture.svg).iter()}
        assert tags <= {"svg", "rect", "text", "g", "path", "circle", "line", "title"}
        assert not UNSEEN.search(picture.svg.replace("\n", ""))
        assert picture.png()[:4] == b"\x89PNG"


def test_a_terminal_is_not_steered(result):
    if not isinstance(result, pd.DataFrame):  # a plain table is pandas' to print: what it holds is what was read
        assert not UNSEEN.search(re.sub(r"[\n\t]", "", repr(result)))


def test_what_is_planted_arrives_as_text():
    """Else the tests above would pass of empty pages."""
    shown = [name for name, make in RESULTS.items() if any("window.planted" in page for page in pages(make()))]
    assert len(shown) >= 24, sorted(set(RESULTS) - set(shown))
    drawn = [chart for make in RESULTS.values() for chart in charts(make())]
    assert len(drawn) >= 12
    assert sum("window.planted" in str(chart.live()) for chart in drawn) >= 8


def test_tables_are_escaped():
    for page in planted.planted_tables():
        outline = Outline(page)
        assert not outline.tags & NEVER and EVIL[:20] in outline.text


def test_an_exported_page_keeps_its_outline():
    plain, evil = Outline(graph_page(planted.graph().view_data(), 1.0)), planted.graph()
    plain_graph = interp_kit.attribute(planted.model(), planted.transcoder(), "a a a")
    plain = Outline(graph_page(plain_graph.view_data(), 1.0))
    page = Outline(graph_page(evil.view_data(), 1.0))
    assert page.tags == plain.tags
    assert sum(tag == "script" for tag, *_ in page.attributes) == sum(tag == "script" for tag, *_ in plain.attributes)


def classes():
    """Every class of the package that shows itself in a notebook."""
    found = {}
    for module in pkgutil.walk_packages(interp_kit.__path__, "interp_kit."):
        if module.name.endswith(("__main__", "lit.app")):  # a program; runs in LIT's environment
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(kind) and kind.__module__ == module.name and set(SHOWS) & set(vars(kind)):
                found[name] = kind
    return found


def test_every_class_that_shows_itself_is_tried():
    tried = {base.__name__ for make in RESULTS.values() for base in type(make()).__mro__}
    blank = {name for name, reason in BLANK.items() if reason}
    assert len(classes()) > 25 and not classes().keys() - tried - blank


def test_every_chart_leaves_a_picture():
    """What `show` returns is a view of ours, never a bare figure of plotly's."""
    for make in RESULTS.values():
        result = make()
        if hasattr(result, "show") and type(result).__name__ not in ("FeatureStore", "AttentionPatterns"):
            shown = result.show()
            assert hasattr(shown, "picture"), type(result)
            assert {"image/png"} <= set(shown._repr_mimebundle_()[0])


def test_live_views_leave_a_picture():
    views = [view for view in (make() for make in RESULTS.values()) if isinstance(view, Live)]
    assert len(views) == 6
    for view in views:
        data, _ = view._repr_mimebundle_()
        assert {"image/png", "text/html", "application/vnd.jupyter.widget-view+json"} <= set(data)


@pytest.mark.parametrize("word", WORDS)
def test_the_words_reach_the_model(word):
    assert word in planted.model().tokens(PROMPT)
