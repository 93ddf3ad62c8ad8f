/** Weights of one head, `[L, L]`: row = who looks, column = at whom. */
const attention = trace.layers.map((layer) => floats(layer.weights));
const headNorms = trace.layers.map((layer) => floats(layer.head_norms));
const weight = (layer, head, query, key) => attention[layer][(head * L + query) * L + key];

function attendStep() {
  fill("#attend .shape", ...trace.focus.shapes.map((shape) => el("span", {}, sizes(shape))));
  const known = trace.embedding.widths.filter((width) => width.source);
  fill(".elsewhere", `${model.layers} layers of ${model.heads} heads, one layer after the other. ${known.map((width) => `${width.model} has ${width.layers} layers`).join(", ")}.`);
  arcs();
  pickers();
  mosaic();
  heatMap();
  watch(reads);
  workedRow();
}

/** The two lists, for those who know where they want to look. */
function pickers() {
  const list = (name, length) => {
    const options = Array.from({ length }, (_, i) => el("option", { value: i }, String(i)));
    const select = el("select", { id: `pick-${name}`, onchange: () => set({ [name]: Number(select.value) }) }, ...options);
    watch(() => (select.value = state[name]));
    return el("label", { for: `pick-${name}` }, name, select);
  };
  fill(".pickers", list("layer", model.layers), list("head", model.heads));
}

/** A small picture of every head. */
function mosaic() {
  const place = find(".mosaic");
  place.style.gridTemplateColumns = `1.6rem repeat(${model.heads}, minmax(0, 1fr))`;
  const buttons = [];
  const rows = attention.flatMap((_, layer) => {
    const row = Array.from({ length: model.heads }, (_, head) => {
      const button = el("button", { type: "button", "aria-label": `layer ${layer}, head ${head}`, title: `layer ${layer}, head ${head}`, onclick: () => set({ layer, head }) },
        el("canvas", { width: L, height: L, "aria-hidden": "true" }));
      buttons.push(button);
      return button;
    });
    return [el("span.row", { "aria-hidden": "true" }, String(layer)), ...row];
  });
  place.replaceChildren(...rows);
  roving(place, buttons, model.heads);
  const paint = () => buttons.forEach((button, i) => thumbnail(button.firstChild, Math.floor(i / model.heads), i % model.heads));
  paint();
  themeWatchers.push(paint);
  watch(() => {
    const now = buttons[state.layer * model.heads + state.head];
    buttons.forEach((button) => button.setAttribute("aria-pressed", button === now));
    stopAt(buttons, now);
  });
}

function thumbnail(canvas, layer, head) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(L, L);
  const [low, high] = heatColours();
  for (let i = 0; i < L * L; i++) {
    const s = shade(attention[layer][head * L * L + i]);
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = low[c] + s * (high[c] - low[c]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Both ends of the scale as they are in the present colours. */
function heatColours() {
  const probe = el("span");
  document.body.append(probe);
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  };
  const colours = [read("--cell"), read("--heat")];
  probe.remove();
  return colours;
}

/** The large map of the chosen head. */
function heatMap() {
  const place = find(".heat");
  const labelled = L <= 40;
  place.classList.toggle("few", L <= 13);
  place.classList.toggle("many", L > 24);
  place.style.gridTemplateColumns = `minmax(0, ${labelled ? "7.5rem" : "2rem"}) repeat(${L}, minmax(0, 1fr))`;
  const label = (position, kind, role) => {
    const node = el(`div.label.${kind}`, { role, title: tokens[position].piece });
    if (labelled) node.append(piece(tokens[position].piece));
    return node;
  };
  const keys = tokens.map((_, position) => label(position, "key", "columnheader"));
  const queries = tokens.map((_, position) => label(position, "query", "rowheader"));
  const cells = [];
  const rows = tokens.map((_, query) => {
    const row = tokens.map((_, key) => {
      const cell = el("div.cell", { role: "gridcell", "data-query": query, "data-key": key }, el("span"));
      cells.push(cell);
      return cell;
    });
    return el("div", { role: "row" }, queries[query], ...row);
  });
  place.replaceChildren(el("div", { role: "row" }, el("div.label", { role: "columnheader", "aria-label": "who looks" }), ...keys), ...rows);
  roving(place, cells, L);

  const tell = (cell) => {
    const [query, key] = [Number(cell.dataset.query), Number(cell.dataset.key)];
    fill(".says", ...sentence(query, key));
  };
  const over = (event) => {
    const cell = event.target.closest(".cell");
    if (cell) tell(cell);
  };
  place.addEventListener("pointerover", over);
  place.addEventListener("focusin", over);
  place.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (cell) {
      cell.focus();
      set({ token: Number(cell.dataset.query) });
    }
  });
  place.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") event.target.click();
    if (event.key === "Enter" || event.key === " ") event.preventDefault();
  });
  watch(() => {
    fill(".map-title", `Layer ${state.layer}, head ${state.head}`);
    place.setAttribute("aria-label", `Attention of layer ${state.layer}, head ${state.head}: rows look, columns are looked at`);
    cells.forEach((cell) => paintCell(cell));
    queries.forEach((node, position) => node.classList.toggle("on", position === state.token));
    tell(document.activeElement?.matches?.(".cell") ? document.activeElement : cells[strongest(state.token)]);
    fill(".map figcaption", habit(state.layer, state.head));
  });
  legend();
}

