function embedStep() {
  fill("#embed .shape", `table [V, E] = [${count(model.vocabulary)}, ${model.width}]   →   x [L, E] = [${L}, ${model.width}]`);
  const { explained } = trace.embedding.map;
  const whole = explained[0] + explained[1];
  fill("#embed figcaption", `The rows of the prompt’s tokens and of their neighbours, ${model.width} numbers each, seen from the side on which they lie farthest apart (PCA). The two axes show ${percent(explained[0])} and ${percent(explained[1])} of the variance: ${percent(1 - whole)} of it is not visible here.`);
  const draw = chart(find(".projection"), projection);
  watch(draw);
  watch(neighbours);
  meanings();
  widths();
  (trace.positions.kind === "rotated" ? rotated : learned)(find(".positions"));
  order();
}

/** What a wider vector costs. */
function widths() {
  const rows = trace.embedding.widths.map((width) => el("tr", {}, el("th", { scope: "row" }, width.model),
    el("td", {}, count(width.width)), el("td", {}, String(width.layers)), el("td", {}, compact(width.parameters)),
    el("td", {}, decimal(2 * width.parameters)), el("td", {}, compact(width.multiplications))));
  const sources = trace.embedding.widths.filter((width) => width.source).map((width) => `${width.model} (${width.source})`);
  find(".widths").replaceChildren(el("div.panel", {}, el("h3", {}, "What a wider vector costs"),
    el("p.note", {}, `A row has room for ${count(model.width)} directions. More cost memory and time in every layer: a matrix from ${count(model.width)} numbers to ${count(model.width)} has ${count(model.width ** 2)} weights, twice the width four times as many, and a token is multiplied with all of them.`),
    el("div.scroll", { tabindex: 0, role: "region", "aria-label": "What a wider vector costs, scrolls sideways" }, el("table", {},
      el("thead", {}, el("tr", {}, ...["model", "width", "layers", "weights", "in 16 bits", "multi­plied"].map((title) => el("th", { scope: "col" }, title)))),
      el("tbody", {}, ...rows))),
    el("p.note", {}, `Computed from the sizes of ${sources.join(", ")}; multiplied: weights that a token is multiplied with. What it is multiplied with besides, its keys and values, grows with the text.`)));
}

/** The same words in another order, with positions and without. */
function order() {
  const found = trace.embedding.order;
  if (!found) return;
  const last = found.pieces.at(-1);
  const sentence = (reading, side) => {
    const at = found.places.map((place, piece) => (side ? place : piece));
    const pieces = found.pieces.map((text, piece) => ({ text, at: at[piece], share: reading.attention[side][piece] })).toSorted((a, b) => a.at - b.at);
    return el("p.tokens", {}, ...pieces.map(({ text, share }) => el(`span.part${shade(share) > 0.55 ? ".hot" : ""}`, { "--s": shade(share), title: `${text} ${percent(share)}` }, piece(text), " ", el("small", {}, share.toFixed(2)))));
  };
  const side = (title, reading, verdict) => el("div.reading", {}, el("h4", {}, title), sentence(reading, 0), sentence(reading, 1),
    el("p.note", {}, "What “", last, "” collects from the two differs by ", el("b.number", {}, fixed(reading.difference, 2)), ` (it is ${fixed(reading.length, 2)} long): ${verdict}`));
  const picture = el("div", {});
  find(".order").replaceChildren(el("div.panel", {}, el("h3", {}, "Who bit whom? The same words in another order"),
    el("p.note", {}, `The rows of the pieces are the same in both sentences, and so is the sum of them (difference ${fixed(found.sums, 2)}): a bag of words. The colour is how much “${last}”, which sees them all, looks at each piece in layer 0, head ${found.head}.`),
    el("div.two.readings", {},
      side("Without positions", found.without, "nobody can tell who bit whom."),
      side("With positions", found.with, "the order is in it.")),
    picture,
    el("p.note", {}, "The line is how alike the two vectors of “", last, "” are after each layer (cosine; 1 is the same). In later layers even the mask tells something of the order without positions, since each word has seen only those before it.")));
  const lines = [["without positions", found.without, "var(--muted)"], ["with positions", found.with, "var(--accent)"]];
  const points = lines.flatMap(([name, { cosines }, stroke]) => cosines.map((cosine, after) => ({ name, cosine, after, stroke })));
  const ends = points.filter((point) => point.after === model.layers);
  chart(picture, () => ({
    height: 200, marginLeft: 44, marginRight: 130, marginBottom: 36, ariaLabel: "Cosine after each layer, without positions and with them",
    style: { background: "transparent", color: "var(--ink)", fontSize: "12px", overflow: "visible" },
    x: { label: "layers behind it", ticks: Math.min(model.layers, 10), tickFormat: "d" }, y: { label: "cosine", nice: true, ticks: 4 },
    marks: [
      Plot.line(points, { x: "after", y: "cosine", z: "name", stroke: "stroke", strokeWidth: 2.5 }),
      Plot.dot(points, { x: "after", y: "cosine", fill: "stroke", r: 3.5, title: (point) => `${point.name}, ${point.after} layers: ${fixed(point.cosine, 3)}` }),
      Plot.text(ends, { x: "after", y: "cosine", text: (point) => `${fixed(point.cosine, 3)} ${point.name.split(" ")[0]}`, dx: 8, textAnchor: "start", fill: "var(--ink)" }),
    ],
  }))();
}

