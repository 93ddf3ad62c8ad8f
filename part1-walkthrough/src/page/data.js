// The trace as the program wrote it, and the few helpers that every step uses. Text from the trace
// only ever becomes a text node: nothing here parses it as HTML.

const trace = JSON.parse(document.getElementById("trace").textContent);
const { model, tokens } = trace;
const L = tokens.length;

/** Floats in the trace: base64 of little-endian f32. */
function floats(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** What is looked at now. Each step redraws itself when it changes. */
const state = { token: L - 1, layer: trace.focus.layer, head: trace.focus.head };
const watchers = [];
function watch(redraw) {
  watchers.push(redraw);
  redraw();
}
function set(change) {
  Object.assign(state, change);
  for (const redraw of watchers) redraw();
}

/** An element; attributes that are `null` or `false` are left out, children are nodes or text. */
function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const find = (selector, within = document) => within.querySelector(selector);
const fill = (selector, ...children) => find(selector).replaceChildren(...children);

/** A piece of the vocabulary, its blanks dimmed. */
function piece(text) {
  const parts = text.split(/(␣+)/).filter(Boolean);
  return el("bdi.piece", {}, ...parts.map((part) => (part[0] === "␣" ? el("span.space", {}, part) : part)));
}
/** The same as running text: blanks are blanks. */
const plain = (text) => text.replaceAll("␣", " ").replaceAll("↵", "\n");

/** The colour of a position: the same on the whole page. */
const hue = (position) => 20 + Math.round((310 * position) / Math.max(L, 2));
const colour = (position) => `light-dark(oklch(0.55 0.17 ${hue(position)}), oklch(0.78 0.13 ${hue(position)}))`;
/** Small weights stay visible: the shade of a cell is the square root of its value. */
const shade = (value) => Math.sqrt(Math.max(0, Math.min(1, value)));

const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");
const many = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
const count = (value) => Math.round(value).toLocaleString("en-GB");
const percent = (value) => {
  if (value === 0) return "0\u00a0%";
  if (value < 0.0001) return "<\u00a00.01\u00a0%";
  if (value >= 0.9995) return "100\u00a0%";
  return `${(100 * value).toFixed(value < 0.1 ? 2 : 1)}\u00a0%`;
};
/** `7.34 M`, with SI prefixes. */
function compact(value, unit = "") {
  const step = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => value >= size) ?? [1, ""];
  const scaled = value / step[0];
  const digits = step[0] === 1 ? 0 : scaled < 10 ? 2 : scaled < 100 ? 1 : 0;
  return `${scaled.toFixed(digits)}\u00a0${step[1]}${unit}`.trim();
}
/** Bytes, as the terminal tells them: in kB, MB and GB. */
function decimal(bytes) {
  const power = [3, 2, 1].find((power) => bytes >= 1000 ** power);
  return power ? `${(bytes / 1000 ** power).toFixed(2)}\u00a0${["kB", "MB", "GB"][power - 1]}` : `${count(bytes)}\u00a0B`;
}
const small = (value) => (value === 0 ? "0" : value.toExponential(1).replace("e-", " · 10⁻").replace(/⁻(\d+)$/, (_, d) =>
  `⁻${[...d].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`));
const sizes = (shape) => `${shape.name} ${shape.letters} = [${shape.sizes.join(", ")}]`;

/** A button for a token of the prompt: one click and the whole page follows it. */
function tokenButton(position, ...content) {
  const button = el("button.token", {
    type: "button",
    "--hue": hue(position),
    "data-token": position,
    onclick: () => set({ token: position }),
  }, ...(content.length ? content : [piece(tokens[position].piece)]));
  if (!content.length) button.setAttribute("aria-label", `token ${position}, ${tokens[position].piece}`);
  return button;
}

/** Arrow keys move the focus within a group that is one stop of the Tab key; `columns` per row. */
function roving(group, items, columns) {
  items.forEach((item, index) => (item.tabIndex = index === 0 ? 0 : -1));
  group.addEventListener("keydown", (event) => {
    const from = items.indexOf(event.target.closest("[tabindex]"));
    const rowStart = from - (from % columns);
    const to = {
      ArrowRight: from + 1,
      ArrowLeft: from - 1,
      ArrowDown: from + columns,
      ArrowUp: from - columns,
      Home: event.ctrlKey ? 0 : rowStart,
      End: event.ctrlKey ? items.length - 1 : rowStart + columns - 1,
    }[event.key];
    if (from < 0 || to === undefined || !items[to]) return;
    event.preventDefault();
    items[to].focus();
  });
  group.addEventListener("focusin", (event) => {
    const now = event.target.closest("[tabindex]");
    if (items.includes(now)) stopAt(items, now);
  });
}
/** The item that the Tab key reaches. */
function stopAt(items, now) {
  for (const item of items) item.tabIndex = item === now ? 0 : -1;
}

/** Draws a chart as wide as its place, again when the place changes. */
function chart(place, options) {
  let width = 0;
  const draw = () => {
    width = place.clientWidth;
    if (width > 0) place.replaceChildren(Plot.plot({ ...options(width), width }));
  };
  new ResizeObserver(() => place.clientWidth !== width && draw()).observe(place);
  return draw;
}
