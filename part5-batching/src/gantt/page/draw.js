const find = (selector) => document.querySelector(selector);
const gantt = JSON.parse(find("#gantt").textContent);

const STATES = {
  queued: "queued",
  held: "sits out",
  prompt: "reads its prompt",
  again: "computes again what it lost",
  slowed: "answers, beside prompts that take time",
  decode: "answers",
};
const LANE = 18;
const LEFT = 44;
const TOP = 22;

/** An element with attributes, in SVG or in HTML. */
function make(name, attributes = {}, text) {
  const svg = ["svg", "rect", "text", "path", "line", "g"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const time = (ms) => (ms >= 10_000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(ms > 0 && ms < 100 ? 1 : 0)} ms`);

/** A round distance between two marks of the axis, so that about `count` of them fit. */
function distance(duration, count) {
  const rough = Math.max(duration, 1e-6) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

/** The whole picture, `width` pixels wide; `point` is told of each stretch that is pointed at. */
function chart(width, point) {
  const height = TOP + gantt.lanes.length * LANE + 6;
  const x = (ms) => LEFT + ((width - LEFT - 8) * ms) / Math.max(gantt.duration, 1e-6);
  const svg = make("svg", { width, height, role: "img", "aria-label": `${gantt.lanes.length} requests over ${time(gantt.duration)}` });
  const gap = distance(gantt.duration, width / 110);
  for (let ms = 0; ms <= gantt.duration; ms += gap) {
    svg.append(make("line", { class: "grid", x1: x(ms), x2: x(ms), y1: TOP - 4, y2: height }));
    svg.append(make("text", { class: "tick", x: Math.max(x(ms), LEFT + 8), y: 12 }, time(ms)));
  }
  gantt.lanes.forEach((lane, at) => {
    const y = TOP + at * LANE;
    svg.append(make("text", { class: "id", x: LEFT - 8, y: y + 13 }, lane.id));
    if (lane.end === "refused") svg.append(make("text", { x: x(lane.arrival), y: y + 13 }, "refused"));
    for (const span of lane.spans) {
      const box = { x: x(span.from), y: y + 2, width: Math.max(0.6, x(span.to) - x(span.from)), height: LANE - 4 };
      const rect = make("rect", { class: `span ${span.state}`, ...box });
      for (const event of ["pointerenter", "pointerdown"]) rect.addEventListener(event, () => point(lane, span));
      svg.append(rect);
    }
    for (const ms of lane.preempted) {
      const [left, top] = [x(ms) - 4, y + 5];
      svg.append(make("path", { class: "cross", d: `M${left} ${top}l8 8m0 -8l-8 8` }));
    }
  });
  const cursor = make("rect", { class: "cursor", y: TOP - 4, height: height - TOP + 4 });
  svg.append(cursor);
  return { svg, cursor, x };
}
