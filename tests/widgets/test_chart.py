"""Charts: the picture shows what plotly shows, and no text becomes markup."""

import copy
import json
import pickle
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
from IPython.core.formatters import DisplayFormatter

from interp_kit.widgets.chart import PLOTLY, Chart, panels
from interp_kit.widgets.chart_axes import Axis, nice_step, written
from interp_kit.widgets.heat_map import heat_map, places

EVIL = '<a href="javascript:alert(1)">x</a><img src=x onerror=alert(1)><br>$x$ & \x1b]8;;http://evil\x07'
SVG = "{http://www.w3.org/2000/svg}"


def words(figure):
    return [text.text for text in ElementTree.fromstring(figure.picture().svg).iter(f"{SVG}text")]


def shapes(figure, tag):
    return [element.attrib for element in ElementTree.fromstring(figure.picture().svg).iter(f"{SVG}{tag}")]


# ---------------------------------------------------------------- the picture


def test_titles_names_and_ticks_are_drawn():
    figure = Chart().add_scatter(x=[0, 10], y=[0, 1], name="measured").add_bar(x=[5], y=[0.5], name="predicted")
    figure.update_layout(title="a title", xaxis_title="across", yaxis_title="up", yaxis_tickformat=".0%")
    assert {"a title", "across", "up", "measured", "predicted", "0%", "100%"} <= set(words(figure))


def test_points_lie_where_they_should():
    figure = Chart().add_scatter(x=[0, 5, 10], y=[0, 1, 2], mode="markers")
    dots = [(float(dot["cx"]), float(dot["cy"])) for dot in shapes(figure, "circle")]
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1) and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert x0 < x2 and y0 > y2


@pytest.mark.parametrize("orientation", ["v", "h"])
def test_bars_are_as_long_as_their_values(orientation):
    names, values = ["a", "b", "c"], [1.0, -2.0, 4.0]
    x, y = (values, names) if orientation == "h" else (names, values)
    bars = [bar for bar in shapes(Chart().add_bar(x=x, y=y, orientation=orientation, marker_color="#123456"), "rect")]
    lengths = [float(bar["width" if orientation == "h" else "height"]) for bar in bars if bar["fill"] == "#123456"]
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 2, 4], rel=0.01)


def test_bars_of_two_traces_stand_side_by_side():
    figure = (
        Chart().add_bar(x=[0, 1], y=[1, 1], marker_color="#111111").add_bar(x=[0, 1], y=[1, 1], marker_color="#222222")
    )
    bars = [bar for bar in shapes(figure, "rect") if bar["fill"] in ("#111111", "#222222")]
    ends = sorted((float(bar["x"]), float(bar["x"]) + float(bar["width"])) for bar in bars)
    assert all(b <= c + 0.1 for (_, b), (c, _) in zip(ends, ends[1:]))


def test_cells_have_their_colours_and_texts():
    figure = heat_map([[1.0, -1.0], [0.0, np.nan]], ["a", "b"], ["c", "d"], "t", 1, texttemplate="%{z:.1f}")
    fills = [cell["fill"] for cell in shapes(figure, "rect")]
    assert {"#0072b2", "#d55e00", "#ffffff"} <= set(fills)
    assert {"1.0", "−1.0", "0.0", "a", "b", "c", "d"} <= set(words(figure)) and "nan" not in words(figure)


def test_panels_stand_beside_one_another_with_titles():
    figure = panels(1, 2, ["left", "right"])
    for column in (1, 2):
        figure.add_scatter(x=[0, 1], y=[0, 1], mode="markers", row=1, col=column)
    xs = [float(dot["cx"]) for dot in shapes(figure, "circle")]
    assert max(xs[:2]) < min(xs[2:]) and {"left", "right"} <= set(words(figure))


def test_a_logarithm_spreads_evenly():
    figure = Chart().add_scatter(x=[1, 10, 100], y=[1, 1, 1], mode="markers").update_xaxes(type="log")
    a, b, c = (float(dot["cx"]) for dot in shapes(figure, "circle"))
    assert b == pytest.approx((a + c) / 2, abs=0.1)


def test_marks_with_numbers_get_a_colour_bar():
    marker = {"color": [1, 2, 5], "colorscale": "Cividis", "colorbar": {"title": "layers apart"}}
    figure = Chart().add_scatter(x=[0, 1, 2], y=[0, 1, 2], mode="markers", marker=marker)
    assert "layers apart" in words(figure) and len({dot["fill"] for dot in shapes(figure, "circle")}) == 3


def test_a_histogram_counts():
    figure = Chart(go.Histogram(x=[0.1, 0.2, 0.9, np.nan], nbinsx=2, marker_color="#123456"))
    heights = [float(bar["height"]) for bar in shapes(figure, "rect") if bar["fill"] == "#123456"]
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.01)


def test_what_cannot_be_drawn_is_said():
    assert "not drawn here: pie" in words(Chart(go.Pie(values=[1, 2])))


@pytest.mark.parametrize(
    "figure",
    [
        Chart(), Chart().add_scatter(x=[], y=[]), Chart().add_bar(x=["a"], y=[np.nan]), Chart().add_scatter(y=[1.0]),
        Chart().add_scatter(x=[0, 0], y=[2, 2]), Chart().add_heatmap(z=[[1.0]]), Chart().add_heatmap(z=[[np.nan]]),
        Chart().add_scatter(x=[1, 2], y=[-1, 0]).update_yaxes(type="log"), Chart().add_bar(y=[1e-9, 1e12]),
        Chart().add_scatter(x=pd.Series(["a", "b"], index=[5, 9]), y=pd.Series([1, 2], index=[5, 9])),
        Chart().add_scatter(x=[0, np.inf], y=[0, 1]), Chart().add_bar(x=["a" * 300] * 2, y=[1, 2]),
    ],
)  # fmt: skip
def test_odd_figures_are_drawn(figure):
    assert figure.picture().png()[:4] == b"\x89PNG"


