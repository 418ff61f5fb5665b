// The interactive attribution graph: token positions across, layers upwards, one SVG.
// One plain ES module with no imports. Labels, tokens and prompts come from strangers, so every
// string reaches the page through textContent or setAttribute, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const RANKED_ROWS = 25; // in "draws on" and "feeds"
const SUPERNODE_PITCH = 74; // between the rows of the supernode picture
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

// ---------------------------------------------------------------- elements

const FOCUSABLE = new Set(["button", "input"]);

function make(element, tag, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  // Without this mark on the focused element itself, pressing x cuts the notebook cell in JupyterLab.
  if (FOCUSABLE.has(tag) || "tabindex" in (attributes ?? {})) {
    element.setAttribute("data-lm-suppress-shortcuts", "");
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const html = (tag, attributes, ...children) => make(document.createElement(tag), tag, attributes, children);
const svg = (tag, attributes, ...children) =>
  make(document.createElementNS(SVG, tag), tag, attributes, children);

// Replace the contents but keep the keyboard where it was: on the element with the same data-key.
function refill(container, children, fallback) {
  const focused = container.getRootNode().activeElement;
  const inside = focused !== null && focused !== undefined && container.contains(focused);
  const key = inside ? focused.getAttribute("data-key") : null;
  container.replaceChildren(...children.filter((child) => child !== null));
  if (!inside) return;
  const keyed = [...container.querySelectorAll("[data-key]")];
  const same = keyed.find((item) => item.getAttribute("data-key") === key);
  (same ?? container.querySelector(fallback))?.focus({ preventScroll: true });
}

// ---------------------------------------------------------------- words and numbers

const ABOUT_ERRORS = "What the MLP of this layer writes here and the features do not explain. "
  + "It is a place where the graph knows no more: it has no examples, and what it draws on is not told.";
const ABOUT_LEFT_OUT = "All features that this graph left out because it has a limit of features (max_features), of all "
  + "layers and positions, as one. What they draw on is not told.";

const MARKS = { " ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥" };

// " Dallas" -> [["␣", true], ["Dallas", false]]: white space at the ends matters to a tokenizer.
function pieces(text) {
  return text.split(/(^ +| +$|[\n\r\t]+)/).filter(Boolean).map((piece) =>
    /^[ \n\r\t]+$/.test(piece) ? [[...piece].map((c) => MARKS[c]).join(""), true] : [piece, false]);
}

const clip = (text, length) => {
  const letters = [...text];
  return letters.length > length ? letters.slice(0, length - 1).join("") + "…" : text;
};

const spelled = (text) => pieces(text).map(([piece]) => piece).join("");
const tokenSpans = (text) => pieces(text).map(([piece, mark]) =>
  html("span", { class: mark ? "ik-space" : null, text: piece }));
const tokenTspans = (text, length) => pieces(clip(text, length)).map(([piece, mark]) =>
  svg("tspan", { class: mark ? "ik-space" : null, text: piece }));

const minus = (text) => text.replace("-", "−");
const round = (value) => minus(Number(value.toPrecision(3)).toString());
const signed = (value) => (value >= 0 ? "+" : "") + minus(value.toPrecision(2));
const percent = (value) => {
  const shown = 100 * value;
  return `${minus(shown.toFixed(Math.abs(shown) < 9.95 ? 1 : 0))} %`;
};

// Features and errors live in a layer; embeddings come before and outputs after.
const inLayer = (node) => node.kind === "feature" || node.kind === "error";

const kindName = (node) => ({ logit: "output", left_out: "features" }[node.kind] ?? node.kind);
const isUnexplained = (node) => node.kind === "error" || node.kind === "left_out";

function describe(node) {
  const parts = [node.kind === "error" ? "error" : `${kindName(node)} '${node.label}'`];
  if (inLayer(node)) parts.push(`layer ${node.layer}`);
  if (node.kind !== "left_out") parts.push(`position ${node.position}`);
  if (node.activation !== null) parts.push(`activation ${round(node.activation)}`);
  if (node.probability !== null) parts.push(`probability ${round(node.probability)}`);
  return parts.join(", ");
}

// ---------------------------------------------------------------- the graph and its layout

const bySize = (a, b) => Math.abs(b.weight) - Math.abs(a.weight);

// Adjacency lists, strongest first, so that drawing never searches the edge table.
function readGraph(data) {
  const { nodes, tokens } = data;
  const edges = data.edges.map(([source, target, weight, sure]) => ({ source, target, weight, sure }));
  edges.sort(bySize);
  const incoming = nodes.map(() => []), outgoing = nodes.map(() => []);
  for (const edge of edges) {
    incoming[edge.target].push(edge);
    outgoing[edge.source].push(edge);
  }
  return {
    data, nodes, tokens, edges, incoming, outgoing, ...data.measures,
    index: new Map(nodes.map((node, i) => [node.id, i])),
    logits: data.measures.order.filter((i) => nodes[i].kind === "logit"), // the most probable first
    topWeight: Math.max(1e-12, ...edges.slice(0, 1).map((edge) => Math.abs(edge.weight))),
  };
}

// What follows, as far as placeLabels, does what geometry.py does, function by function. The sizes come from there.

// Nodes that share a layer and a position, in data order, errors last.
function fillCells(graph, shown) {
  const cells = new Map();
  for (const i of graph.order) {
    const { kind, layer, position } = graph.nodes[i], key = `${layer},${position}`;
    if (!shown[i] || kind === "logit") continue;
    if (!cells.has(key)) cells.set(key, { layer, position, members: [] });
    cells.get(key).members.push(i);
  }
  for (const cell of cells.values()) {
    cell.lines = Math.ceil(cell.members.length / graph.geometry.per_line);
    cell.perLine = Math.ceil(cell.members.length / cell.lines);
  }
  return [...cells.values()];
}

// A column or a row, by its start and its size.
const span = (start, size) => ({ start, size, centre: start + size / 2 });

function placeColumns(graph, cells, room) {
  const { cell_margin, pitch } = graph.geometry, widths = [...graph.column_widths];
  for (const { position, perLine } of cells) {
    widths[position] = Math.max(widths[position], cell_margin + pitch * perLine);
  }
  const spare = Math.max(0, room - widths.reduce((a, b) => a + b, 0)) / widths.length;
  let x = 0;
  return widths.map((width) => {
    const column = span(x, width + spare);
    x += width + spare;
    return column;
  });
}

// Output boxes run leftwards from their column's right edge, the most probable first, wrapping.
function flowLogits(graph, columns) {
  const { logits, nodes, half_sizes: halfSizes } = graph, { logit_right, logit_gap } = graph.geometry;
  if (logits.length === 0) return { lines: 0, boxes: [] };
  const last = columns[Math.max(...logits.map((i) => nodes[i].position))], half = halfSizes[logits[0]][0];
  const right = last.start + last.size - logit_right, step = 2 * half + logit_gap;
  const most = Math.max(1, Math.floor((right + logit_gap) / step));
  const perLine = Math.ceil(logits.length / Math.ceil(logits.length / most)); // lines of about equal length
  const boxes = logits.map((node, k) => {
    const line = Math.floor(k / perLine), onLine = Math.min(perLine, logits.length - line * perLine);
    return { node, line, x: right - half - (onLine - 1 - (k % perLine)) * step };
  });
  return { lines: boxes.at(-1).line + 1, boxes };
}

// Rows from the top: outputs, layers downwards, embeddings. Empty layers shrink, crowded ones grow, and
// a small graph spreads over the height that the card beside it has anyway.
function placeRows(graph, cells, logitLines) {
  const { n_layers: layers } = graph.data, g = graph.geometry, rows = new Map(), lines = new Map();
  for (const cell of cells) lines.set(cell.layer, Math.max(lines.get(cell.layer) ?? 0, cell.lines));
  const natural = (layer) => lines.has(layer) ? g.row_margin + g.pitch * lines.get(layer) : g.empty_row;
  const head = g.logit_pitch * logitLines + g.logit_margin;
  const all = [...Array(layers + 1).keys()].map((row) => natural(row - 1));
  const spare = Math.max(0, g.least_height - head - all.reduce((a, b) => a + b, 0)) / (layers + 1);
  let y = g.top;
  for (let layer = layers; layer >= -1; layer -= 1) {
    rows.set(layer, { layer, ...span(y, layer === layers ? head : natural(layer) + spare) });
    y += rows.get(layer).size;
  }
  return { rows, bottom: y };
}

// Where everything goes: x and y per node, plus the columns and rows for the background.
function arrange(graph, shown, room) {
  const { pitch, top, logit_first, logit_pitch, foot } = graph.geometry;
  const cells = fillCells(graph, shown), columns = placeColumns(graph, cells, room);
  const logits = flowLogits(graph, columns), { rows, bottom } = placeRows(graph, cells, logits.lines);
  const x = new Float64Array(graph.nodes.length), y = x.slice();
  for (const { layer, position, members, lines, perLine } of cells) {
    members.forEach((node, k) => {
      const line = Math.floor(k / perLine), onLine = Math.min(perLine, members.length - line * perLine);
      x[node] = columns[position].centre + pitch * ((k % perLine) - (onLine - 1) / 2);
      y[node] = rows.get(layer).centre + pitch * (line - (lines - 1) / 2);
    });
  }
  for (const { node, line, x: centre } of logits.boxes) {
    x[node] = centre;
    y[node] = top + logit_first + logit_pitch * line;
  }
  const end = columns.at(-1);
  return { x, y, columns, rows, bottom, width: end.start + end.size, height: bottom + foot };
}

const overlaps = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

// Greedy: the most important node first; above, below or beside it; no room, no label.
function placeLabels(graph, place, shown, importance) {
  const { nodes, half_sizes: halfSizes, half_labels: halfLabels } = graph, taken = [], labels = [];
  const { labels: most, label_gap: gap, label_half_height: half, label_letters: letters } = graph.geometry;
  halfSizes.forEach(([w, h], i) => {
    const x = place.x[i], y = place.y[i];
    if (shown[i]) taken.push([x - w - 1, y - h - 1, x + w + 1, y + h + 1]);
  });
  const order = nodes.map((node, i) => i).filter((i) => shown[i] && ["feature", "left_out"].includes(nodes[i].kind));
  order.sort((a, b) => importance(b) - importance(a) || nodes[b].influence - nodes[a].influence || a - b);
  for (const i of order.slice(0, most)) {
    const r = halfSizes[i][0], w = halfLabels[i], x = place.x[i], y = place.y[i];
    const aside = r + w + gap, above = r + half + gap;
    for (const [cx, cy] of [[x, y - above], [x, y + above], [x + aside, y], [x - aside, y]]) {
      const box = [cx - w, cy - half, cx + w, cy + half];
      if (box[0] < 0 || box[2] > place.width || taken.some((other) => overlaps(box, other))) continue;
      taken.push(box);
      labels.push({ node: i, text: clip(spelled(nodes[i].label), letters), x: cx, y: cy });
      break;
    }
  }
  return labels;
}

// ---------------------------------------------------------------- pieces of the picture

function curve(x1, y1, x2, y2, bends) {
  const bend = bends * (y1 - y2);
  return `M${x1.toFixed(1)} ${y1.toFixed(1)}C${x1.toFixed(1)} ${(y1 - bend).toFixed(1)} ` +
    `${x2.toFixed(1)} ${(y2 + bend).toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}`;
}

// Of the opacity, where an edge is less sure than half. As in graph_svg.py.
const FAINT = 0.35, SURE = 0.5;
const clarity = (edge) => edge.sure === undefined || edge.sure >= SURE ? 1 : FAINT;
const surety = (edge) => edge.sure === undefined ? "" : `${Math.round(100 * edge.sure)} % sure`;

function drawEdge(graph, place, edge, strength) {
  const { source: a, target: b, weight } = edge, share = Math.abs(weight) / graph.topWeight;
  const y1 = place.y[a] - graph.half_sizes[a][1], y2 = place.y[b] + graph.half_sizes[b][1];
  return svg("path", {
    class: `ik-edge ${weight < 0 ? "ik-negative" : "ik-positive"}`,
    d: curve(place.x[a], y1, place.x[b], y2, graph.geometry.bend),
    "stroke-dasharray": weight < 0 ? "5 3" : null,
    "stroke-width": (0.6 + 3.4 * Math.sqrt(share)).toFixed(2),
    "stroke-opacity": (strength(share) * clarity(edge)).toFixed(2),
  });
}

const diamond = (r) => `M0 ${-r}L${r} 0L0 ${r}L${-r} 0Z`;
const square = (r) => svg("rect", { class: "ik-shape", x: -r, y: -r, width: 2 * r, height: 2 * r });

function drawShape(graph, node, w, h) {
  if (node.kind === "feature") return [svg("circle", { class: "ik-shape", r: w })];
  if (isUnexplained(node)) return [svg("path", { class: "ik-shape", d: diamond(w + graph.geometry.diamond_extra) })];
  if (node.kind === "embedding") return [square(w)];
  const p = Math.min(1, Math.max(0, node.probability ?? 0));
  return [
    svg("rect", { class: "ik-shape", x: -w, y: -h, width: 2 * w, height: 2 * h, rx: 6 }),
    svg("rect", { class: "ik-bar", x: 2 - w, y: 7, width: (2 * w - 4) * p, height: 3, rx: 1.5 }),
    svg("text", { class: "ik-token", x: 9 - w, y: 3 }, tokenTspans(node.label, graph.geometry.token_letters)),
    svg("text", { class: "ik-probability", x: w - 8, y: 3, text: percent(p) }),
  ];
}

function drawNode(graph, i) {
  const node = graph.nodes[i], [w, h] = graph.half_sizes[i];
  const rx = { logit: 9, embedding: 4 }[node.kind] ?? w + 4;
  const around = (name, w, h, rx) =>
    svg("rect", { class: name, x: -w, y: -h, width: 2 * w, height: 2 * h, rx });
  return svg("g",
    { class: `ik-node ik-${node.kind}`, role: "button", tabindex: -1, "data-id": node.id, "data-index": i },
    around("ik-hit", Math.max(w, 11), Math.max(h, 11)), around("ik-ring", w + 4, h + 4, rx),
    drawShape(graph, node, w, h));
}

function drawBackground(graph, place) {
  const { foot_text, token_letters } = graph.geometry;
  const top = place.rows.get(graph.data.n_layers - 1).start;
  const bands = place.columns.map(({ start, size }, i) => svg("rect",
    { class: i % 2 ? "ik-band ik-odd" : "ik-band", x: start, y: top, width: size, height: place.height - top }));
  const lines = [...place.rows.values()].slice(1).map((row) =>
    svg("line", { class: "ik-rule", x1: 0, x2: place.width, y1: row.start, y2: row.start }));
  const tokens = graph.tokens.map((token, i) => svg("text",
    { class: "ik-token ik-axis-token", x: place.columns[i].centre, y: place.bottom + foot_text },
    tokenTspans(token, token_letters), svg("title", { text: `position ${i}: ${spelled(token)}` })));
  return [...bands, ...lines, ...tokens];
}

function drawAxis(graph, place) {
  const last = graph.data.n_layers, { axis, axis_gap } = graph.geometry;
  return [...place.rows.values()].map((row) => svg("text", {
    class: "ik-axis", x: axis - axis_gap, y: row.centre + 3.5,
    text: row.layer === last ? "output" : row.layer === -1 ? "embed" : `L${row.layer}`,
  }));
}

// ---------------------------------------------------------------- the card of one node

function heatMap({ tokens, activations }) {
  const top = Math.max(...activations), peak = activations.indexOf(top);
  const from = Math.max(0, peak - 14), to = Math.min(tokens.length, peak + 8);
  const spans = tokens.slice(from, to).map((token, k) => {
    const value = activations[from + k];
    const name = from + k === peak ? "ik-heat ik-peak" : "ik-heat";
    const span = html("span", { class: name, title: round(value) }, tokenSpans(token));
    const share = top > 0 ? Math.max(0, value / top) : 0;
    // through the CSSOM: a style attribute would break the page's content policy
    if (share > 0.02) span.style.setProperty("--ik-heat", `${(60 * share).toFixed(0)}%`);
    return span;
  });
  return html("p", { class: "ik-example" }, from > 0 ? "… " : "", spans, to < tokens.length ? " …" : "");
}

const section = (title, ...children) => html("section", {}, html("h4", { text: title }), ...children);

const chips = (title, tokens) => tokens.length === 0 ? null : section(title,
  html("p", { class: "ik-chips" }, tokens.map((token) =>
    html("span", { class: "ik-chip" }, tokenSpans(token)))));

function statistics(node) {
  const rows = [["activation", node.activation, round], ["bias", node.bias, round],
    ["probability", node.probability, percent], ["influence", node.influence, percent]];
  const known = rows.filter(([, value]) => value !== null);
  return html("dl", { class: "ik-statistics" }, known.map(([name, value, show]) =>
    html("div", {}, html("dt", { text: name }), html("dd", { text: show(value) }))));
}

function where(graph, node) {
  if (node.kind === "left_out") return html("p", { class: "ik-where", text: "features of all layers and positions" });
  const parts = [node.feature === null ? kindName(node) : `${kindName(node)} ${node.feature}`];
  if (inLayer(node)) parts.push(`layer ${node.layer}`);
  return html("p", { class: "ik-where" }, `${parts.join(" · ")} · position ${node.position} `,
    html("span", { class: "ik-chip" }, tokenSpans(graph.tokens[node.position])));
}

// ---------------------------------------------------------------- supernodes

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// One box per supernode and per pinned node outside any supernode.
function subgraphBoxes(graph, pinned, supernodes) {
  const grouped = new Set(supernodes.flatMap((group) => group.nodes));
  const singles = pinned.filter((id) => !grouped.has(id)).map((id) => ({ name: null, nodes: [id] }));
  return [...supernodes, ...singles].map(({ name, nodes }) => {
    const members = nodes.map((id) => graph.index.get(id)).filter((i) => i !== undefined);
    const title = name ?? (members.length ? spelled(graph.nodes[members[0]].label) : "");
    const node = (i) => graph.nodes[i];
    return { name, members, title, layer: mean(members.map((i) => node(i).layer)),
      position: mean(members.map((i) => node(i).position)) };
  }).filter((box) => box.members.length > 0);
}

// Direct effects summed over the members: boxes[a] -> boxes[b].
function subgraphEdges(graph, boxes) {
  const owner = new Map(boxes.flatMap((box, k) => box.members.map((i) => [i, k])));
  const sums = new Map();
  for (const [i, source] of owner) {
    for (const edge of graph.outgoing[i]) {
      const target = owner.get(edge.target);
      if (target === undefined || target === source) continue;
      const key = `${source},${target}`;
      const sum = sums.get(key) ?? { source, target, weight: 0 };
      sum.weight += edge.weight;
      sums.set(key, sum);
    }
  }
  return [...sums.values()].filter((edge) => edge.weight !== 0).sort(bySize);
}

// Boxes of about the same mean layer share a row; inside a row the prompt's order holds.
function placeBoxes(boxes, room) {
  const layers = [...new Set(boxes.map((box) => Math.round(box.layer)))].sort((a, b) => b - a);
  let width = room;
  const rows = layers.map((layer) => boxes.filter((box) => Math.round(box.layer) === layer));
  for (const row of rows) row.sort((a, b) => a.position - b.position);
  for (const box of boxes) box.half = 14 + 3.4 * [...clip(box.title, 20)].length;
  for (const row of rows) width = Math.max(width, row.reduce((sum, box) => sum + 2 * box.half + 28, 0));
  rows.forEach((row, r) => {
    const gap = (width - row.reduce((sum, box) => sum + 2 * box.half, 0)) / (row.length + 1);
    let x = gap;
    for (const box of row) {
      Object.assign(box, { x: x + box.half, y: 26 + SUPERNODE_PITCH * r });
      x += 2 * box.half + gap;
    }
  });
  return { width, height: 52 + SUPERNODE_PITCH * (rows.length - 1) };
}

function drawSubgraphEdge(boxes, edge, top) {
  const a = boxes[edge.source], b = boxes[edge.target], share = Math.abs(edge.weight) / top;
  const up = b.y < a.y, level = a.y === b.y, sign = up || level ? -1 : 1;
  const x1 = a.x, y1 = a.y + sign * 15, x2 = b.x, y2 = b.y + (level ? -1 : -sign) * 21;
  // an edge that passes a row swings out, so that no box in between hides it
  const swing = Math.abs(a.y - b.y) < 1.5 * SUPERNODE_PITCH ? 0 : x1 <= x2 ? -110 : 110;
  const cx1 = Math.abs(x1 - x2) < 40 ? x1 + swing : x1, cx2 = x2 + swing;
  const k = level ? -16 : 0.45 * (y2 - y1), c1 = y1 + k, c2 = level ? y2 + k : y2 - k, t = 0.36, u = 1 - t;
  const at = (p0, p1, p2, p3) => u * u * u * p0 + 3 * u * u * t * p1 + 3 * u * t * t * p2 + t * t * t * p3;
  const tip = level ? 6 : 6 * sign;
  return svg("g", { class: edge.weight < 0 ? "ik-negative" : "ik-positive" },
    svg("path", { class: "ik-edge", d: `M${x1} ${y1}C${cx1} ${c1} ${cx2} ${c2} ${x2} ${y2}`,
      "stroke-dasharray": edge.weight < 0 ? "5 3" : null,
      "stroke-width": (1 + 3.5 * Math.sqrt(share)).toFixed(2) }),
    svg("path", { class: "ik-tip", d: `M${x2 - 5} ${y2}L${x2 + 5} ${y2}L${x2} ${y2 + tip}Z` }),
    share < 0.05 ? null : svg("text", { class: "ik-weight", x: at(x1, cx1, cx2, x2),
      y: at(y1, c1, c2, y2) + 3.5, text: signed(edge.weight) }));
}

function drawSubgraph(graph, pinned, supernodes, room) {
  const boxes = subgraphBoxes(graph, pinned, supernodes);
  if (boxes.length < 2) return null;
  const edges = subgraphEdges(graph, boxes), { width, height } = placeBoxes(boxes, room);
  const top = edges.length ? Math.abs(edges[0].weight) : 1;
  const names = boxes.map((box) => box.title);
  const said = edges.map((edge) => `${names[edge.source]} to ${names[edge.target]} ${signed(edge.weight)}`);
  const label = `Subgraph of ${names.join(", ")}. Summed edges: ${said.join("; ") || "none"}`;
  return svg("svg", { class: "ik-subgraph", width, height, role: "img", "aria-label": label },
  [...edges].reverse().map((edge) => drawSubgraphEdge(boxes, edge, top)),
  boxes.map((box) => svg("g", { class: box.name === null ? "ik-box" : "ik-box ik-super" },
    svg("rect", { x: box.x - box.half, y: box.y - 14, width: 2 * box.half, height: 28, rx: 7 }),
    svg("text", { x: box.x, y: box.y + 4, text: clip(box.title, 20) }),
    svg("title", { text: box.members.map((i) => describe(graph.nodes[i])).join("\n") }))));
}

// ---------------------------------------------------------------- the view

class GraphPanel {
  constructor(model, el) {
    this.model = model;
    this.hovered = null; // index of the node under the pointer or the keyboard focus
    this.roving = null; // index of the one node that Tab reaches
    this.ticked = new Set(); // ids ticked in the pinned strip, to be grouped
    this.build(el);
    this.load();
    this.listen();
  }

  build(el) {
    this.title = html("h3", { class: "ik-title" });
    this.prompt = html("p", { class: "ik-prompt" });
    this.scores = html("div", { class: "ik-scores" });
    this.plot = this.buildPlot();
    this.card = html("div", { class: "ik-card" });
    this.legend = html("div", { class: "ik-legend", "aria-label": "Legend", role: "group" });
    this.strip = html("div", { class: "ik-strip", role: "group", "aria-label": "Pinned nodes, supernodes" });
    this.subgraph = html("div", { class: "ik-subgraph-room" });
    this.root = html("div", { class: "ik-graph", onkeydown: (event) => this.onEscape(event) },
      html("div", { class: "ik-frame" },
        html("header", {}, html("div", {}, this.title, this.prompt), this.scores),
        this.buildSlider(),
        html("div", { class: "ik-main" }, this.plot, html("aside", { class: "ik-side" }, this.card)),
        this.legend, this.strip, this.buildNaming(), this.subgraph));
    el.append(this.root);
  }

  buildSlider() {
    const input = () => this.model.set("threshold", Number(this.slider.value) / 100);
    this.slider = html("input", { class: "ik-slider", type: "range", min: 0, max: 100, step: 1,
      "aria-label": "Share of the influence to keep, in percent",
      oninput: input, onchange: () => this.model.save_changes() });
    this.kept = html("span", { class: "ik-kept" });
    this.count = html("output", { class: "ik-count" });
    return html("div", { class: "ik-toolbar" },
      html("span", { text: "Influence kept" }), this.slider, this.kept, this.count);
  }

  buildPlot() {
    this.axis = svg("svg", { class: "ik-axis-room", "aria-hidden": "true" });
    const names = ["background", "rest", "active", "nodes", "labels"]; // from back to front
    this.layers = Object.fromEntries(names.map((name) => [name, svg("g", { class: `ik-${name}` })]));
    this.canvas = svg("svg", { class: "ik-canvas", role: "application",
      onclick: (event) => this.onClick(event), onkeydown: (event) => this.onKey(event),
      onpointerover: (event) => this.onHover(event.target), onpointerleave: () => this.onHover(null) },
    ...Object.values(this.layers));
    this.tip = html("div", { class: "ik-tooltip", hidden: true, "aria-hidden": "true" });
    // not on the svg: Chromium makes an svg with focus listeners a tab stop of its own
    this.scroll = html("div", { class: "ik-scroll", onfocusin: (event) => this.onHover(event.target),
      onfocusout: () => this.onHover(null) }, this.axis, this.canvas);
    return html("div", { class: "ik-plot" }, this.scroll, this.tip);
  }

  // The name form is built once and only hidden, so that a redraw never eats what is being typed.
  buildNaming() {
    this.name = html("input", { class: "ik-name", type: "text",
      placeholder: "name of the supernode", "aria-label": "Name of the supernode" });
    const submit = (event) => { event.preventDefault(); this.group(this.name.value.trim()); };
    this.naming = html("form", { class: "ik-naming", hidden: true, onsubmit: submit }, this.name,
      html("button", { type: "submit", class: "ik-create", text: "Group" }),
      html("button", { type: "button", text: "Cancel", onclick: () => this.openNaming(false) }));
    return this.naming;
  }

  listen() {
    this.handlers = { "change:data": () => this.load() };
    for (const trait of ["selected", "pinned", "supernodes", "threshold"]) {
      this.handlers[`change:${trait}`] = () => this.refresh();
    }
    for (const [event, handler] of Object.entries(this.handlers)) this.model.on(event, handler);
    this.resize = new ResizeObserver(() => {
      if (Math.abs(this.room() - this.drawnRoom) > 1) this.refresh();
    });
    this.resize.observe(this.scroll);
  }

  destroy() {
    for (const [event, handler] of Object.entries(this.handlers)) this.model.off(event, handler);
    this.resize.disconnect();
    this.root.remove();
  }

  save(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  // ------------------------------------------------------------ drawing

  load() {
    const data = this.model.get("data");
    this.graph = readGraph(data);
    this.hovered = this.roving = null;
    this.scrolled = false;
    this.elements = this.graph.nodes.map((node, i) => drawNode(this.graph, i));
    this.layers.nodes.replaceChildren(...this.elements);
    this.title.textContent = data.title;
    this.prompt.replaceChildren(...tokenSpans(data.prompt));
    this.canvas.setAttribute("aria-label", `Attribution graph of: ${data.prompt}. ` +
      "Arrow keys move between nodes, Enter selects, p pins, Escape clears.");
    const scores = Object.entries(data.scores);
    this.scores.replaceChildren(...scores.length === 0 ? [] : [html("table", {},
      html("thead", {}, html("tr", {}, scores.map(([name]) => html("th", { scope: "col", text: name })))),
      html("tbody", {}, html("tr", {}, scores.map(([, value]) => html("td", { text: round(value) })))))]);
    this.legend.replaceChildren(...legendItems(this.graph));
    this.refresh();
  }

  refresh() {
    this.pinned = this.model.get("pinned").filter((id) => this.graph.index.has(id));
    this.supernodes = this.model.get("supernodes");
    this.selected = this.graph.index.get(this.model.get("selected")) ?? null;
    this.held = new Set([...this.pinned, ...this.supernodes.flatMap((group) => group.nodes)]);
    this.drawPlot();
    this.drawCard();
    this.drawStrip();
    const room = this.subgraph.clientWidth || 700;
    const picture = drawSubgraph(this.graph, this.pinned, this.supernodes, room);
    this.subgraph.replaceChildren(...picture === null ? [] : [picture]);
  }

  room() { return Math.max(320, (this.scroll.clientWidth || 700) - this.graph.geometry.axis - 1); } // 1: it is rounded

  // A long prompt starts scrolled to its end, where the outputs are.
  showOutputs() {
    if (this.scrolled || this.scroll.clientWidth === 0) return;
    this.scroll.scrollLeft = this.scroll.scrollWidth;
    this.scrolled = true;
  }

  visible() {
    const threshold = this.model.get("threshold") + 1e-9;
    const always = new Set(["embedding", "left_out", "logit"]);
    return this.graph.nodes.map((node, i) => always.has(node.kind) || node.cumulative <= threshold ||
      this.held.has(node.id) || i === this.selected);
  }

  drawPlot() {
    this.drawnRoom = this.room();
    this.shown = this.visible();
    const { graph, shown } = this, place = this.place = arrange(graph, shown, this.drawnRoom);
    for (const [element, width] of [[this.canvas, place.width], [this.axis, graph.geometry.axis]]) {
      element.setAttribute("width", width);
      element.setAttribute("height", place.height);
    }
    this.axis.replaceChildren(...drawAxis(graph, place));
    this.layers.background.replaceChildren(...drawBackground(graph, place));
    this.elements.forEach((element, i) => this.updateNode(element, i));
    this.moveTabStop(this.roving);
    this.drawLabels();
    this.drawRest();
    this.drawActive();
    this.showCount();
    this.showOutputs();
  }

  updateNode(element, i) {
    const node = this.graph.nodes[i], pinned = this.pinned.includes(node.id), { x, y } = this.place;
    element.setAttribute("transform", `translate(${x[i].toFixed(1)} ${y[i].toFixed(1)})`);
    element.classList.toggle("ik-hidden", !this.shown[i]);
    element.classList.toggle("ik-pinned", this.held.has(node.id));
    element.classList.toggle("ik-selected", i === this.selected);
    element.setAttribute("aria-label", describe(node) + (pinned ? ", pinned" : ""));
    element.setAttribute("aria-pressed", String(i === this.selected));
  }

  drawLabels() {
    const importance = (i) => (i === this.selected ? 2 : 0) + (this.held.has(this.graph.nodes[i].id) ? 1 : 0);
    const labels = placeLabels(this.graph, this.place, this.shown, importance);
    const name = (node) => importance(node) ? "ik-label ik-strong" : "ik-label";
    this.layers.labels.replaceChildren(...labels.map(({ node, text, x, y }) =>
      svg("text", { class: name(node), "data-index": node, x, y: y + 3.5, text })));
  }

  drawRest() {
    const strongest = [];
    for (const edge of this.graph.edges) {
      if (strongest.length === this.graph.geometry.edges) break;
      if (this.shown[edge.source] && this.shown[edge.target]) strongest.push(edge);
    }
    const faint = (share) => 0.14 + 0.42 * share;
    const paths = strongest.reverse().map((edge) => drawEdge(this.graph, this.place, edge, faint));
    this.layers.rest.replaceChildren(...paths);
  }

  // The edges of the node in hand, over a dimmed rest. This is all that a hover redraws.
  drawActive() {
    const active = this.hovered ?? this.selected, { graph, shown } = this, near = new Set([active]);
    const edges = active === null ? [] : [...graph.incoming[active], ...graph.outgoing[active]]
      .filter((edge) => shown[edge.source] && shown[edge.target]).sort(bySize);
    for (const edge of edges) near.add(edge.source).add(edge.target);
    const clear = (share) => 0.35 + 0.6 * Math.sqrt(share);
    const paths = edges.reverse().map((edge) => drawEdge(graph, this.place, edge, clear));
    const wide = edges.map((edge, i) => this.drawHandle(edge, paths[i]));
    this.layers.active.replaceChildren(...paths, ...wide);
    this.canvas.classList.toggle("ik-has-active", active !== null);
    this.elements.forEach((element, i) => element.classList.toggle("ik-near", near.has(i)));
    for (const label of this.layers.labels.children) {
      label.classList.toggle("ik-near", near.has(Number(label.dataset.index)));
    }
  }

  // What a click on an edge hits: an edge itself is too thin.
  drawHandle(edge, path) {
    const names = [edge.source, edge.target].map((i) => this.graph.nodes[i].label.trim());
    const choose = (event) => { event.stopPropagation(); this.chooseEdge(edge); }; // a click beside all nodes deselects
    const handle = svg("path", { class: "ik-handle", d: path.getAttribute("d"), onclick: choose });
    handle.append(svg("title", { text: `${names.join(" → ")}: ${signed(edge.weight)}` }));
    return handle;
  }

  chooseEdge(edge) {
    this.save("edge", [edge.source, edge.target].map((i) => this.graph.nodes[i].id));
  }

  showCount() {
    const threshold = this.model.get("threshold");
    this.slider.value = Math.round(100 * threshold);
    this.kept.textContent = `${Math.round(100 * threshold)} %`;
    this.count.textContent = `${this.shown.filter(Boolean).length} of ${this.graph.nodes.length} nodes`;
  }

  drawCard() {
    if (this.selected === null) {
      const text = "Select a node to see what it responds to, what it draws on and what it feeds.";
      return refill(this.card, [html("p", { class: "ik-hint", tabindex: -1, text })], ".ik-hint");
    }
    const { graph } = this, node = graph.nodes[this.selected], pinned = this.pinned.includes(node.id);
    refill(this.card, [
      html("div", { class: "ik-card-head" },
        html("h4", { class: "ik-card-title", tabindex: -1 }, tokenSpans(node.label)),
        html("button", { type: "button", class: "ik-pin", "data-key": "pin", "aria-pressed": String(pinned),
          text: pinned ? "Unpin" : "Pin", onclick: () => this.togglePin(node.id) })),
      where(graph, node),
      node.concept === null ? null : html("p", { class: "ik-concept", text: `concept: ${node.concept}` }),
      node.kind === "error" ? html("p", { class: "ik-about", text: ABOUT_ERRORS }) : null,
      node.kind === "left_out" ? html("p", { class: "ik-about", text: ABOUT_LEFT_OUT }) : null,
      statistics(node),
      node.examples.length === 0 ? null : section("Top examples", ...node.examples.slice(0, 5).map(heatMap)),
      chips("Top logits", node.top_logits), chips("Bottom logits", node.bottom_logits),
      this.ranking("Draws on", "ik-incoming", graph.incoming[this.selected], "source"),
      this.ranking("Feeds", "ik-outgoing", graph.outgoing[this.selected], "target"),
    ], ".ik-card-title");
    if (this.carded !== node.id) this.card.scrollTop = 0;  // another node's card begins at its title
    this.carded = node.id;
  }

  ranking(title, name, edges, end) {
    if (edges.length === 0) return null;
    const rows = edges.slice(0, RANKED_ROWS).map((edge) => html("li", {}, this.rankingRow(edge, edge[end])));
    const rest = edges.length - rows.length;
    return section(title, html("ol", { class: `ik-ranking ${name}` }, rows),
      rest > 0 ? html("p", { class: "ik-rest-note", text: `and ${rest} weaker` }) : null);
  }

  rankingRow(edge, other) {
    const node = this.graph.nodes[other];
    const layer = { logit: "out", embedding: "emb", left_out: "all" }[node.kind] ?? `L${node.layer}`;
    const bar = html("span", { class: "ik-row-bar" });
    bar.style.width = `${(100 * Math.abs(edge.weight) / this.graph.topWeight).toFixed(1)}%`;
    const sign = edge.weight < 0 ? "ik-negative" : "ik-positive";
    return html("button", { type: "button", class: `ik-row ${sign}`,
      "aria-label": [describe(node), `weight ${signed(edge.weight)}`, surety(edge)].filter(Boolean).join(", "),
      title: surety(edge) || null, onclick: () => { this.chooseEdge(edge); this.select(other); } },
    html("span", { class: "ik-row-weight", text: signed(edge.weight) }),
    html("span", { class: "ik-row-label" }, tokenSpans(node.label)),
    html("span", { class: "ik-row-place", text: `${layer} · ${node.position}` }),
    html("span", { class: "ik-row-track" }, bar));
  }

  // ------------------------------------------------------------ pinned nodes and supernodes

  drawStrip() {
    const grouped = new Set(this.supernodes.flatMap((group) => group.nodes));
    const single = this.pinned.filter((id) => !grouped.has(id));
    this.ticked = new Set([...this.ticked].filter((id) => single.includes(id)));
    const empty = single.length + this.supernodes.length === 0;
    const hint = "Press p on a node, or Pin in its card, to keep it here.";
    refill(this.strip, [
      html("span", { class: "ik-strip-title", text: "Pinned" }),
      empty ? html("span", { class: "ik-hint", text: hint }) : null,
      ...this.supernodes.map((group, k) => this.groupChip(group, k)), ...single.map((id) => this.pinChip(id)),
      single.length < 2 ? null : html("button", { type: "button", class: "ik-group", "data-key": "group",
        disabled: this.ticked.size < 2, title: "Tick two or more pinned nodes", text: "Group pinned…",
        onclick: () => this.openNaming(true) }),
    ], "button, input");
    if (this.ticked.size < 2) this.openNaming(false);
  }

  pinChip(id) {
    const node = this.graph.nodes[this.graph.index.get(id)], name = spelled(node.label);
    const tick = (event) => {
      if (event.target.checked) this.ticked.add(id); else this.ticked.delete(id);
      this.drawStrip();
    };
    const place = inLayer(node) ? `L${node.layer} · ${node.position}` : "";
    const button = (attributes, ...children) =>
      html("button", { type: "button", ...attributes }, ...children);
    return html("span", { class: "ik-pinchip", "data-id": id },
      html("input", { type: "checkbox", "data-key": `tick ${id}`, "aria-label": `Tick ${name} for grouping`,
        checked: this.ticked.has(id), onchange: tick }),
      button({ class: "ik-chip-name", "data-key": `name ${id}`, title: describe(node),
        onclick: () => this.select(this.graph.index.get(id)) },
      clip(name, 24), html("small", { text: place })),
      button({ class: "ik-remove", "data-key": `unpin ${id}`, "aria-label": `Unpin ${name}`, text: "×",
        onclick: () => this.togglePin(id) }));
  }

  groupChip(group, k) {
    const ungroup = () => this.save("supernodes", this.supernodes.filter((other, j) => j !== k));
    return html("span", { class: "ik-pinchip ik-groupchip" },
      html("span", { class: "ik-chip-name", title: group.nodes.join(", ") }, clip(group.name, 24),
        html("small", { text: `${group.nodes.length} nodes` })),
      html("button", { type: "button", class: "ik-ungroup", "data-key": `ungroup ${k}`,
        "aria-label": `Ungroup ${group.name}`, text: "Ungroup", onclick: ungroup }));
  }

  openNaming(open) {
    const moved = open || this.naming.contains(this.naming.getRootNode().activeElement);
    this.naming.hidden = !open;
    this.name.value = "";
    if (moved) (open ? this.name : this.strip.querySelector("button, input"))?.focus();
  }

  // A name already in use takes the ticked nodes in: that is how a supernode grows.
  group(name) {
    if (name === "" || this.ticked.size < 2) return;
    const ticked = this.pinned.filter((id) => this.ticked.has(id));
    const known = this.supernodes.some((group) => group.name === name);
    const grown = (group) => group.name === name ? { name, nodes: [...group.nodes, ...ticked] } : group;
    this.ticked.clear();
    const added = [...this.supernodes, { name, nodes: ticked }];
    this.save("supernodes", known ? this.supernodes.map(grown) : added);
  }

  togglePin(id) {
    const others = this.pinned.filter((other) => other !== id);
    this.save("pinned", others.length < this.pinned.length ? others : [...others, id]);
  }

  // ------------------------------------------------------------ pointer and keyboard

  select(i) {
    this.roving = i ?? this.roving;
    this.save("selected", i === null ? "" : this.graph.nodes[i].id);
  }

  nodeOf(target) {
    const element = target?.closest?.(".ik-node");
    return element ? Number(element.dataset.index) : null;
  }

  onClick(event) {
    const i = this.nodeOf(event.target);
    this.select(i);
    if (i !== null) this.elements[i].focus({ preventScroll: true });
  }

  onHover(target) {
    const i = this.nodeOf(target);
    if (i === this.hovered) return;
    this.hovered = i;
    this.drawActive();
    this.showTip(i);
  }

  showTip(i) {
    this.tip.hidden = i === null;
    if (i === null) return;
    const node = this.graph.nodes[i], { tip } = this;
    const place = inLayer(node) ? `${kindName(node)}, layer ${node.layer}` : kindName(node);
    tip.replaceChildren(html("strong", {}, tokenSpans(node.label)),
      html("span", { text: `${place} · influence ${percent(node.influence)}` }));
    const frame = this.plot.getBoundingClientRect(), box = this.elements[i].getBoundingClientRect();
    const middle = (box.left + box.right - tip.offsetWidth) / 2 - frame.left;
    const above = box.top - frame.top - tip.offsetHeight - 14;
    tip.style.left = `${Math.min(frame.width - tip.offsetWidth - 4, Math.max(4, middle))}px`;
    tip.style.top = `${above >= 0 ? above : box.bottom - frame.top + 14}px`;
  }

  onKey(event) {
    const i = this.nodeOf(event.target);
    if (i === null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) this.focusNode(this.neighbour(i, ...ARROWS[event.key]));
    else if (event.key === "Enter" || event.key === " ") this.select(i);
    else if (event.key === "p") this.togglePin(this.graph.nodes[i].id);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  onEscape(event) {
    if (event.key !== "Escape") return;
    if (!this.naming.hidden) this.openNaming(false);
    else if (this.selected !== null) this.select(null);
    event.stopPropagation();
  }

  // Sideways along the layer; up and down to the nearest node of the next layer that shows any.
  neighbour(i, dx, dy) {
    const { nodes } = this.graph, { x, y } = this.place;
    const here = nodes[i].layer, all = nodes.map((node, j) => j).filter((j) => this.shown[j]);
    if (dx) {
      const row = all.filter((j) => nodes[j].layer === here).sort((a, b) => x[a] - x[b] || y[a] - y[b]);
      return row[row.indexOf(i) + dx] ?? i;
    }
    const steps = (j) => dy * (nodes[j].layer - here), beyond = all.filter((j) => steps(j) > 0);
    const next = Math.min(...beyond.map(steps)), aside = (j) => Math.abs(x[j] - x[i]);
    return beyond.filter((j) => steps(j) === next).sort((a, b) => aside(a) - aside(b))[0] ?? i;
  }

  focusNode(i) {
    this.moveTabStop(i);
    this.elements[i].focus();
  }

  // Exactly one shown node is in the tab order: the last one used, or the most probable output.
  moveTabStop(i) {
    this.roving = i !== null && this.shown[i] ? i : this.graph.logits[0] ?? this.shown.indexOf(true);
    this.elements.forEach((element, j) => element.setAttribute("tabindex", j === this.roving ? 0 : -1));
  }
}

// ---------------------------------------------------------------- legend and entry

function legendItems(graph) {
  const mark = (kind, shape) => svg("svg", { class: "ik-mark", width: 18, height: 14, "aria-hidden": "true" },
    svg("g", { class: `ik-node ik-${kind}`, transform: "translate(9 7)" }, shape));
  const line = (sign, dash, opacity = null) => svg("svg", { class: "ik-mark", width: 30, height: 14, "aria-hidden": "true" },
    svg("line", { class: `ik-edge ik-${sign}`, x1: 1, x2: 29, y1: 7, y2: 7, "stroke-width": 2.4,
      "stroke-dasharray": dash, "stroke-opacity": opacity }));
  const circle = () => svg("circle", { class: "ik-shape", r: 5 });
  const items = [
    [mark("feature", circle()), "feature"],
    [mark("error", svg("path", { class: "ik-shape", d: diamond(6) })), "error (not explained)"],
    [mark("embedding", square(5)), "embedding"],
    [mark("logit", svg("rect", { class: "ik-shape", x: -8, y: -5, width: 16, height: 10, rx: 3 })), "output"],
    [mark("feature ik-pinned", circle()), "pinned"],
    [line("positive", null), "adds"], [line("negative", "5 3"), "takes away"],
  ];
  if (graph.edges.some(surety)) items.push([line("positive", null, FAINT), "faint: sure by less than half"]);
  return items.map(([picture, text]) => html("span", {}, picture, text));
}

function render({ model, el }) {
  const panel = new GraphPanel(model, el);
  return () => panel.destroy();
}

export default { render };
