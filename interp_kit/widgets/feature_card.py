"""A feature at a glance: where it fires, whose logits it raises, its label and what that is worth; and a browser."""

import html
from pathlib import Path

import ipywidgets as widgets
import jinja2

_TEMPLATE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
    (Path(__file__).parent / "feature_card.html").read_text(encoding="utf-8")
)
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # above 0, below 0
SHOWN = 200  # features listed at once


class FeatureCard:
    """One feature as a card, shown by a notebook.

    data: {"title": str, "label": str, "evidence": str, "facts": {name: value}, "histogram": [counts], "lists":
    {name: [tokens]}, "groups": {name: [{"tokens": [str], "activations": [float]}]}, "nodes": [ids]}; all but the title
    may be missing.
    """

    def __init__(self, data: dict):
        self.data = data

    def _repr_html_(self) -> str:
        data = self.data
        counts = data.get("histogram") or []
        return _TEMPLATE.render(
            title=data["title"],
            label=data.get("label"),
            evidence=data.get("evidence"),
            facts=[(name, _short(value)) for name, value in data.get("facts", {}).items()],
            bars=_bars(counts),
            bars_label=f"histogram of activations: {len(counts)} bins from weak to strong",
            lists=[(name, [_visible(t) for t in tokens]) for name, tokens in data.get("lists", {}).items() if tokens],
            groups=[(name, [_heat(e) for e in some]) for name, some in data.get("groups", {}).items() if some],
            nodes=data.get("nodes") or [],
        )

    def __repr__(self):
        return f"FeatureCard({self.data['title']}, {self.data.get('label') or 'no label'})"


class FeatureBrowser(widgets.VBox):
    """All features of a store: search them, look at one, name it.

    rows: [{"layer": int, "feature": int, "label": str, "search": str}]; card(layer, feature) gives a `FeatureCard`'s
    data. What the reader types into "your label" is in `labels`: {(layer, feature): text}.
    """

    def __init__(self, rows: list[dict], card):
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
        left = widgets.VBox([self._list, self._count])
        right = widgets.VBox([self._view, self._label])
        super().__init__([widgets.HBox([self._search, self._layer]), widgets.HBox([left, right])])
        self._find()

    @property
    def selected(self) -> tuple[int, int] | None:
        """(layer, feature) of the card that is open; settable."""
        return self._list.value

    @selected.setter
    def selected(self, at):
        if at not in {(row["layer"], row["feature"]) for row in self._rows}:
            raise ValueError(f"{at!r} is not one of the {len(self._rows):,} features here: expected (layer, feature)")
        self._search.value, self._layer.value = "", at[0]
        if at not in [value for _, value in self._list.options]:
            self._list.options = [(f"{at[0]}/{at[1]}", at), *self._list.options]
        self._list.value = at

    def _find(self, _=None):
        wanted, layer = self._search.value.strip().lower(), self._layer.value
        found = [
            row for row in self._rows if (layer is None or row["layer"] == layer) and wanted in row["search"].lower()
        ]
        self._count.value = html.escape(f"{len(found):,} features" + (f", the first {SHOWN}" * (len(found) > SHOWN)))
        self._list.options = [
            (f"{row['layer']}/{row['feature']}  {row['label']}", (row["layer"], row["feature"]))
            for row in found[:SHOWN]
        ]

    def _show(self, _=None):
        at = self._list.value
        self._view.value = FeatureCard(self._card(*at))._repr_html_() if at else ""
        self._label.value = self.labels.get(at, "")

    def _keep(self, change):
        if self._list.value and change.new.strip():
            self.labels[self._list.value] = change.new.strip()


def _heat(example):
    """[(token, colour, tip, is it the peak)] with the colour's depth by the share of the highest."""
    tokens, active = example["tokens"], [float(a) for a in example["activations"]]
    highest = max(map(abs, active), default=0) or 1
    peak = max(range(len(active)), key=lambda i: abs(active[i]), default=None)
    cells = []
    for i, (token, a) in enumerate(zip(tokens, active)):
        r, g, b = BLUE if a >= 0 else ORANGE
        cells.append((token, f"rgba({r},{g},{b},{abs(a) / highest * 0.6:.2f})", f"{a:.3g}", i == peak and a != 0))
    return cells


def _bars(counts):
    """(height in percent, tip) for the bins between the first and the last that hold something."""
    used = [i for i, n in enumerate(counts) if n]
    if not used:
        return []
    shown = counts[used[0] : used[-1] + 1]
    return [(max(100 * n / max(shown), 2 if n else 0), f"{n:,} tokens") for n in shown]


def _visible(token):
    return token if token.strip() else repr(token)


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
