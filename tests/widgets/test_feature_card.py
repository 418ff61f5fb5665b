"""The feature card and the browser: what they show, and that nothing in it is HTML of a stranger's."""

import re

import pytest

from interp_kit.widgets import FeatureBrowser, FeatureCard

EVIL = "<script>alert(1)</script>"


def card(**more):
    example = {"tokens": [" in", " Dallas", " is"], "activations": [0.0, 3.0, -1.5]}
    return {"title": "layer 1, feature 2", "groups": {"strongest": [example]}, **more}


def test_heat_map():
    page = FeatureCard(card())._repr_html_()
    spans = re.findall(r'<span title="([^"]*)" style="background:rgba\((.*?)\)([^"]*)">(.*?)</span>', page)
    assert [(tip, text) for tip, _, _, text in spans] == [("0", " in"), ("3", " Dallas"), ("-1.5", " is")]
    assert [colour for _, colour, _, _ in spans] == ["0,114,178,0.00", "0,114,178,0.60", "213,94,0,0.30"]
    assert ["bold" in style for _, _, style, _ in spans] == [
        False,
        True,
        False,
    ]  # the peak is marked without colour too


def test_everything_there_is():
    data = card(
        label="Texas", evidence="fires on Dallas", facts={"on": "0.10% of tokens", "detection": 0.9312},
        histogram=[0, 4, 0, 2, 0], lists={"top logits": [" Austin", "\n"]}, nodes=["1_2_7"],
    )  # fmt: skip
    page = FeatureCard(data)._repr_html_()
    for text in ("Texas", "fires on Dallas", "0.931", "Austin", "1_2_7", "&#39;\\n&#39;"):
        assert text in page
    assert re.findall(r"height:([\d.]+)%", page) == ["100.0", "0.0", "50.0"]


def test_every_text_is_escaped():
    data = card(
        title=EVIL, label=EVIL, evidence=EVIL, facts={EVIL: EVIL}, lists={EVIL: [EVIL]}, nodes=[EVIL],
        groups={EVIL: [{"tokens": [EVIL, '" onload="x'], "activations": [1.0, 0.5]}]},
    )  # fmt: skip
    page = FeatureCard(data)._repr_html_()
    assert "<script" not in page and ' onload="' not in page


ROWS = [
    {"layer": 0, "feature": 3, "label": "Dallas", "search": "Dallas fires on Dallas"},
    {"layer": 1, "feature": 2, "label": "Texas", "search": "Texas fires on Dallas, Waco"},
    {"layer": 1, "feature": 5, "label": EVIL, "search": EVIL},
]


@pytest.fixture
def browser():
    return FeatureBrowser(ROWS, lambda layer, feature: card(title=f"card {layer} {feature} {EVIL}"))


def listed(browser):
    return [at for _, at in browser._list.options]


def test_search(browser):
    assert listed(browser) == [(0, 3), (1, 2), (1, 5)]
    browser._search.value = "dallas"
    assert listed(browser) == [(0, 3), (1, 2)]
    browser._layer.value = 1
    assert listed(browser) == [(1, 2)] and "1 features" in browser._count.value
    browser._search.value = "nothing"
    assert listed(browser) == []


def test_look_and_name(browser):
    browser.selected = (1, 2)
    assert browser.selected == (1, 2) and "card 1 2" in browser._view.value and "<script" not in browser._view.value
    browser._label.value = " my Texas "
    browser.selected = (0, 3)
    assert browser._label.value == "" and browser.labels == {(1, 2): "my Texas"}
    browser.selected = (1, 2)
    assert browser._label.value == "my Texas"
    with pytest.raises(ValueError, match="layer, feature"):
        browser.selected = (9, 9)


def test_a_store_shows_its_features():
    from tiny import tiny_model, tiny_texts, tiny_transcoder

    import interp_kit as ik

    model = tiny_model()
    clt = tiny_transcoder(model)
    store = ik.collect_features(model, clt, tiny_texts(), n_examples=4)
    labels = ik.label_features(store).assign(detection=0.75)
    graph = ik.attribute(model, clt, "the capital of Texas is").annotate(store, labels)
    layer, feature = graph.nodes.query("kind == 'feature'")[["layer", "feature"]].iloc[0]
    page = store.show(layer, feature, labels, graph)._repr_html_()
    node = graph.nodes.query("layer == @layer and feature == @feature")["id"].iloc[0]
    assert node in page and "0.75" in page and "weakest quarter" in page
    browser = store.browse(labels)
    browser._search.value = labels["label"].iloc[0]
    assert (labels["layer"].iloc[0], labels["feature"].iloc[0]) in listed(browser)
    with pytest.raises(KeyError):
        store.show(0, 10**6)
