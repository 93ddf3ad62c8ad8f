function embedStep() {
  fill("#embed .shape", `table [V, E] = [${count(model.vocabulary)}, ${model.width}]   →   x [L, E] = [${L}, ${model.width}]`);
  const { explained } = trace.embedding.map;
  const whole = explained[0] + explained[1];
  fill("#embed figcaption", `The rows of the prompt’s tokens and of their neighbours, ${model.width} numbers each, seen from the side on which they lie farthest apart (PCA). The two axes show ${percent(explained[0])} and ${percent(explained[1])} of the variance: ${percent(1 - whole)} of it is not visible here.`);
  const draw = chart(find(".projection"), projection);
  watch(draw);
  watch(neighbours);
  meanings();
  (trace.positions.kind === "rotated" ? rotated : learned)(find(".positions"));
}

/** A dozen words along two directions that have names. */
function meanings() {
  const found = trace.embedding.meanings;
  if (!found) return;
  const list = (words) => words.map((word) => plain(word).trim()).join(", ");
  const [right, up] = found.axes;
  const picture = el("div", {});
  find(".meanings").replaceChildren(el("figure", {}, el("h3", {}, "A map of meanings"), picture,
    el("figcaption", {}, `To the right: the direction from ${list(right.from)} to ${list(right.to)}. Upwards: from ${list(up.from)} to ${list(up.to)}. The words on the map are in neither. These are two of ${count(model.width)} directions; every further one costs memory and time in each layer.`)));
  chart(picture, (width) => ({
    height: Math.min(420, Math.max(280, width * 0.5)), margin: 30, marginRight: 64,
    ariaLabel: "Words along two directions",
    style: { background: "transparent", color: "var(--ink)", fontSize: "13px", overflow: "visible" },
    x: { label: `${plain(right.to[0]).trim()} …  →`, ticks: 0, inset: 20 }, y: { label: `↑  ${plain(up.to[0]).trim()} …`, ticks: 0, inset: 20 },
    marks: [
      Plot.ruleX([0], { stroke: "var(--line)" }), Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.dot(found.points, { x: "x", y: "y", r: 5, fill: "var(--accent)", title: (point) => `${point.piece} ${fixed(point.x, 2)}, ${fixed(point.y, 2)}` }),
      Plot.text(found.points, { x: "x", y: "y", text: (point) => plain(point.piece).trim(), dx: 9, textAnchor: "start", fill: "var(--ink)", stroke: "var(--card)", strokeWidth: 4, paintOrder: "stroke" }),
    ],
  }))();
}

/** The map of the vectors. */
function projection(width) {
  const { points } = trace.embedding.map;
  const near = new Set(trace.embedding.tokens[state.token].neighbours.map((neighbour) => neighbour.id));
  const own = points.filter((point) => point.at.length);
  const others = points.filter((point) => !point.at.length);
  const here = points.find((point) => point.at.includes(state.token));
  const lit = others.filter((point) => near.has(point.id));
  const narrow = width < 480;
  const named = { x: "x", y: "y", text: "piece", paintOrder: "stroke", stroke: "var(--card)", strokeWidth: 4, textAnchor: "start", dx: 8 };
  const xs = points.map((point) => point.x);
  const reach = (Math.max(...xs) - Math.min(...xs) || 1) * (narrow ? 0.32 : 0.16);
  return {
    height: Math.min(460, Math.max(300, width * 0.72)),
    margin: 12, marginBottom: 12, marginLeft: 12,
    ariaLabel: "Map of the embedding vectors",
    ariaDescription: "Tokens of the prompt and their nearest neighbours in two dimensions",
    style: { background: "transparent", color: "var(--ink)", fontSize: "13px", overflow: "visible" },
    x: { axis: null, domain: [Math.min(...xs) - reach * 0.15, Math.max(...xs) + reach], inset: 6 },
    y: { axis: null, inset: 14 },
    marks: [
      Plot.ruleX([0], { stroke: "var(--line)" }),
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.link(lit, { x1: here.x, y1: here.y, x2: "x", y2: "y", stroke: "var(--accent)", strokeOpacity: 0.6, strokeDasharray: "3 3" }),
      Plot.dot(others, { x: "x", y: "y", r: 3.5, fill: "var(--ghost)", title: "piece" }),
      Plot.text(lit, { ...named, fill: "var(--muted)", fontSize: 12 }),
      Plot.dot([here], { x: "x", y: "y", r: 11, stroke: "var(--accent)", strokeWidth: 2.5 }),
      Plot.dot(own, { x: "x", y: "y", r: 6, fill: { value: (point) => colour(point.at[0]), scale: null } }),
      Plot.text(own, { ...named, fill: "var(--ink)", fontWeight: (point) => (point === here ? 700 : 500) }),
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
