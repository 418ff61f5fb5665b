"""The graph view's own module in a bare page, with a stand-in for the kernel."""

import base64
from pathlib import Path

from fake_graph_data import fake_graph

import interp_kit.widgets
from interp_kit.widgets.geometry import measure

WIDGETS = Path(interp_kit.widgets.__file__).parent
STUB = """
class Model {
  constructor(state) { this.state = state; this.handlers = {}; this.saved = 0; }
  get(k) { return this.state[k]; }
  set(k, v) { this.state[k] = v; for (const f of this.handlers['change:' + k] ?? []) f(); }
  on(e, f) { (this.handlers[e] ??= []).push(f); }
  off(e, f) { this.handlers[e] = (this.handlers[e] ?? []).filter(g => g !== f); }
  save_changes() { this.saved += 1; }
}
window.mount = async (source, state) => {
  const view = (await import('data:text/javascript;base64,' + source)).default;
  const model = window.model = new Model(state), el = document.createElement('div');
  document.body.append(el);
  window.cleanup = await view.render({ model, el });
};
"""


def module():
    return base64.b64encode((WIDGETS / "graph_view.js").read_bytes()).decode()


def for_page(data):
    """The graph as the kernel sends it."""
    return {**data, "measures": measure(data)}


def state(data=None, **traits):
    rest = {"pinned": [], "supernodes": [], "selected": "", "threshold": 0.8}
    return {"data": for_page(data or fake_graph()), **rest, **traits}


def show(page, data=None, **traits):
    css = (WIDGETS / "graph_view.css").read_text(encoding="utf-8")
    page.set_content(f"<!doctype html><meta charset=utf-8><style>{css}</style><body></body>")
    page.add_script_tag(content=STUB)
    page.evaluate("([source, state]) => window.mount(source, state)", [module(), state(data, **traits)])
    return page