/** A dozen words along two directions that have names. */
function meanings() {
  const found = trace.embedding.meanings;
  if (!found) return;
  const list = (words) => words.map((word) => plain(word).trim()).join(", ");
  const [right, up] = found.axes;
  const picture = el("div", {});
  find(".meanings").replaceChildren(el("figure", {}, el("h3", {}, "A map of meanings"), picture,
    el("figcaption", {}, `To the right: the direction from ${list(right.from)} to ${list(right.to)}. Upwards: from ${list(up.from)} to ${list(up.to)}. The words on the map are in neither.`)));
  const [xs, ys] = ["x", "y"].map((axis) => extent(found.points.map((point) => point[axis])));
  const tall = (width) => Math.min(420, Math.max(280, width * 0.5));
  chart(picture, (width) => ({
    height: tall(width), margin: 30, marginRight: 64,
    ariaLabel: "Words along two directions",
    style: { background: "transparent", color: "var(--ink)", fontSize: "13px", overflow: "visible" },
    x: { label: `${plain(right.to[0]).trim()} …  →`, ticks: 0, inset: 20 }, y: { label: `↑  ${plain(up.to[0]).trim()} …`, ticks: 0, inset: 20 },
    marks: [
      Plot.ruleX([0], { stroke: "var(--line)" }), Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.dot(found.points, { x: "x", y: "y", r: 5, fill: "var(--accent)", title: (point) => `${point.piece} ${fixed(point.x, 2)}, ${fixed(point.y, 2)}` }),
      ...named(found.points, placed(xs, [50, width - 84], ys, [50, tall(width) - 50]), (point) => ({ text: plain(point.piece).trim() })),
    ],
  }))();
}

/** Where each point's name has room: at its right, at its left, above or below it; the first points choose first. `at` is a point's place in pixels. */
function named(points, at, style) {
  const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const taken = points.map(at).map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  return points.map((point) => {
    const [x, y] = at(point);
    const { text, ...look } = style(point);
    const wide = 7.5 * text.length;
    const places = [
      { textAnchor: "start", dx: 9, dy: 0, box: [x + 7, y - 7, x + 10 + wide, y + 7] },
      { textAnchor: "end", dx: -9, dy: 0, box: [x - 10 - wide, y - 7, x - 7, y + 7] },
      { textAnchor: "middle", dx: 0, dy: -14, box: [x - wide / 2, y - 21, x + wide / 2, y - 7] },
      { textAnchor: "middle", dx: 0, dy: 14, box: [x - wide / 2, y + 7, x + wide / 2, y + 21] },
    ];
    const { box, ...place } = places.find((place) => place.box[0] > 0 && !taken.some((other) => meet(other, place.box))) ?? places[0];
    taken.push(box);
    return Plot.text([point], { x: "x", y: "y", text: [text], ...place, fill: "var(--ink)", stroke: "var(--card)", strokeWidth: 4, paintOrder: "stroke", ...look });
  });
}

