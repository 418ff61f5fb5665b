"""The attribution-graph view without a browser: data checks, static twin, self-contained page."""

import base64
import copy
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from fake_graph_data import fake_graph

from interp_kit.widgets import GraphView, graph_data, graph_page, graph_svg
from interp_kit.widgets.geometry import measure

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg></noscript></script><b>",
    "<!--<script>",
    "'); alert(1); ('",
    "a\u2028b\x00\ud800",
]


def hostile_graph():
    """Every string of the graph that a stranger may have written is hostile."""
    data = fake_graph()
    bad = "".join(HOSTILE)
    data |= {"title": bad, "prompt": bad, "tokens": [bad] * len(data["tokens"]), "scores": {bad: 0.5}}
    for node in data["nodes"]:
        node |= {
            "id": node["id"] + bad,
            "label": bad,
            "concept": bad,
            "top_logits": [bad],
            "bottom_logits": [bad],
            "examples": [{"tokens": [bad], "activations": [1.0]}],
        }
    data["supernodes"] = [{"name": bad, "nodes": [data["nodes"][0]["id"], data["nodes"][1]["id"]]}]
    return data


def broken(change):
    data = copy.deepcopy(fake_graph())
    change(data)
    return data


# ---------------------------------------------------------------- the data contract


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d.pop("tokens"), "lacks the key 'tokens'"),
        (lambda d: d.update(tokens=[]), "at least one token"),
        (lambda d: d.update(n_layers="six"), r"data\['n_layers'\] must be a int"),
        (lambda d: d["scores"].update(x=float("nan")), "finite"),
        (lambda d: d["nodes"][3].pop("influence"), r"data\['nodes'\]\[3\] lacks 'influence'"),
        (lambda d: d["nodes"][3].update(kind="neuron"), "one of embedding, feature, error, left_out, logit"),
        (lambda d: d["nodes"][0].update(layer=0), r"\['layer'\] must be -1, got 0"),
        (lambda d: d["nodes"][12].update(layer=6), "from 0 to 5 for a feature"),
        (lambda d: d["nodes"][0].update(position=9), "from 0 to 8"),
        (lambda d: d["nodes"][0].update(id=d["nodes"][1]["id"]), "node ids must be all different"),
        (lambda d: d["nodes"][0].update(label=None), r"\['label'\] must be a str"),
        (lambda d: d["nodes"][12].update(activation="big"), r"\['activation'\] must be a finite Python number"),
        (lambda d: d["nodes"][12].update(examples=[{"tokens": ["a"], "activations": []}]), "one per token"),
        (lambda d: d["edges"].append([0, 10_000, 1.0]), "node indices from 0 to"),
        (lambda d: d["edges"].append([0, 1]), r"\[source, target, weight\]"),
        (lambda d: d["edges"].append([0, 1, float("inf")]), "finite"),
        (lambda d: d["supernodes"].append({"name": "x", "nodes": ["nobody"]}), "does not have.*nobody"),
    ],
)
@pytest.mark.parametrize("draw", [GraphView, graph_svg, graph_page])
def test_wrong_data_is_named(draw, change, message):
    with pytest.raises(ValueError, match=message):
        draw(broken(change))


def test_numpy_numbers_are_refused_with_a_reason():
    numpy = pytest.importorskip("numpy")
    data = fake_graph()
    data["nodes"][0]["influence"] = numpy.float32(0.5)
    with pytest.raises(ValueError, match="finite Python number"):
        graph_svg(data)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.8"])
@pytest.mark.parametrize("draw", [lambda d, t: GraphView(d, threshold=t), graph_svg, graph_page])
def test_threshold_is_a_fraction(draw, threshold):
    with pytest.raises(ValueError, match="threshold must be"):
        draw(fake_graph(), threshold)


@pytest.mark.parametrize("draw", [GraphView, graph_svg, graph_page])
def test_data_is_checked_once(draw, monkeypatch):
    checked = []
    monkeypatch.setattr(graph_data, "_check_node", lambda node, *rest: checked.append(node["id"]))
    data = fake_graph()
    drawn = draw(data)
    assert checked == [node["id"] for node in data["nodes"]]
    if draw is GraphView:
        drawn.pinned = ["e0"]
        drawn._repr_mimebundle_()
        drawn.get_state()
        assert len(checked) == len(data["nodes"])
        drawn.data = fake_graph(seed=1)  # another graph is at the door
        assert len(checked) == 2 * len(data["nodes"])


def test_the_twin_keeps_only_nodes_that_exist():
    with pytest.raises(ValueError, match="kept names nodes.*nobody"):
        graph_svg(fake_graph(), kept=["nobody"])


# ---------------------------------------------------------------- the widget's Python side


