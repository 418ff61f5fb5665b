"""A feature at a glance: where it fires, whose logits it raises, its label and what that is worth; and a browser."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import ipywidgets as widgets
import jinja2
import traitlets

from .colours import shade
from .graph_data import FeatureExample
from .live import Live
from .picture import Picture
from .plain_text import spelled
from .sheet import Run, Sheet, quiet

_TEMPLATE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
    (Path(__file__).parent / "feature_card.html").read_text(encoding="utf-8")
)
LARGEST_OPACITY = 0.6  # of the colour of the largest activation
LISTED_FEATURES = 200  # at once, in the browser
PICTURED_FEATURES = 12  # of them, in its picture


class FeatureCardData(TypedDict):
    """What a card shows. All but the title may be missing."""

    title: str
    label: NotRequired[str | None]
    evidence: NotRequired[str | None]
    facts: NotRequired[Mapping[str, object]]
    histogram: NotRequired[Sequence[int]]  # counts, from weak to strong
    lists: NotRequired[Mapping[str, Sequence[str]]]  # tokens, by the list's name
    groups: NotRequired[Mapping[str, Sequence[FeatureExample]]]  # examples, by the group's name
    nodes: NotRequired[Sequence[str]]  # ids in a graph


class FeatureRow(TypedDict):
    """A feature in the browser's list. `search` is the text that is searched."""

    layer: int
    feature: int
    label: str
    search: str


class FeatureCard:
    """One feature as a card, shown by a notebook.

    >>> FeatureCard({"title": "layer 1, feature 2", "label": "Texas", "lists": {"promotes": [" Austin"]}})
    FeatureCard(layer 1, feature 2, Texas)
    """

    def __init__(self, data: FeatureCardData) -> None:
        self.data = data

    def _repr_html_(self) -> str:
        data = self.data
        return _TEMPLATE.render(
            data,
            facts=[(name, _short(value)) for name, value in data.get("facts", {}).items()],
            bars=_bars(data.get("histogram") or []),
            lists=[(name, [_visible(t) for t in tokens]) for name, tokens in data.get("lists", {}).items() if tokens],
            groups=[(name, [_heat(e) for e in some]) for name, some in data.get("groups", {}).items() if some],
        )

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        picture, metadata = self.picture().bundle()
        return {"text/html": self._repr_html_(), "text/plain": repr(self), **picture}, metadata

    def picture(self) -> Picture:
        """The card, drawn."""
        sheet = Sheet(repr(self))
        _draw_card(sheet, self.data)
        return Picture(sheet.finished(), repr(self))

    def __repr__(self) -> str:
        return spelled(f"FeatureCard({self.data['title']}, {self.data.get('label') or 'no label'})")


