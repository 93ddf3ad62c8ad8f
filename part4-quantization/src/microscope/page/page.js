/** What is looked at; `column` is that of the weight, and its group is the one around it. */
const state = {
  bits: specimen.bits,
  size: specimen.group_size,
  rounding: "cpu",
  column: specimen.columns.start,
};

/** The group around the weight, packed. */
function group() {
  const start = state.column - (state.column % state.size);
  const values = row.values.slice(start - row.start, start - row.start + state.size);
  return { start, values, ...packGroup(values, state.bits, dtype, state.rounding) };
}

function choose(change) {
  Object.assign(state, change);
  draw();
}

function draw() {
  const g = group();
  const now = state.column - g.start;
  controls(g);
  line(g, now);
  steps(g);
  words(g, now);
  one(g, now);
  errors(g, now);
  table(g, now);
  widths(g);
}

function controls(g) {
  find("#bits").value = BITS.indexOf(state.bits);
  find("#group").value = SIZES.indexOf(state.size);
  find("#column").value = state.column;
  find("#rounding").value = state.rounding;
  find("output[for=bits]").value = state.bits;
  find("output[for=group]").value = state.size;
  find("output[for=column]").value = state.column;
  find("#bits").setAttribute("aria-valuetext", `${state.bits} bits`);
  find("#group").setAttribute("aria-valuetext", `groups of ${state.size}`);
  find("#column").setAttribute("aria-valuetext", `column ${state.column}`);
  find(".range").value = `${g.start}..${g.start + state.size}`;
}

/** Weights as dots, each above its place; below them the grid. */
function line(g, now) {
  const figure = find("#line");
  const grid = Array.from({ length: g.last + 1 }, (_, code) => f32(f32(g.scale * code) + g.bias));
  const [low, high] = [Math.min(g.low, ...grid), Math.max(g.high, ...grid)];
  const radius = figure.clientWidth < 600 ? 3.2 : 4.6;
  const scale = (width) => (x) => (high > low ? 12 + ((width - 24) * (x - low)) / (high - low) : width / 2);
  // A dot that would lie on another one goes above it.
  const inner = figure.clientWidth - 2 * parseFloat(getComputedStyle(figure).paddingLeft);
  const x = scale(Math.max(260, inner));
  const ends = [];
  const levels = [];
  for (const index of [...g.values.keys()].sort((a, b) => g.values[a] - g.values[b])) {
    const place = x(g.values[index]);
    const free = ends.findIndex((end) => end <= place - 2 * radius);
    levels[index] = free < 0 ? ends.length : free;
    ends[levels[index]] = place;
  }
  const base = 2 * radius * ends.length + 16;
  const label = `${g.values.length} weights from ${number(g.low)} to ${number(g.high)} and the ${g.last + 1} points of their grid`;
  const { drawing } = canvas(figure, base + 92, label);
  const tone = (code) => ({ "--hue": hue(code, g.last) });

  drawing.append(svg("line", { class: "axis", x1: x(low), x2: x(high), y1: base + 8, y2: base + 8 }));
  const every = 2 ** Math.ceil(Math.log2(Math.max(1, (30 * g.last) / Math.abs(x(grid[g.last]) - x(grid[0]) || 1))));
  grid.forEach((point, code) => {
    drawing.append(svg("line", { class: "tick", ...tone(code), x1: x(point), x2: x(point), y1: base + 2, y2: base + 18 }));
    if (code % every === 0) drawing.append(text(x(point), base + 33, code, { class: "code", ...tone(code) }));
  });
  g.values.forEach((value, index) => {
    const dot = svg("circle", {
      class: index === now ? "dot now" : "dot", "data-column": g.start + index, ...tone(g.codes[index]),
      cx: x(value), cy: base - radius - 2 * radius * levels[index], r: index === now ? radius + 1.5 : radius,
    });
    dot.append(svg("title", {}, `weight ${g.start + index}: ${number(value)}, code ${g.codes[index]}`));
    drawing.append(dot);
  });
  // From the weight to the point that it becomes.
  drawing.append(svg("path", { class: "way", d: `M${x(g.values[now])} ${base - 2 * radius * levels[now]}L${x(g.back[now])} ${base + 8}` }));
  if (g.zero > 0) flag(drawing, x(g.edge), base + 54, `edge ${number(g.edge)}`, "edge", inner);
  if (low <= 0 && high >= 0) flag(drawing, x(0), base + 78, "zero", "zero", inner);
}

