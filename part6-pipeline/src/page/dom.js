/** The first element that a selector finds. */
export const find = (selector, root = document) => root.querySelector(selector);

/**
 * An element: `el("button.main", { type: "button" }, "Send")`.
 * What is a text becomes a text, never HTML: much of what is shown here was written by a model.
 */
export function el(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length > 0) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Sets a text only where it has changed: a browser lays out again what was touched. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Calls `work` with the next frame, once, however often it is asked for until then. */
export function onceAFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/** 1234567 → 1,234,567 */
export const count = (number) => Math.round(number).toLocaleString("en-US");

/** Milliseconds as a person would say them. */
export function time(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
}

/** Bytes as a person would say them. */
export const bytes = (number) => (number >= 1e9 ? `${(number / 1e9).toFixed(2)} GB` : number >= 1e6 ? `${(number / 1e6).toFixed(1)} MB` : `${(number / 1e3).toFixed(0)} kB`);

/** The value that a share of all values is below. */
export function percentile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
