
// The self-contained page: the module above, with the page's own state in place of a notebook kernel.
class PageModel {
  constructor(state) { this.state = state; this.handlers = new Map(); }
  get(name) { return this.state[name]; }
  set(name, value) {
    this.state[name] = value;
    for (const handler of this.handlers.get(`change:${name}`) ?? []) handler();
  }
  on(event, handler) { this.handlers.set(event, [...this.handlers.get(event) ?? [], handler]); }
  off(event, handler) { this.handlers.set(event, this.handlers.get(event).filter((other) => other !== handler)); }
  save_changes() {}
}

const state = JSON.parse(document.getElementById("state").textContent);
render({ model: new PageModel(state), el: document.getElementById("view") });