/** A mark below the grid, its text on the side that has room. */
function flag(drawing, x, y, says, kind, width) {
  const left = x > width - 110;
  drawing.append(
    svg("path", { class: kind, d: `M${x} ${y - 12}l6 11h-12z` }),
    text(left ? x - 12 : x + 12, y, says, { class: `flag t-${kind}`, "text-anchor": left ? "end" : "start" }),
  );
}

function steps(g) {
  const away = Math.abs(g.edge / g.step);
  const point = f32(f32(g.scale * g.zero) + g.bias);
  const moved = point === 0 ? "" : `, or ${number(point, 2)} as it is stored`;
  const hit = g.zero > g.last ? `${away.toFixed(1)} steps from the edge: beyond code ${g.last}` : `${away.toFixed(3)} steps from the edge, moved to ${g.zero}: code ${g.zero} is zero${moved}`;
  const entries = [
    ["range", `${number(g.low)} to ${number(g.high)} in ${g.last} steps: each would be ${number(g.step, 2)}`],
    ["edge", g.zero === 0 ? `${number(g.edge)}: less than half a step, nothing is pinned` : `${number(g.edge)} is the largest in size: code 0 gives it back`],
    ["zero", g.zero === 0 ? "code 0 is zero" : hit],
    ["stored", `scale ${number(g.scale, 2)}, bias ${number(g.bias, 2)} (${dtype})`],
  ];
  find(".steps").replaceChildren(...entries.flatMap(([name, says]) => [el("dt", {}, name), el("dd", {}, says)]));
}

function words(g, now) {
  const { bits } = state;
  const rows = [...g.words].map((word, index) => {
    const [first, last] = [Math.floor((index * 32) / bits), Math.floor((index * 32 + 31) / bits)];
    const digits = word.toString(2).padStart(32, "0");
    const parts = [];
    for (let code = last; code >= first; code--) {
      const from = Math.max(code * bits - index * 32, 0);
      const to = Math.min((code + 1) * bits - index * 32, 32);
      parts.push(el("i", {
        class: code === now ? "now" : null, "data-column": g.start + code, "--hue": hue(g.codes[code], g.last),
        title: `weight ${g.start + code}: code ${g.codes[code]}`,
      }, digits.slice(32 - to, 32 - from)));
    }
    return el("li", {}, el("code", { class: "hex" }, word.toString(16).padStart(8, "0")), el("code", { class: "digits" }, ...parts),
      el("span", {}, `weights ${g.start + first} to ${g.start + last}`));
  });
  find(".words").replaceChildren(...rows);
}

/** The weight that is followed, step by step. */
function one(g, now) {
  const [value, code, back] = [g.values[now], g.codes[now], g.back[now]];
  const at = f32(f32(value - g.exact.bias) / g.exact.scale);
  find(".one").replaceChildren(
    "Weight ", el("b", {}, String(state.column)), ` is ${number(value)}: ${at.toFixed(3)} steps from code 0, so code `,
    el("b", { class: "chip", "--hue": hue(code, g.last) }, String(code)), ` = ${code.toString(2).padStart(state.bits, "0")}. It comes back as `,
    el("b", {}, number(back)), `, an error of ${signed(back - value)}.`,
  );
}

