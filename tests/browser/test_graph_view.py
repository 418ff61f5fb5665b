"""The attribution-graph view in Chromium: the ES module alone with a stub model, and the page as a file."""

import re

import pytest
from fake_graph_data import fake_graph, node
from playwright.sync_api import expect
from stub_kernel import for_page, module, state

from interp_kit.widgets import graph_page

TEXAS, AUSTIN, DALLAS = "f3_6_Texas", "f5_8_say-Austin", "f0_6_Dallas"


def graph_node(page, name):
    return page.locator(f".ik-canvas .ik-node[data-id='{name}']")


def trait(page, name):
    return page.evaluate("name => model.get(name)", name)


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('data-id')")


def fake_graph_index(name):
    return next(i for i, n in enumerate(fake_graph()["nodes"]) if n["id"] == name)


def pin(page, *names):
    for name in names:
        graph_node(page, name).focus()
        page.keyboard.press("p")


def expected_count(data, threshold):
    return sum(n["kind"] in ("embedding", "logit") or n["cumulative"] <= threshold + 1e-9 for n in data["nodes"])


# ---------------------------------------------------------------- drawing


def test_every_node_has_its_shape_and_name(mount):
    page = mount(threshold=1.0)
    data = fake_graph()
    assert page.locator(".ik-canvas .ik-node").count() == len(data["nodes"])
    for kind, shape in [("feature", "circle"), ("error", "path"), ("embedding", "rect"), ("logit", "rect")]:
        expected = sum(n["kind"] == kind for n in data["nodes"])
        assert page.locator(f".ik-canvas .ik-{kind} {shape}.ik-shape").count() == expected
    expect(graph_node(page, TEXAS)).to_have_attribute(
        "aria-label", "feature 'Texas', layer 3, position 6, activation 4.4"
    )
    expect(graph_node(page, "out0")).to_have_text(re.compile("Austin.*43 %"))


def test_layers_rise_and_positions_run_right(mount):
    page = mount(threshold=1.0)
    centre = {
        n["id"]: graph_node(page, n["id"]).locator(".ik-shape").first.bounding_box() for n in fake_graph()["nodes"]
    }
    nodes = fake_graph()["nodes"]
    for a in nodes:
        for b in nodes:
            if a["layer"] < b["layer"]:
                assert centre[a["id"]]["y"] > centre[b["id"]]["y"]
            if a["position"] < b["position"] and "logit" not in (a["kind"], b["kind"]):
                assert centre[a["id"]]["x"] < centre[b["id"]]["x"]


def test_white_space_in_tokens_is_visible(mount):
    page = mount()
    tokens = page.locator(".ik-axis-token").all_text_contents()
    assert [re.sub("position.*", "", token) for token in tokens][1::7] == ["␣capital", "⏎"]


def test_negative_edges_are_dashed_and_orange(mount):
    page = mount()
    graph_node(page, AUSTIN).dispatch_event("click")  # "say a city" takes away from it, "Texas" adds
    edges = page.locator(".ik-active .ik-edge")
    looks = edges.evaluate_all("""es => es.map(e => [e.classList.contains('ik-negative'),
        getComputedStyle(e).strokeDasharray !== 'none', getComputedStyle(e).stroke])""")
    assert {look[0] for look in looks} == {True, False}
    for negative, dashed, colour in looks:
        assert dashed == negative
        assert colour == ("rgb(213, 94, 0)" if negative else "rgb(0, 114, 178)")


def test_at_rest_only_the_strongest_edges_are_drawn(mount):
    data = fake_graph()
    page = mount(data, threshold=1.0)
    assert len(data["edges"]) > 120
    assert page.locator(".ik-rest .ik-edge").count() == 120
    assert page.locator(".ik-active .ik-edge").count() == 0


OPACITIES = "es => es.map(e => Number(e.getAttribute('stroke-opacity')))"


def test_hover_shows_exactly_the_edges_of_that_node(mount):
    data = fake_graph()
    page = mount(data, threshold=1.0)
    index = fake_graph_index(TEXAS)
    graph_node(page, TEXAS).hover()
    assert page.locator(".ik-active .ik-edge").count() == sum(index in edge[:2] for edge in data["edges"])
    expect(page.locator(".ik-tooltip")).to_contain_text("Texas")