/** A point's place in pixels, from the numbers at the edges and the pixels there. */
const placed = ([left, right], [x0, x1], [bottom, top], [y0, y1]) => (point) =>
  [x0 + ((point.x - left) / (right - left || 1)) * (x1 - x0), y1 - ((point.y - bottom) / (top - bottom || 1)) * (y1 - y0)];

const extent = (numbers) => [Math.min(...numbers), Math.max(...numbers)];

/** The map of the vectors. */
function projection(width) {
  const { points } = trace.embedding.map;
  const near = new Set(trace.embedding.tokens[state.token].neighbours.map((neighbour) => neighbour.id));
  const own = points.filter((point) => point.at.length);
  const others = points.filter((point) => !point.at.length);
  const here = points.find((point) => point.at.includes(state.token));
  const lit = others.filter((point) => near.has(point.id));
  const narrow = width < 480;
  const [xs, ys] = ["x", "y"].map((axis) => extent(points.map((point) => point[axis])));
  const reach = (xs[1] - xs[0] || 1) * (narrow ? 0.32 : 0.16);
  const domain = [xs[0] - reach * 0.15, xs[1] + reach];
  const height = Math.min(460, Math.max(300, width * 0.72));
  const look = (point) => point.at.length
    ? { text: point.piece, fontWeight: point === here ? 700 : 500 }
    : { text: point.piece, fill: "var(--muted)", fontSize: 12 };
  return {
    height, margin: 12,
    ariaLabel: "Map of the embedding vectors",
    ariaDescription: "Tokens of the prompt and their nearest neighbours in two dimensions",
    style: { background: "transparent", color: "var(--ink)", fontSize: "13px", overflow: "visible" },
    x: { axis: null, domain, inset: 6 },
    y: { axis: null, inset: 14 },
    marks: [
      Plot.ruleX([0], { stroke: "var(--line)" }),
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.link(lit, { x1: here.x, y1: here.y, x2: "x", y2: "y", stroke: "var(--accent)", strokeOpacity: 0.6, strokeDasharray: "3 3" }),
      Plot.dot(others, { x: "x", y: "y", r: 3.5, fill: "var(--ghost)", title: "piece" }),
      Plot.dot([here], { x: "x", y: "y", r: 11, stroke: "var(--accent)", strokeWidth: 2.5 }),
      Plot.dot(own, { x: "x", y: "y", r: 6, fill: { value: (point) => colour(point.at[0]), scale: null } }),
      ...named([...own, ...lit], placed(domain, [18, width - 18], ys, [26, height - 26]), look),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: "var(--card)", stroke: "var(--line)",
        title: (point) => `${point.piece}  id ${point.id}${point.at.length ? `\nposition ${point.at.join(", ")}` : "\na neighbour"}` })),
    ],
  };
}

function neighbours() {
  const { norm, first, neighbours } = trace.embedding.tokens[state.token];
  fill(".neighbours",
    el("h3", {}, "Nearest to ", piece(tokens[state.token].piece)),
    ...neighbours.map((neighbour) => el("div.meter", { "--v": Math.max(0, neighbour.cosine) },
      piece(neighbour.piece), el("i"), el("span.number", {}, fixed(neighbour.cosine, 3)))),
    el("p.note", {}, "Cosine of the angle between two rows: 1 is the same direction, 0 a right angle. Compared with all ", `${count(model.vocabulary)} rows of the table.`),
    el("p.note", {}, `Length ${fixed(norm, 3)}; it begins with `, el("code", {}, first.map((x) => fixed(x, 3)).join(" ")), ` and goes on for ${model.width - first.length} more numbers.`));
}