/** One bar per weight: up where too much comes back. */
function errors(g, now) {
  const half = Math.abs(g.scale) / 2;
  const all = g.values.map((value, index) => g.back[index] - value);
  const most = Math.max(half, ...all.map(Math.abs)) || 1;
  const label = `The error of each weight; RMS ${number(rms(all), 2)}`;
  const { drawing, width } = canvas(find("#errors"), 200, label);
  const wide = (width - 2) / all.length;
  const y = (error) => 92 - (78 * error) / most;
  for (const [at, says] of [[half, "half a step"], [0, ""], [-half, ""]]) {
    drawing.append(svg("line", { class: at ? "half" : "axis", x1: 0, x2: width, y1: y(at), y2: y(at) }), text(0, y(at) - 4, says, { class: "small" }));
  }
  all.forEach((error, index) => {
    const [top, bottom] = [Math.min(y(error), y(0)), Math.max(y(error), y(0))];
    drawing.append(
      svg("rect", { class: index === now ? "error now" : "error", "--hue": hue(g.codes[index], g.last), x: 1 + index * wide, width: Math.max(1, wide - 1), y: top, height: Math.max(1, bottom - top) }),
      svg("rect", { class: "catch", "data-column": g.start + index, x: 1 + index * wide, width: wide, y: 0, height: 184 }, svg("title", {}, `weight ${g.start + index}: error ${signed(error)}`)),
    );
  });
  drawing.append(text(0, 196, `RMS ${number(rms(all), 2)}, ${percent(rms(all), rms(g.values))} of the weights’ own`, { class: "small" }));
}

function table(g, now) {
  const head = ["weight", "value", "code", "bits", "comes back", "error"];
  const rows = g.values.map((value, index) => el("tr", { class: index === now ? "now" : null },
    el("th", { scope: "row" }, String(g.start + index)),
    ...[number(value), String(g.codes[index]), g.codes[index].toString(2).padStart(state.bits, "0"), number(g.back[index]), signed(g.back[index] - value)].map((cell) => el("td", {}, cell))));
  find(".all").replaceChildren(
    el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows),
  );
}

/** The same group at all widths. */
function widths(g) {
  const all = BITS.map((bits) => {
    const { back } = packGroup(g.values, bits, dtype, state.rounding);
    const error = rms(g.values.map((value, index) => back[index] - value));
    return { bits, error, share: error === 0 ? 0 : error / rms(g.values) };
  });
  const most = Math.max(...all.map(({ share }) => share)) || 1;
  const { drawing, width } = canvas(find("#widths"), 210, "The error of this group at every width");
  const wide = width / all.length;
  all.forEach(({ bits, error, share }, index) => {
    const [middle, height] = [(index + 0.5) * wide, (130 * share) / most];
    const stored = bits + (dtype === "f32" ? 64 : 32) / state.size;
    drawing.append(
      svg("rect", { class: bits === state.bits ? "width now" : "width", x: middle - Math.min(34, 0.36 * wide), width: Math.min(68, 0.72 * wide), y: 160 - height, height: Math.max(1, height) }),
      text(middle, 152 - height, percent(error, rms(g.values)), { class: "mid small" }),
      text(middle, 180, `${bits} bits`, { class: "mid" }),
      text(middle, 198, stored.toFixed(2), { class: "mid small" }),
    );
  });
}

function listen() {
  Object.assign(find("#group"), { max: SIZES.length - 1 });
  Object.assign(find("#column"), { min: row.start, max: row.start + row.values.length - 1 });
  find("#bits").addEventListener("input", (event) => choose({ bits: BITS[event.target.value] }));
  find("#group").addEventListener("input", (event) => choose({ size: SIZES[event.target.value] }));
  find("#column").addEventListener("input", (event) => choose({ column: Number(event.target.value) }));
  find("#rounding").addEventListener("change", (event) => choose({ rounding: event.target.value }));
  find("form").addEventListener("submit", (event) => event.preventDefault());
  find("main").addEventListener("click", (event) => {
    const chosen = event.target.closest("[data-column]");
    if (chosen) choose({ column: Number(chosen.dataset.column) });
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) draw();
    width = innerWidth;
  });
}

/** The weight with the largest error is the first that is followed. */
function worst() {
  const g = group();
  const errors = g.values.map((value, index) => Math.abs(g.back[index] - value));
  return g.start + errors.indexOf(Math.max(...errors));
}

theme();
listen();
choose({ column: worst() });
document.documentElement.dataset.ready = "";