def test_a_click_on_an_edge_chooses_it(mount):
    data = fake_graph()
    page = mount(data, threshold=1.0, edge=[])
    graph_node(page, TEXAS).click()
    handle = page.locator(".ik-active .ik-handle").last
    handle.dispatch_event("click")
    chosen = page.evaluate("model.get('edge')")
    ids = [node["id"] for node in data["nodes"]]
    assert len(chosen) == 2 and tuple(map(ids.index, chosen)) in {tuple(edge[:2]) for edge in data["edges"]}
    assert TEXAS in chosen and page.evaluate("model.saved") > 0
    page.locator(".ik-outgoing .ik-row").first.click()  # a row of the card: the edge, and the node at its other end
    source, target = page.evaluate("model.get('edge')")
    assert source == TEXAS and page.evaluate("model.get('selected')") == target


def test_edges_that_are_not_sure_are_faint(mount):
    data = fake_graph()
    page = mount(data, threshold=1.0)
    plain = page.locator(".ik-rest .ik-edge").evaluate_all(OPACITIES)
    unsure = data | {"edges": [(*edge, 0.2) for edge in data["edges"]]}
    page.evaluate("data => model.set('data', data)", for_page(unsure))
    faint = page.locator(".ik-rest .ik-edge").evaluate_all(OPACITIES)
    assert [round(0.35 * opacity, 2) for opacity in plain] == pytest.approx(faint, abs=0.011)
    expect(page.locator(".ik-legend")).to_contain_text("faint: sure by less than half")
    graph_node(page, TEXAS).click()
    assert "20 % sure" in page.locator(".ik-incoming .ik-row").first.get_attribute("aria-label")


def test_a_large_graph_draws_all_its_nodes(mount):
    data = fake_graph(n_filler=260)
    page = mount(data, threshold=1.0)
    expect(page.locator(".ik-count")).to_have_text(f"{len(data['nodes'])} of {len(data['nodes'])} nodes")
    boxes = page.locator(".ik-canvas .ik-feature .ik-shape").evaluate_all("""es => es.map(e => {
        const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })""")
    assert len({(round(x), round(y)) for x, y in boxes}) == len(boxes)  # none on top of another


def test_a_wide_graph_starts_at_its_outputs(mount):
    page = mount(fake_graph(n_filler=260), threshold=1.0)
    scroll = page.locator(".ik-scroll")
    assert scroll.evaluate("e => e.scrollWidth > e.clientWidth + 100")
    expect(page.locator(".ik-canvas .ik-logit").last).to_be_in_viewport()
    expect(page.locator(".ik-axis").last).to_be_in_viewport()  # the layer names stay put


# ---------------------------------------------------------------- selecting


def test_click_opens_the_card_and_sets_selected(mount):
    page = mount()
    graph_node(page, TEXAS).click()
    assert trait(page, "selected") == TEXAS and page.evaluate("model.saved") == 1
    card = page.locator(".ik-card")
    expect(card.locator(".ik-card-title")).to_have_text("Texas")
    for text in ("layer 3", "position 6", "concept of Texas", "4.4", "␣Austin", "⏎", "␣Paris"):
        expect(card).to_contain_text(text)
    expect(card.locator(".ik-peak").first).to_have_text("␣Texas")
    expect(graph_node(page, TEXAS)).to_have_attribute("aria-pressed", "true")


def test_another_card_begins_at_its_title(mount):
    page = mount(threshold=1.0)
    graph_node(page, TEXAS).click()
    card = page.locator(".ik-card")
    card.evaluate("card => { card.style.height = '90px'; card.style.position = 'static'; card.scrollTop = 200; }")
    page.keyboard.press("p")  # the same card, drawn again
    assert card.evaluate("card => card.scrollTop") > 0
    page.evaluate("name => model.set('selected', name)", AUSTIN)
    expect(page.locator(".ik-card-title")).to_have_text("say Austin")
    assert card.evaluate("card => card.scrollTop") == 0