def test_traits_reject_unknown_nodes():
    view = GraphView(fake_graph(), pinned=["f3_6_Texas"])
    assert view.pinned == ["f3_6_Texas"]
    with pytest.raises(ValueError, match="pinned names nodes"):
        GraphView(fake_graph(), pinned=["nobody"])
    with pytest.raises(ValueError, match="pinned names nodes"):
        view.pinned = ["nobody"]
    with pytest.raises(ValueError, match="selected names nodes"):
        view.selected = "nobody"
    with pytest.raises(ValueError, match="does not have"):
        view.supernodes = [{"name": "x", "nodes": ["nobody"]}]
    with pytest.raises(ValueError, match="threshold"):
        view.threshold = 2.0
    assert (view.pinned, view.selected, view.supernodes, view.threshold) == (["f3_6_Texas"], "", [], 0.8)


def test_new_data_keeps_only_what_still_exists():
    view = GraphView(fake_graph(), pinned=["f3_6_Texas", "e0"])
    view.selected = "f3_6_Texas"
    data = fake_graph()
    gone = next(node for node in data["nodes"] if node["id"] == "f3_6_Texas")
    gone["id"] = "renamed"
    data["supernodes"] = [{"name": "first two", "nodes": ["e0", "e1"]}]
    view.data = data
    assert (view.pinned, view.selected, view.supernodes) == (["e0"], "", data["supernodes"])


def test_mimebundle_has_the_live_view_and_the_twin():
    view = GraphView(fake_graph())
    data, metadata = view._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert view.picture().svg == graph_svg(fake_graph())
    assert metadata["image/png"]["alt"] == ElementTree.fromstring(graph_svg(fake_graph())).get("aria-label")
    (image,) = Outline(data["text/html"]).attributes
    assert image["alt"] == metadata["image/png"]["alt"]
    assert image["src"] == f"data:image/png;base64,{data['image/png']}"  # what a cleaned page keeps
    drawn = image["srcset"].removeprefix("data:image/svg+xml;base64,")  # what any other page shows
    assert base64.b64decode(drawn).decode() == graph_svg(fake_graph())


def test_the_twin_follows_threshold_and_pins():
    weakest = max(fake_graph()["nodes"], key=lambda n: n["cumulative"])
    assert weakest["kind"] in ("feature", "error")
    view = GraphView(fake_graph(), threshold=0.3)
    before = view.picture().svg
    view.pinned = [weakest["id"]]
    after = view.picture().svg
    assert before == graph_svg(fake_graph(), 0.3)
    assert len(drawn_titles(after)) == len(drawn_titles(before)) + 1


def test_importing_the_widgets_loads_no_torch():
    code = (
        "import sys, interp_kit.widgets; print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'transformers', 'interp_kit')))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = json.loads(loaded.replace("'", '"'))
    assert loaded and all(name == "interp_kit" or name.startswith("interp_kit.widgets") for name in loaded)


# ---------------------------------------------------------------- the static twin


def drawn_titles(svg):
    return [title.text for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


def test_twin_is_a_labelled_image():
    root = ElementTree.fromstring(graph_svg(fake_graph()))
    assert root.get("role") == "img"
    assert "The capital of the state containing Dallas is" in root.get("aria-label")
    assert "␣Austin 43 %" in root.get("aria-label") and "say Austin" in root.get("aria-label")


def test_twin_draws_the_nodes_at_the_threshold():
    data = fake_graph()
    for threshold in (0.0, 0.5, 1.0):
        expected = sum(
            n["kind"] in ("embedding", "logit") or n["cumulative"] <= threshold + 1e-9 for n in data["nodes"]
        )
        assert len(drawn_titles(graph_svg(data, threshold))) == expected
    assert len(drawn_titles(graph_svg(data, 1.0))) == len(data["nodes"])


def test_twin_shows_tokens_labels_outputs_and_legend():
    root = ElementTree.fromstring(graph_svg(fake_graph()))
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"␣Dallas", "⏎", "Texas", "say Austin", "␣Austin", "43 %", "L3", "takes away"} <= texts


def test_twin_dashes_exactly_the_negative_edges():
    data = fake_graph()
    data["edges"] = [[6, 9, 1.0], [6, 10, -0.5], [7, 11, -0.1], [1, 12, 0.3]]
    paths = [
        p
        for p in ElementTree.fromstring(graph_svg(data, 1.0)).iter(f"{SVG}path")
        if p.get("stroke") in ("#0072B2", "#D55E00")
    ]
    assert len(paths) == 4
    assert sum(p.get("stroke") == "#D55E00" for p in paths) == 2
    assert all((p.get("stroke-dasharray") is not None) == (p.get("stroke") == "#D55E00") for p in paths)


def test_twin_labels_do_not_overlap():
    boxes = []
    for text in ElementTree.fromstring(graph_svg(fake_graph(), 1.0)).iter(f"{SVG}text"):
        if text.get("paint-order"):
            half = 2.95 * len(text.text)
            x, y = float(text.get("x")), float(text.get("y"))
            boxes.append((x - half, y - 9, x + half, y + 3))
    assert len(boxes) >= 12
    for k, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:k])