class FeatureBrowser(Live, widgets.VBox):
    """All features of a store: search them, look at one, name it.

    card: called as `card(layer, feature)`, returns the data of a `FeatureCard`. What the reader types into "your label"
    is in `labels`: {(layer, feature): text}.

    >>> browser = FeatureBrowser([{"layer": 1, "feature": 2, "label": "Texas", "search": "Texas Dallas"}], card)
    >>> browser.selected = (1, 2)
    """

    def __init__(self, rows: Sequence[FeatureRow], card: Callable[[int, int], FeatureCardData]) -> None:
        self._rows, self._card = rows, card
        self.labels: dict[tuple[int, int], str] = {}
        layers = sorted({row["layer"] for row in rows})
        self._search = widgets.Text(placeholder="label or token", description="search", continuous_update=False)
        self._layer = widgets.Dropdown(options=[("all", None), *((str(l), l) for l in layers)], description="layer")
        self._list = widgets.Select(options=[], rows=12, layout={"width": "300px"})
        self._count = widgets.HTML()
        self._view = widgets.HTML()
        self._label = widgets.Text(description="your label", continuous_update=False)
        for control in (self._search, self._layer):
            control.observe(self._find, "value")
        self._list.observe(self._show, "value")
        self._label.observe(self._keep, "value")
        columns = [widgets.VBox([self._list, self._count]), widgets.VBox([self._view, self._label])]
        super().__init__([widgets.HBox([self._search, self._layer]), widgets.HBox(columns)])
        self._find()

    @property
    def selected(self) -> tuple[int, int] | None:
        """(layer, feature) of the card that is open; settable. Raises ValueError where there is no such feature.

        >>> browser.selected
        (1, 2)
        """
        return self._list.value

    @selected.setter
    def selected(self, at: tuple[int, int]) -> None:
        if at not in {(row["layer"], row["feature"]) for row in self._rows}:
            raise ValueError(f"{at!r} is not one of the {len(self._rows):,} features here: expected (layer, feature)")
        self._search.value, self._layer.value = "", at[0]
        if at not in [value for _, value in self._list.options]:
            self._list.options = [(f"{at[0]}/{at[1]}", at), *self._list.options]
        self._list.value = at

    def picture(self) -> Picture:
        """The first features found, and the card that is open."""
        at = self._list.value
        sheet = Sheet(f"{self._found} features" + (f", feature {at[0]}/{at[1]} open" if at else ""))
        sheet.flow([Run(f"{self._found} features", bold=True)])
        for name, _ in self._list.options[:PICTURED_FEATURES]:
            sheet.flow([Run(name)])
        sheet.gap()
        if at:
            sheet.rule()
            _draw_card(sheet, self._card(*at))
        return Picture(sheet.finished(), sheet.about)

    def _find(self, _: object = None) -> None:
        wanted, layer = self._search.value.strip().lower(), self._layer.value
        found = [row for row in self._rows if layer in (None, row["layer"]) and wanted in row["search"].lower()]
        more = f", the first {LISTED_FEATURES}" if len(found) > LISTED_FEATURES else ""
        self._found = f"{len(found):,}"
        self._count.value = html.escape(f"{self._found} features{more}")
        self._list.options = [
            (f"{row['layer']}/{row['feature']}  {row['label']}", (row["layer"], row["feature"]))
            for row in found[:LISTED_FEATURES]
        ]

    def _show(self, _: object = None) -> None:
        at = self._list.value
        self._view.value = FeatureCard(self._card(*at))._repr_html_() if at else ""
        self._label.value = self.labels.get(at, "") if at else ""

    def _keep(self, change: traitlets.Bunch) -> None:
        if self._list.value and change.new.strip():
            self.labels[self._list.value] = change.new.strip()


def _draw_card(sheet: Sheet, data: FeatureCardData) -> None:
    """The card as in feature_card.html."""
    label, evidence = data.get("label"), data.get("evidence")
    named = [Run("  "), Run(f" {label} ", ground=shade(1, 0.2))] if label else []
    sheet.flow([Run(data["title"], bold=True), *named])
    if evidence:
        sheet.flow([quiet(evidence)])
    facts = [(quiet(f"{name} "), Run(f"{_short(value)}   ")) for name, value in data.get("facts", {}).items()]
    sheet.flow([run for pair in facts for run in pair])
    if bars := _bars(data.get("histogram") or []):
        sheet.bars(height for height, _ in bars)
    for name, tokens in data.get("lists", {}).items():
        if tokens:
            sheet.flow([quiet(f"{name} "), *(Run(f"{_visible(token)} ") for token in tokens)])
    for name, examples in data.get("groups", {}).items():
        sheet.gap()
        sheet.flow([quiet(name)])
        for example in examples:
            sheet.flow([Run(token, ground, bold=peak) for token, ground, _, peak in _heat(example)])
            sheet.rule()
    if data.get("nodes"):
        sheet.gap()
        sheet.flow([quiet("in the graph: "), *(Run(f"{node} ") for node in data.get("nodes", ()))])


def _heat(example: FeatureExample) -> list[tuple[str, str, str, bool]]:
    """[(token, colour, tip, is it the peak)] with the colour's depth by the share of the highest."""
    tokens, active = example["tokens"], [float(a) for a in example["activations"]]
    highest = max(map(abs, active), default=0) or 1
    peak = max(range(len(active)), key=lambda i: abs(active[i]), default=None)
    colours = [shade(a, abs(a) / highest * LARGEST_OPACITY) for a in active]
    together = enumerate(zip(tokens, colours, active))
    return [(token, colour, f"{a:.3g}", i == peak and a != 0) for i, (token, colour, a) in together]


def _bars(counts: Sequence[int]) -> list[tuple[float, str]]:
    """(height in percent, tip) for the bins between the first and the last that hold something."""
    used = [i for i, n in enumerate(counts) if n]
    if not used:
        return []
    shown = counts[used[0] : used[-1] + 1]
    return [(max(100 * n / max(shown), 2 if n else 0), f"{n:,} tokens") for n in shown]


def _visible(token: str) -> str:
    return token if token.strip() else repr(token)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