def test_the_card_of_an_error_says_what_an_error_is(mount):
    page = mount(threshold=1.0)
    graph_node(page, TEXAS).click()
    assert page.locator(".ik-about").count() == 0
    page.locator(".ik-canvas .ik-error").first.dispatch_event("click")
    expect(page.locator(".ik-card .ik-about")).to_contain_text("the features do not explain")


def test_ranked_lists_are_sorted_and_lead_on(mount):
    page = mount(threshold=1.0)
    graph_node(page, TEXAS).click()
    weights = [float(w.replace("−", "-")) for w in page.locator(".ik-incoming .ik-row-weight").all_text_contents()]
    assert weights[0] == 2.4 and any(w < 0 for w in weights)
    assert [abs(w) for w in weights] == sorted((abs(w) for w in weights), reverse=True)
    page.locator(".ik-incoming .ik-row").first.click()
    assert trait(page, "selected") == DALLAS
    first = page.locator(".ik-outgoing .ik-row").first
    expect(first).to_have_attribute("aria-label", re.compile("Texas.*2.4"))


def test_python_can_select_and_the_background_clears(mount):
    page = mount()
    page.evaluate("name => model.set('selected', name)", AUSTIN)
    expect(page.locator(".ik-card-title")).to_have_text("say Austin")
    page.locator(".ik-canvas").click(position={"x": 3, "y": 3})
    assert trait(page, "selected") == ""
    expect(page.locator(".ik-card-title")).to_have_count(0)


# ---------------------------------------------------------------- keyboard


def test_arrows_move_enter_selects_p_pins_escape_clears(mount):
    page = mount()
    page.locator(".ik-slider").focus()
    page.keyboard.press("Tab")
    assert focused(page) == "out0"  # Tab enters the graph at the most probable output
    page.keyboard.press("ArrowDown")
    assert focused(page).startswith(("f5", "g", "x5"))
    graph_node(page, "e0").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert focused(page) == "e6"
    page.keyboard.press("ArrowUp")
    assert focused(page) == DALLAS
    page.keyboard.press("Enter")
    assert trait(page, "selected") == DALLAS and focused(page) == DALLAS
    page.keyboard.press("p")
    assert trait(page, "pinned") == [DALLAS] and focused(page) == DALLAS
    page.keyboard.press("Escape")
    assert trait(page, "selected") == "" and trait(page, "pinned") == [DALLAS]
    page.keyboard.press("Space")
    assert trait(page, "selected") == DALLAS


def test_one_tab_stop_and_it_is_a_shown_node(mount):
    page = mount(pinned=[max(fake_graph()["nodes"], key=lambda n: n["cumulative"])["id"]], threshold=0.1)
    pinned = trait(page, "pinned")[0]
    graph_node(page, pinned).focus()
    page.keyboard.press("p")  # unpinned, so the slider hides it
    expect(graph_node(page, pinned)).to_be_hidden()
    stops = page.locator(".ik-canvas .ik-node[tabindex='0']")
    assert stops.count() == 1
    expect(stops).to_be_visible()


def test_jupyterlab_shortcuts_are_off_on_everything_focusable(mount):
    page = mount(
        pinned=[TEXAS, AUSTIN],
        selected=TEXAS,
        supernodes=[{"name": "capital", "nodes": ["f0_1_capital", "f2_1_say-a-capital"]}],
    )
    focusable = page.locator(".ik-graph :is(button, input, select, textarea, a, [tabindex])")
    marks = focusable.evaluate_all("es => es.map(e => e.hasAttribute('data-lm-suppress-shortcuts'))")
    assert len(marks) > 80 and all(marks)


# ---------------------------------------------------------------- pruning, pinning, grouping


def test_slider_prunes_and_python_moves_the_slider(mount):
    data = fake_graph()
    page = mount(data)
    total = len(data["nodes"])
    for percent in (20, 0, 100):
        page.locator(".ik-slider").fill(str(percent))
        assert trait(page, "threshold") == percent / 100
        shown = expected_count(data, percent / 100)
        expect(page.locator(".ik-count")).to_have_text(f"{shown} of {total} nodes")
        assert page.locator(".ik-canvas .ik-node:not(.ik-hidden)").count() == shown
    assert page.evaluate("model.saved") == 3
    page.evaluate("model.set('threshold', 0.5)")
    expect(page.locator(".ik-slider")).to_have_value("50")
    expect(page.locator(".ik-count")).to_have_text(f"{expected_count(data, 0.5)} of {total} nodes")