def test_twin_escapes_hostile_strings():
    svg = graph_svg(hostile_graph(), 1.0)
    root = ElementTree.fromstring(svg)  # still well-formed
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "rect", "text", "g", "path", "circle", "line", "title"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not any(name.startswith("on") or name in ("href", "style") for name in names)
    for text in ("<script", "<img", "</noscript", "<!--"):
        assert text not in svg
    svg.encode()  # a lone surrogate would fail here


def test_twin_survives_a_bare_graph():
    data = fake_graph()
    data |= {"nodes": [], "edges": [], "scores": {}, "supernodes": []}
    assert ElementTree.fromstring(graph_svg(data)).get("role") == "img"
    assert "</html>" in graph_page(data)


def test_output_is_deterministic():
    assert graph_svg(fake_graph()) == graph_svg(fake_graph())
    assert graph_page(fake_graph()) == graph_page(fake_graph())


# ---------------------------------------------------------------- the self-contained page


class Outline(HTMLParser):
    """Tags in order, and the text of every script and style element."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.raw, self.open = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        self.open = tag in ("script", "style")
        if self.open:
            self.raw.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self.open = False

    def handle_data(self, text):
        if self.open:
            self.raw[-1] = (self.raw[-1][0], self.raw[-1][1] + text)


def test_page_outline_is_the_same_for_hostile_strings():
    plain, hostile = Outline(graph_page(fake_graph(), 1.0)), Outline(graph_page(hostile_graph(), 1.0))
    for outline in (plain, hostile):
        assert [t for t in outline.tags if t in ("script", "style", "noscript", "main", "img", "b")] == [
            "style",
            "main",
            "noscript",
            "script",
            "script",
        ]
    assert not any(name.startswith("on") for attributes in hostile.attributes for name in attributes)


def test_page_data_survives_escaping():
    data = hostile_graph()
    text = next(text for attributes, text in Outline(graph_page(data)).raw if attributes.get("id") == "state")
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["data"] == json.loads(json.dumps(data | {"measures": measure(data)}))


def test_page_policy_names_the_script_and_style_by_hash():
    page = graph_page(fake_graph())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for attributes, text in Outline(page).raw:
        if attributes.get("type") != "application/json":
            assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_page_has_no_addresses():
    page = graph_page(fake_graph())
    assert set(re.findall(r"https?://[^\s\"'<>`)]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)=", page)
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|innerHTML|insertAdjacentHTML|eval)\b", page)


def test_page_carries_the_twin_for_readers_without_script():
    page = graph_page(fake_graph(), 0.5)
    assert f"<noscript>{graph_svg(fake_graph(), 0.5)}</noscript>" in page


# ---------------------------------------------------------------- from a stranger's file to the page


def test_a_hostile_graph_file_stays_text(tmp_path):
    """Every text of a valid public graph file is hostile; what is drawn of it is as harmless as a made-up graph."""
    import interp_kit as ik

    bad = "".join(HOSTILE).replace("\ud800", "")  # half a character is refused when the file is read
    common = {"ctx_idx": 0, "jsNodeId": bad, "clerp": bad, bad: bad, "token": bad, "influence": 0.1}
    nodes = [
        common | {"node_id": f"E{bad}", "feature": 0, "layer": bad, "feature_type": "embedding"},
        common | {"node_id": f"F{bad}", "feature": 5, "layer": "0", "feature_type": "cross layer transcoder"},
        common | {"node_id": f"L{bad}", "feature": 1, "layer": "2", "feature_type": "logit", "token_prob": 0.5},
    ]
    ends = [node["node_id"] for node in nodes]
    content = {
        "metadata": {
            "slug": bad,
            "scan": bad,
            "prompt": bad,
            "prompt_tokens": [bad],
            "interp_kit": {"about": {"model": bad}, "scores": {bad: 0.5}},
        },
        "qParams": {"pinnedIds": [bad], "supernodes": [[bad, *ends[:2]]], "clickedId": bad, "linkType": bad},
        "nodes": nodes,
        "links": [{"source": s, "target": t, "weight": 1.0} for s, t in zip(ends, ends[1:])],
    }
    (tmp_path / "graph.json").write_text(json.dumps(content))
    graph = ik.load_graph(tmp_path / "graph.json")
    graph.to_html(tmp_path / "graph.html")
    page, plain = Outline((tmp_path / "graph.html").read_text()), Outline(graph_page(fake_graph()))
    assert page.tags.count("script") == plain.tags.count("script") and not {"img", "b"} & set(page.tags)
    assert not any(name.startswith("on") for attributes in page.attributes for name in attributes)
    assert not {"script", "img", "b", "noscript"} & set(Outline(graph._repr_html_()).tags)
    (image,) = Outline(graph.show()._repr_mimebundle_()[0]["text/html"]).attributes
    assert set(image) == {"alt", "style", "src", "srcset"} and bad[:8] in image["alt"]
