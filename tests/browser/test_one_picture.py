"""The static picture is the live one: every node, label and edge of it within a pixel."""

import sys
from pathlib import Path

import pytest
from fake_graph_data import fake_graph
from stub_kernel import for_page

import interp_kit as ik
from interp_kit.widgets import GraphView, graph_svg
from interp_kit.widgets.geometry import GEOMETRY, measure

TOUR = "The capital of the state containing Dallas is"
TEXAS, SUPERNODE = ["f3_6_Texas"], {"name": "weak", "nodes": ["g0", "g1", "x0_1"]}

# Widen the live view until its plot is `plot` pixels wide; the static picture goes below it.
PREPARE = """([plot, axis, svg]) => {
  const el = document.body.firstElementChild, scroll = document.querySelector('.ik-scroll');
  let width = 1200;
  for (let i = 0; i < 4; i += 1) {
    el.style.width = width + 'px';
    width += plot + axis + 1 - scroll.clientWidth;
  }
  model.set('threshold', model.get('threshold'));  // draws again
  document.querySelector('#twin')?.remove();
  const twin = document.createElement('div');
  twin.id = 'twin';
  twin.innerHTML = svg;
  document.body.append(twin);
}"""
# Everything drawn, as [what, [numbers]]. Nodes are boxes from the left edge of the picture and the top of the plot.
READ = """() => {
  const numbers = (text) => text.match(/-?[\\d.]+/g).map(Number);
  const at = (text, dx) => [Number(text.getAttribute('x')) + dx, Number(text.getAttribute('y'))];
  const box = (shape, left, top) => {
    const b = shape.getBBox(), m = shape.getScreenCTM(), x = m.e + b.x - left, y = m.f + b.y - top;
    return [x, y, x + b.width, y + b.height];
  };
  const scroll = document.querySelector('.ik-scroll'), canvas = document.querySelector('.ik-canvas');
  const left = scroll.getBoundingClientRect().left - scroll.scrollLeft, top = canvas.getBoundingClientRect().top;
  const all = (within, selector) => [...within.querySelectorAll(selector)];
  const live = {
    nodes: all(canvas, '.ik-node:not(.ik-hidden)').map((node) =>
      [node.getAttribute('class').match(/ik-(feature|error|embedding|logit)/)[1],
        box(node.querySelector('.ik-shape'), left, top)]),
    edges: all(canvas, '.ik-rest path').map((edge) => [edge.getAttribute('stroke-dasharray'),
      [...numbers(edge.getAttribute('d')), Number(edge.getAttribute('stroke-width'))]]),
    labels: all(canvas, '.ik-label').map((label) => [label.textContent, at(label, 0)]),
    layers: all(scroll, '.ik-axis').map((name) => [name.textContent, at(name, 0)]),
    tokens: all(canvas, '.ik-axis-token').map((token) =>
      [token.textContent.replace(/position.*/s, ''), at(token, 0)]),
    bands: all(canvas, '.ik-odd').map((band) => ['band', box(band, canvas.getBoundingClientRect().left, top)]),
  };
  const svg = document.querySelector('#twin svg'), plot = svg.querySelector('g'), m = plot.getScreenCTM();
  const twinLeft = svg.getBoundingClientRect().left, axis = m.e - twinLeft;
  const texts = [...plot.children].filter((child) => child.tagName === 'text');
  const twin = {
    nodes: all(plot, 'g > title').map((title) =>
      [title.textContent.split(' ')[0], box(title.nextElementSibling, twinLeft, m.f)]),
    edges: all(plot, '[fill=none] > path').map((edge) => [edge.getAttribute('stroke-dasharray'),
      [...numbers(edge.getAttribute('d')), Number(edge.getAttribute('stroke-width'))]]),
    labels: texts.filter((text) => text.hasAttribute('paint-order')).map((text) => [text.textContent, at(text, 0)]),
    layers: texts.filter((text) => text.getAttribute('text-anchor') === 'end')
      .map((text) => [text.textContent, at(text, axis)]),
    tokens: texts.filter((text) => text.hasAttribute('font-family')).map((text) => [text.textContent, at(text, 0)]),
    bands: [...plot.children].filter((child) => child.tagName === 'rect').map((band) => ['band', box(band, m.e, m.f)]),
  };
  return [live, twin];
}"""