def test_pin_button_and_strip(mount):
    page = mount()
    graph_node(page, TEXAS).click()
    page.locator(".ik-pin").click()
    assert trait(page, "pinned") == [TEXAS]
    expect(page.locator(".ik-pin")).to_have_text("Unpin")
    expect(page.locator(".ik-pin")).to_be_focused()
    expect(graph_node(page, TEXAS)).to_have_class(re.compile("ik-pinned"))
    page.locator(".ik-slider").fill("0")
    expect(graph_node(page, TEXAS)).to_be_visible()
    page.locator(".ik-remove").click()
    assert trait(page, "pinned") == []
    expect(graph_node(page, TEXAS)).not_to_have_class(re.compile("ik-pinned"))


def test_python_can_pin(mount):
    page = mount()
    page.evaluate("names => model.set('pinned', names)", [TEXAS, DALLAS])
    assert page.locator(".ik-pinchip").count() == 2
    expect(graph_node(page, DALLAS)).to_have_attribute("aria-label", re.compile(", pinned$"))
    page.evaluate("model.set('pinned', [])")
    assert page.locator(".ik-pinchip").count() == 0


def test_group_pinned_into_a_supernode_and_ungroup(mount):
    data = fake_graph()
    page = mount(data)
    pin(page, TEXAS, AUSTIN, "f4_8_Texas")
    expect(page.locator(".ik-group")).to_be_disabled()
    for name in (TEXAS, "f4_8_Texas"):
        page.locator(f".ik-pinchip[data-id='{name}'] input").check()
    page.locator(".ik-group").click()
    expect(page.locator(".ik-name")).to_be_focused()
    page.keyboard.type("Texas, twice")
    page.keyboard.press("Enter")
    assert trait(page, "supernodes") == [{"name": "Texas, twice", "nodes": [TEXAS, "f4_8_Texas"]}]
    assert trait(page, "pinned") == [TEXAS, AUSTIN, "f4_8_Texas"]
    assert page.locator(".ik-subgraph .ik-super text").text_content() == "Texas, twice"
    ids = {fake_graph_index(TEXAS), fake_graph_index("f4_8_Texas")}
    total = sum(w for s, t, w in data["edges"] if s in ids and t == fake_graph_index(AUSTIN))
    expect(page.locator(".ik-subgraph")).to_have_attribute(
        "aria-label", re.compile(rf"Texas, twice to say Austin \+{re.escape(format(total, '.2g'))}")
    )
    page.locator(".ik-ungroup").click()
    assert trait(page, "supernodes") == []
    assert page.locator(".ik-pinchip input").count() == 3


def test_escape_closes_the_name_form_without_grouping(mount):
    page = mount(pinned=[TEXAS, AUSTIN])
    for box in page.locator(".ik-pinchip input").all():
        box.check()
    page.locator(".ik-group").click()
    page.keyboard.type("half a na")
    page.keyboard.press("Escape")
    expect(page.locator(".ik-naming")).to_be_hidden()
    assert trait(page, "supernodes") == []


def test_supernodes_from_python_are_drawn(mount):
    page = mount(threshold=0.0)
    page.evaluate(
        "groups => model.set('supernodes', groups)",
        [{"name": "capital", "nodes": ["f0_1_capital", "f2_1_say-a-capital"]}, {"name": "Texas", "nodes": [TEXAS]}],
    )
    assert sorted(page.locator(".ik-super text").all_text_contents()) == ["Texas", "capital"]
    expect(graph_node(page, TEXAS)).to_be_visible()


# ---------------------------------------------------------------- the model behind it


def test_new_data_replaces_the_graph(mount):
    page = mount(selected=TEXAS)
    data = fake_graph()
    data |= {"title": "Another", "nodes": [node("only", "embedding", -1, 0, "The")], "edges": []}
    page.evaluate("data => model.set('data', data)", for_page(data))
    assert page.locator(".ik-canvas .ik-node").count() == 1
    expect(page.locator(".ik-title")).to_have_text("Another")
    expect(page.locator(".ik-card-title")).to_have_count(0)


