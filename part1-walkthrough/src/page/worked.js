/** Queries, keys and values, `[heads, L, D]` each, of the layers that the trace has them of. */
const strips = [];
for (const { layer, q, k, v } of trace.strips) strips[layer] = { q: floats(q), k: floats(k), v: floats(v) };
const kvHead = (head) => Math.floor(head / (model.heads / model.kv_heads));
const vector = (values, head, position) => values.subarray((head * L + position) * model.head_dim, (head * L + position + 1) * model.head_dim);

/** One row of a head, number by number: from the strips, for any head; else from what the trace has of one. */
function row(query, layer, head) {
  const { focus } = trace;
  if (!strips[layer]) {
    const columns = ["raw", "scaled", "masked", "weights"].map((name) => floats(focus[name]));
    return tokens.map((_, key) => columns.map((values) => values[query * L + key]));
  }
  const q = vector(strips[layer].q, head, query);
  return tokens.map((_, key) => {
    const k = vector(strips[layer].k, kvHead(head), key);
    const raw = q.reduce((sum, value, i) => sum + value * k[i], 0);
    const scaled = raw / Math.sqrt(model.head_dim);
    return [raw, scaled, masked(query, key) ? -Infinity : scaled, weight(layer, head, query, key)];
  });
}

/** Numbers as a strip of cells: one colour above zero and one below, the stronger, the larger. */
function strip(values, most, label) {
  const canvas = el("canvas.strip-cells", { width: values.length, height: 1, role: "img", "aria-label": label, title: label });
  const context = canvas.getContext("2d");
  const image = context.createImageData(values.length, 1);
  values.forEach((value, i) => image.data.set([...(value < 0 ? [234, 88, 12] : [99, 102, 241]), Math.round(255 * Math.min(1, Math.abs(value) / (most || 1)))], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}
const largest = (arrays) => Math.max(...arrays.map((values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)));

/** The layer and head that can be shown number by number: the chosen one, or else the one that the program chose. */
const shownRow = () => (strips[state.layer] ? [state.layer, state.head] : [trace.focus.layer, trace.focus.head]);

/** Why another row is shown than the chosen one. */
function leftOut() {
  const inside = trace.strips.map((strip) => strip.layer).sort((a, b) => a - b);
  if (inside.length === model.layers) return "";
  const numbers = model.layers * (model.heads + 2 * model.kv_heads) * L * model.head_dim;
  const all = ` q, k and v of all layers are ${count(numbers)} numbers, more than this page has room for.`;
  if (!inside.length) return `${all} So it has one row of layer ${trace.focus.layer}, head ${trace.focus.head}; --layer and --head choose another.`;
  return `${all} It has those of layers ${inside[0]} to ${inside.at(-1)}; --layer chooses where.${strips[state.layer] ? "" : ` Layer ${state.layer} is not among them: this is layer ${trace.focus.layer}, head ${trace.focus.head}.`}`;
}

/** `softmax(q kᵀ / √D + mask) v` for one token in one head, step by step. */
function workedRow() {
  const number = (value, digits) => (value === -Infinity ? "−∞" : fixed(value, digits));
  watch(() => {
    const query = state.token;
    const [layer, head] = shownRow();
    const drawn = strips[layer];
    const rows = row(query, layer, head);
    const seen = tokens.slice(0, query + 1);
    const cell = (values, most, label) => el("td.wide", {}, strip(values, most, label));
    const titles = drawn ? ["key", ["k", "k"], "q × k", "q · k", "/ √D", "+ mask", "softmax", ["v", "v"]] : ["key", "q · k", "/ √D", "+ mask", "softmax"];
    const parts = drawn && (() => {
      const q = vector(drawn.q, head, query);
      const keys = tokens.map((_, key) => vector(drawn.k, kvHead(head), key));
      const values = tokens.map((_, key) => vector(drawn.v, kvHead(head), key));
      const products = keys.map((k) => k.map((value, i) => value * q[i]));
      const mixed = q.map((_, i) => seen.reduce((sum, _, key) => sum + rows[key][3] * values[key][i], 0));
      return { q, keys, values, products, mixed, most: [q, ...keys].length ? largest([q, ...keys]) : 1, mostProduct: largest(products), mostValue: largest([mixed, ...values]) };
    })();
    const body = tokens.map((token, key) => {
      const numbers = rows[key].map((value, i) => el("td", {}, number(value, i === 3 ? 4 : 3)));
      return el("tr", {}, el("th", { scope: "row" }, piece(token.piece)), ...(parts
        ? [cell(parts.keys[key], parts.most, `key of ${token.piece}`), cell(parts.products[key], parts.mostProduct, `products with the key of ${token.piece}, their sum is ${fixed(rows[key][0], 3)}`), ...numbers, cell(parts.values[key], parts.mostValue, `value of ${token.piece}`)]
        : numbers));
    });
    fill(".worked", el("details.panel", { open: find(".worked details")?.open ?? true },
      el("summary", {}, el("b", {}, `One row in slow motion: layer ${layer}, head ${head}, `), piece(tokens[query].piece)),
      el("p.note", {}, `q · k says how well they match: ${model.head_dim} products, summed. Divided by √D = √${model.head_dim}, so that softmax does not saturate; later tokens get −∞; softmax makes weights of the rest. Head ${head} reads the keys and values of key/value head ${kvHead(head)}.${drawn ? " A cell is one number: blue above zero, orange below, the stronger, the larger." : ""}${leftOut()}`),
      parts ? el("p.vector", {}, el("b.q", {}, "q"), strip(parts.q, parts.most, `query of ${tokens[query].piece}`)) : null,
      el("div.scroll", { tabindex: 0, role: "region", "aria-label": "One row in slow motion, scrolls sideways" }, el("table", {},
        el("thead", {}, el("tr", {}, ...titles.map((title) => Array.isArray(title) ? el(`th.${title[1]}`, { scope: "col" }, title[0]) : el("th", { scope: "col" }, title)))),
        el("tbody", {}, ...body))),
      parts ? el("p.vector", {}, el("b.v", {}, "weights · v"), strip(parts.mixed, parts.mostValue, `what the head hands to ${tokens[query].piece}`)) : null));
  });
}
