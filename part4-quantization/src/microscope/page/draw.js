// The specimen as the program wrote it, and the few helpers that all pictures use. Text only ever becomes
// a text node: nothing here parses it as HTML.

const specimen = JSON.parse(document.getElementById("specimen").textContent);
const { window: row, dtype } = specimen;

const BITS = [2, 3, 4, 5, 6, 8];
const SIZES = [32, 64, 128].filter((size) => row.width % size === 0);

const find = (selector) => document.querySelector(selector);

function el(name, attributes = {}, ...children) {
  return dress(document.createElement(name), attributes, children);
}
function svg(name, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}
function dress(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("--")) node.style.setProperty(key, value);
    else if (value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** The colour of a code. */
const hue = (code, last) => 255 - (230 * code) / last;

/** Four digits of the largest weight that the page has, for all of its numbers. */
const largest = Math.max(...row.values.map(Math.abs));
const isReadable = largest === 0 || (largest >= 1e-3 && largest < 1e5);
const decimals = largest === 0 ? 1 : Math.min(9, Math.max(1, 3 - Math.floor(Math.log10(largest))));
function number(x, more = 0) {
  const text = isReadable ? x.toFixed(decimals + more) : x.toExponential(2 + more);
  return (Number(text) === 0 ? text.replace("-", "") : text).replaceAll("-", "−");
}
const signed = (x) => (x > 0 ? `+${number(x)}` : number(x));
const percent = (part, whole) => `${part === 0 ? "0" : ((100 * part) / whole).toFixed(part / whole < 0.1 ? 2 : 1)} %`;

/** A canvas as wide as its place, in CSS pixels, so that text on it keeps its size. */
function canvas(figure, height, label) {
  const width = Math.max(260, figure.clientWidth - 2 * parseFloat(getComputedStyle(figure).paddingLeft));
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  figure.replaceChildren(drawing);
  return { drawing, width };
}
const text = (x, y, says, more = {}) => svg("text", { x, y, ...more }, says);