def test_cleanup_lets_go_of_everything(mount):
    page = mount()
    registered = "Object.values(model.handlers).reduce((sum, list) => sum + list.length, 0)"
    assert page.evaluate(registered) == 5
    page.evaluate("cleanup()")
    assert page.evaluate(registered) == 0
    assert page.locator(".ik-graph").count() == 0


def test_two_views_in_one_notebook_do_not_mix(mount):
    page = mount()
    page.evaluate(
        "([source, state]) => { window.first = model; return window.mount(source, state); }", [module(), state()]
    )
    graph_node(page, TEXAS).nth(1).click()
    assert trait(page, "selected") == TEXAS
    assert page.evaluate("first.get('selected')") == ""


# ---------------------------------------------------------------- strangers' strings

BAD = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>\" onfocus=\"window.hacked = 1"


def hostile_graph():
    data = fake_graph()
    data |= {"title": BAD, "prompt": BAD, "tokens": [BAD] * len(data["tokens"]), "scores": {BAD: 0.5}}
    for n in data["nodes"]:
        n |= {
            "label": BAD,
            "concept": BAD,
            "top_logits": [BAD],
            "bottom_logits": [BAD],
            "examples": [{"tokens": [BAD, BAD], "activations": [0.1, 1.0]}],
        }
    return data


def test_hostile_strings_stay_strings(mount):
    page = mount(
        hostile_graph(),
        pinned=[TEXAS, AUSTIN],
        selected=TEXAS,
        supernodes=[{"name": BAD, "nodes": [DALLAS, "f0_1_capital"]}],
    )
    graph_node(page, AUSTIN).click()
    expect(page.locator(".ik-card-title")).to_contain_text("<img src=x")
    assert page.locator(".ik-graph :is(img, script)").count() == 0
    assert page.evaluate("window.hacked") is None


# ---------------------------------------------------------------- the self-contained page


@pytest.fixture
def open_file(page, tmp_path):
    def open_(text):
        path = tmp_path / "graph.html"
        path.write_text(text, encoding="utf-8")
        page.allowed = (path.as_uri(),)
        page.goto(path.as_uri())
        return page

    yield open_
    assert page.complaints == [] and page.blocked == []


def test_page_from_a_file_is_alive(open_file):
    page = open_file(graph_page(fake_graph(), 0.5))
    expect(page.locator(".ik-count")).to_have_text(
        f"{expected_count(fake_graph(), 0.5)} of {len(fake_graph()['nodes'])} nodes"
    )
    graph_node(page, TEXAS).click()
    expect(page.locator(".ik-card-title")).to_have_text("Texas")
    pin(page, AUSTIN)
    assert page.locator(".ik-pinchip").count() == 1
    heat = page.locator(".ik-peak").first.evaluate("e => getComputedStyle(e).backgroundColor")
    assert heat not in ("rgba(0, 0, 0, 0)", "transparent")


def test_page_with_hostile_strings_is_alive_and_harmless(open_file):
    page = open_file(graph_page(hostile_graph(), 1.0))
    graph_node(page, TEXAS).dispatch_event("click")
    expect(page.locator(".ik-card-title")).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None


def test_page_policy_refuses_other_scripts_and_the_network(open_file, page):
    page = open_file(graph_page(fake_graph()))
    page.locator(".ik-node").first.wait_for()
    refused = page.evaluate("""async () => {
        const script = document.createElement('script');
        script.textContent = 'window.hacked = 1';
        document.body.append(script);
        const answer = await fetch('https://example.invalid/').then(() => 'sent', () => 'refused');
        return [window.hacked ?? null, answer];
    }""")
    assert refused == [None, "refused"]
    assert any("Content Security Policy" in text for text in page.complaints)
    page.complaints.clear()


def test_page_without_script_shows_the_twin(browser, tmp_path):
    path = tmp_path / "graph.html"
    path.write_text(graph_page(fake_graph()), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    expect(page.locator("svg[role=img]")).to_be_visible()
    context.close()