def differences(page, svg, plot=860):
    """The largest distance in pixels of each sort of mark between the page and the static picture; infinite where they
    do not have the same marks."""
    page.evaluate(PREPARE, [plot, GEOMETRY.axis, svg])
    live, twin = page.evaluate(READ)
    assert live["nodes"] and twin["nodes"], "nothing to compare"
    return {sort: largest(live[sort], twin[sort]) for sort in live}


def largest(live, twin):
    if [name for name, _ in live] != [name for name, _ in twin]:
        return float("inf")
    return max((abs(a - b) for (_, one), (_, other) in zip(live, twin) for a, b in zip(one, other)), default=0)


@pytest.fixture(scope="module")
def tour():
    """The README's graph."""
    graph = ik.attribute(ik.load_model("pocket"), ik.load_transcoder("pocket"), TOUR)
    return graph.annotate(ik.load_features("pocket"), ik.load_labels("pocket")).prune(0.7).view_data()


def static(data, threshold, pinned=()):
    return GraphView(data, pinned, threshold).picture().svg


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("supernodes, pinned", [([], []), ([], TEXAS), ([SUPERNODE], TEXAS)])
def test_a_made_up_graph(mount, threshold, supernodes, pinned):
    data = fake_graph() | {"supernodes": supernodes}
    page = mount(data, threshold=threshold, supernodes=supernodes, pinned=pinned)
    apart = differences(page, static(data, threshold, pinned))
    assert max(apart.values()) <= 1, apart


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_tour(mount, tour, threshold, grouped):
    names = [node["id"] for node in tour["nodes"] if node["kind"] == "feature"]
    data = tour | {"supernodes": [{"name": "two", "nodes": names[-2:]}] if grouped else []}
    page = mount(data, threshold=threshold, supernodes=data["supernodes"])
    apart = differences(page, static(data, threshold))
    assert max(apart.values()) <= 1, apart


def test_the_readme_shows_what_the_code_draws(mount, tour):
    picture = Path(ik.__file__).parents[1] / "data" / "pocket" / "tour.svg"
    apart = differences(mount(tour, threshold=0.7), picture.read_text(encoding="utf-8"))
    assert max(apart.values()) <= 1, apart


@pytest.mark.parametrize("plot", [330, 500, 860, 1500])
@pytest.mark.parametrize("n_filler", [0, 32, 260])
def test_any_graph_at_any_width(mount, monkeypatch, n_filler, plot):
    monkeypatch.setattr(sys.modules["interp_kit.widgets.graph_svg"], "LEAST_PLOT", plot)
    page = mount()
    for seed in range(3):
        data = fake_graph(seed, n_filler)
        page.evaluate("data => model.set('data', data)", for_page(data))
        for threshold in (0.2, 0.6, 1.0):
            page.evaluate("threshold => model.set('threshold', threshold)", threshold)
            apart = differences(page, graph_svg(data, threshold), plot)
            assert max(apart.values()) <= 1, (seed, threshold, apart)


@pytest.mark.parametrize("number", GEOMETRY._fields)
def test_one_number_changed_on_one_side_is_seen(mount, number):
    """So that the tests above can fail: the page reads every number of the geometry."""
    data = fake_graph()
    changed = measure(data)
    value = changed["geometry"][number]
    changed["geometry"][number] = value / 2 if value > 2 else value + 2
    page = mount(data)
    page.evaluate("data => model.set('data', data)", data | {"measures": changed})
    apart = []
    for threshold in (0.1, 1.0):
        page.evaluate("threshold => model.set('threshold', threshold)", threshold)
        apart.append(differences(page, graph_svg(data, threshold)))
    assert max(max(sorts.values()) for sorts in apart) > 1, apart


@pytest.mark.parametrize("measured", ["column_widths", "half_sizes", "half_labels", "order"])
def test_one_measure_changed_on_one_side_is_seen(mount, measured):
    data = fake_graph()
    changed = measure(data)
    page = mount(data)
    page.evaluate("data => model.set('data', data)", data | {"measures": changed | {measured: changed[measured][::-1]}})
    page.evaluate("model.set('threshold', 1)")
    apart = differences(page, graph_svg(data, 1.0))
    assert max(apart.values()) > 1, apart