/** RoPE: one dial for a pair of numbers, one hand for each position. */
function rotated(place) {
  const { frequencies, theta, scaling, same_distance } = trace.positions;
  const shown = Math.min(8, frequencies.length);
  const pairs = Array.from({ length: shown }, (_, i) => Math.round((frequencies.length - 1) * (i / Math.max(1, shown - 1)) ** 1.4));
  const hands = [];
  const dials = pairs.map((pair) => {
    const face = svg("svg", { viewBox: "-52 -52 104 104", role: "img", "aria-label": `pair ${pair}: ${fixed(frequencies[pair], 5)} radians per position` },
      svg("circle", { class: "face", r: 50 }));
    for (let position = 0; position < L; position++) {
      const angle = position * frequencies[pair];
      const hand = svg("line", { class: "hand", x2: 45 * Math.cos(angle), y2: -45 * Math.sin(angle), stroke: colour(position) });
      face.append(hand);
      hands.push({ hand, position, face });
    }
    const turn = (2 * Math.PI) / frequencies[pair];
    return el("figure", {}, face, el("figcaption", {}, el("b", {}, `pair ${pair}`), el("br"),
      `a turn in ${turn < 100 ? fixed(turn, 1) : count(turn)} tokens`));
  });
  const products = same_distance.map(({ query, key, product }) =>
    el("tr", {}, el("td", {}, String(query)), el("td", {}, String(key)), el("td", {}, String(query - key)), el("td", {}, fixed(product, 4))));
  place.replaceChildren(el("div.panel", {},
    el("h3", {}, "Where it stands: RoPE turns queries and keys"),
    el("p.note", {}, `A row of the table does not say where its token stands. In every layer the ${model.head_dim} numbers of a query or a key are taken as ${frequencies.length} pairs, and pair i at position p is turned by p · ${count(theta)}`, el("sup", {}, `−2i/${model.head_dim}`), ` radians${scaling === "none" ? "" : `, stretched (${scaling})`}. The hands below are the positions, in the colours of the tokens: fast pairs tell neighbours apart, slow ones tell near from far.`),
    el("div.dials", {}, ...dials),
    products.length ? el("div.scroll", {}, el("table", {},
      el("caption.note", {}, "One query and one key of this prompt, put at other positions: as long as the distance stays, so does their product."),
      el("thead", {}, el("tr", {}, ...["query at", "key at", "distance", "q · k"].map((title) => el("th", { scope: "col" }, title)))),
      el("tbody", {}, ...products))) : null));
  watch(() => {
    for (const { hand, position, face } of hands) {
      hand.classList.toggle("on", position === state.token);
      if (position === state.token) face.append(hand);
    }
  });
}

/** GPT-2: a second row is added. */
function learned(place) {
  const { rows, cosines, shown } = trace.positions;
  const values = floats(cosines);
  const cells = Array.from({ length: shown * shown }, (_, i) => ({ a: Math.floor(i / shown), b: i % shown, cosine: values[i] }));
  const map = el("div", {});
  const facts = el("p.note", { "aria-live": "polite" });
  place.replaceChildren(el("div.panel", {},
    el("h3", {}, "Where it stands: a row per position is added"),
    el("p.note", {}, `This model has a second table with ${count(rows)} rows, one per position. Its row is added to the token’s once, before the first layer. Below: how alike the first ${shown} positions are (cosine).`),
    map, facts));
  const draw = chart(map, (width) => ({
    aspectRatio: 1, margin: 30, height: Math.min(width, 420), ariaLabel: "Cosine between the vectors of positions",
    style: { background: "transparent", color: "var(--ink)" },
    x: { label: "position" }, y: { label: "position" },
    color: { type: "linear", domain: [-1, 1], range: ["var(--cell)", "var(--heat)"], interpolate: (a, b) => (t) => `color-mix(in oklab, ${b} ${100 * t}%, ${a})` },
    marks: [Plot.cell(cells, { x: "b", y: "a", fill: "cosine", inset: 0.5, title: (cell) => `positions ${cell.a} and ${cell.b}: ${fixed(cell.cosine, 3)}` })],
  }));
  watch(() => {
    draw();
    const added = trace.embedding.added_positions[state.token];
    facts.textContent = `Token ${state.token}: the position’s vector is ${fixed(added.norm, 3)} long, the sum ${fixed(added.sum_norm, 3)}; the angle between the token’s vector and the sum has the cosine ${fixed(added.cosine, 3)}.`;
  });
}