const masked = (query, key) => key > query;

function paintCell(cell) {
  const [query, key] = [Number(cell.dataset.query), Number(cell.dataset.key)];
  const value = weight(state.layer, state.head, query, key);
  cell.dataset.weight = value;
  cell.style.setProperty("--s", shade(value));
  cell.classList.toggle("masked", masked(query, key));
  cell.classList.toggle("hot", shade(value) > 0.55);
  cell.classList.toggle("now", query === state.token && !masked(query, key) && L <= 24);
  cell.firstChild.textContent = masked(query, key) ? "" : value.toFixed(2).replace(/^0/, "");
  cell.setAttribute("aria-label", masked(query, key)
    ? `${tokens[query].piece} cannot see ${tokens[key].piece}`
    : `${tokens[query].piece} looks at ${tokens[key].piece}: ${value.toFixed(2)}`);
}

function sentence(query, key) {
  const names = [piece(tokens[query].piece), " ", piece(tokens[key].piece)];
  if (masked(query, key)) return [names[0], " (", String(query), ") cannot see ", names[2], ` (${key}): it comes later, the mask is −∞`];
  return [names[0], ` (${query}) looks at `, names[2], ` (${key}): `, el("b", {}, fixed(weight(state.layer, state.head, query, key), 2))];
}

/** Index of the cell in a row at which most of the weight is. */
function strongest(query) {
  let best = 0;
  for (let key = 1; key <= query; key++) {
    if (weight(state.layer, state.head, query, key) > weight(state.layer, state.head, query, best)) best = key;
  }
  return query * L + best;
}

function legend() {
  const steps = [0, 0.02, 0.1, 0.25, 0.5, 1];
  fill(".legend", ...steps.map((value) => el("span", { "--s": shade(value) }, el("i"), String(value))),
    el("span.mask", {}, el("i"), "mask"));
}

/** Where a head looks on average: at the first token, at the one before, at itself. */
function habit(layer, head) {
  if (L < 3) return "";
  const mean = (key) => {
    let sum = 0;
    for (let query = 2; query < L; query++) sum += weight(layer, head, query, key(query));
    return sum / (L - 2);
  };
  const [first, before, self] = [mean(() => 0), mean((query) => query - 1), mean((query) => query)];
  const shares = `From the third token on, this head puts ${percent(first)} of its weight on the first token, ${percent(before)} on the one before and ${percent(self)} on the token itself.`;
  if (first > 0.6) {
    const share = strength(layer, head);
    return share < 0.25
      ? `${shares} And it adds little, ${percent(share)} of what the layer’s strongest head adds: a head that rests.`
      : `${shares} It does not rest there: it adds ${percent(share)} of what the layer’s strongest head adds.`;
  }
  if (before > 0.5) return `${shares} It reads the previous token.`;
  if (self > 0.5) return `${shares} It mostly keeps to itself.`;
  return shares;
}

/** How much a head adds beside the strongest one of its layer, on average from the third token on. */
function strength(layer, head) {
  let sum = 0;
  for (let token = 2; token < L; token++) {
    const norms = Array.from({ length: model.heads }, (_, other) => headNorms[layer][other * L + token]);
    sum += norms[head] / (Math.max(...norms) || 1);
  }
  return sum / (L - 2);
}

/** What the chosen token reads, as bars. */
function reads() {
  const { token, layer, head } = state;
  const rows = tokens.slice(0, token + 1).map((other, key) => ({ other, key, value: weight(layer, head, token, key) }));
  const shown = rows.length <= 16 ? rows : rows.toSorted((a, b) => b.value - a.value).slice(0, 16);
  const most = headNorms[layer].reduce((most, norm, i) => (i % L === token && norm > most ? norm : most), 0);
  const own = headNorms[layer][head * L + token];
  fill(".reads",
    el("h3", {}, piece(tokens[token].piece), " reads"),
    ...shown.map(({ other, value }) => el("div.meter", { "--v": value }, piece(other.piece), el("i"), el("span.number", {}, fixed(value, 2)))),
    el("p.note", {}, `A row sums to 1. What this head adds to the token is ${fixed(own, 2)} long; the strongest head of the layer adds ${fixed(most, 2)}. The layer as a whole: attention ${fixed(trace.layers[layer].attention_norms[token], 2)}, MLP ${fixed(trace.layers[layer].mlp_norms[token], 2)}, the stream is then ${fixed(trace.layers[layer].stream_norms[token], 2)} long.`));
}