@pytest.mark.parametrize("length", [1e-9, 0.3, 1, 7, 1234, 1e12])
def test_steps_are_round(length):
    step = nice_step(length)
    assert 3 <= length / step <= 15 and f"{step:.0e}"[0] in "125"


def test_numbers_are_written_as_plotly_writes_them():
    assert [written(0.25, ".0%"), written(-2, None), written(1e-15), written(3, "~s")] == ["25%", "−2", "0", "3"]


def test_a_reversed_axis_runs_backwards():
    axis = Axis(go.layout.YAxis(autorange="reversed"), ["a", "b"])
    assert axis.place("a") > axis.place("b")


# ---------------------------------------------------------------- no markup


def hostile():
    figure = Chart().add_scatter(
        x=[EVIL, "b"], y=[1, 2], name=EVIL, text=np.array([EVIL, "t"], dtype=object), mode="markers+text",
        customdata=[[EVIL], ["c"]], hovertemplate="%{text}<br>%{customdata[0]}", legendgroup=EVIL,
    )  # fmt: skip
    figure.add_bar(x=[EVIL], y=[1], name=EVIL)
    figure.update_layout(title={"text": EVIL}, xaxis_title=EVIL, legend_title=EVIL)
    figure.update_xaxes(ticktext=[EVIL], tickvals=[0], categoryarray=[EVIL])
    return figure.add_annotation(text=EVIL, xref="paper", yref="paper", x=0, y=1)


def strings(value, key=""):
    if isinstance(value, dict):
        return [text for name, inner in value.items() if name != "template" for text in strings(inner, name)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner, key)]
    return [(key, value)] if isinstance(value, str) else []


@pytest.mark.parametrize(
    "export",
    [
        lambda figure: figure._repr_mimebundle_()[0][PLOTLY],
        lambda figure: json.loads(figure.to_json()),
        lambda figure: json.loads(json.dumps(figure.to_plotly_json(), default=lambda array: array.tolist())),
        lambda figure: json.loads(plotly.io.to_json(go.Figure(figure.to_dict()))),
        lambda figure: json.loads(copy.deepcopy(figure).to_json()),
        lambda figure: json.loads(pickle.loads(pickle.dumps(figure)).to_json()),
    ],
)
def test_no_text_is_markup_in_any_export(export):
    found = strings(export(hostile()))
    evil = [(key, text) for key, text in found if "onerror" in text]
    assert len(evil) >= 9
    for key, text in found:
        if not key.endswith("template"):
            assert not re.search(r"[<>$\n\x00-\x1f]", text), (key, text)
    assert "&amp;lt;" not in str(evil)  # escaped once


def test_the_page_of_a_chart_has_no_markup_of_ours():
    assert "<img src=x" not in hostile().to_html(include_plotlyjs=False).replace("\\u003c", "<")


def test_inside_the_figure_a_text_is_what_it_was():
    figure = hostile()
    figure.to_json()
    assert figure.layout.title.text == EVIL and copy.deepcopy(figure).layout.title.text == EVIL
    assert figure.data[0].name == EVIL


def test_the_picture_shows_markup_as_text():
    drawn = "".join(filter(None, words(hostile())))
    assert "<a href" in drawn and "\x1b" not in hostile().picture().svg
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(hostile().picture().svg).iter()}
    assert tags <= {"svg", "rect", "text", "g", "path", "circle", "line"}


def test_a_special_token_is_a_label():
    data = heat_map([[1.0, 2.0]], places(["<bos>", "a\n"]), ["<bos>"], "<bos>").to_dict()
    assert data["data"][0]["x"] == ["0 &lt;bos&gt;", "1 a↵"] and data["data"][0]["y"] == ["&lt;bos&gt;"]


def test_a_terminal_shows_no_control_characters():
    assert not re.search(r"[\x00-\x1f\x7f]", repr(hostile()))


# ---------------------------------------------------------------- how it is shown


def test_a_chart_is_shown_by_its_bundle_in_a_kernel(monkeypatch):
    monkeypatch.setattr("interp_kit.widgets.chart.get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    with pytest.raises(NotImplementedError):
        Chart()._ipython_display_()


def test_a_kernel_sends_no_script(monkeypatch):
    monkeypatch.setattr("interp_kit.widgets.chart.get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    data, _ = DisplayFormatter().format(Chart().add_bar(y=[1]))
    assert set(data) == {PLOTLY, "image/png", "text/plain"}


def test_places_without_plotly_get_html(monkeypatch):
    assert "text/html" not in Chart()._repr_mimebundle_()[0]
    monkeypatch.setattr(plotly.io.renderers, "_default_name", "colab", raising=False)
    monkeypatch.setattr("interp_kit.widgets.chart.WITHOUT_PLOTLY", {*plotly.io.renderers.default.split("+")})
    monkeypatch.setattr(go.Figure, "_repr_mimebundle_", lambda *args, **kwargs: {"text/html": "<div>"})
    assert Chart()._repr_mimebundle_()[0]["text/html"] == "<div>"
