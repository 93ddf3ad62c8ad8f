/** The lanes as they move, and below them what each step was made of. */
import { count, find, time, write } from "./dom.js";
import { LANES, WINDOW, live, on } from "./live.js";
import { themeWatchers } from "./theme.js";

/** The picture is so many milliseconds late, so that it moves evenly though reports come in bursts. */
const LATE = 150;
const LEFT = 46;
const TOP = 4;
const BARS = 56;
const AXIS = 16;
const STATES = { queued: "waits", prompt: "reads its prompt", decode: "answers", held: "sits out", again: "computes again what it lost" };

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const picture = { canvas: null, context: null, width: 0, height: 0, lane: 14, lanes: 0, colours: {}, paused: null, running: false };

/** The colours of the legend are the colours of the picture. */
function readColours() {
  for (const swatch of document.querySelectorAll(".gantt .swatch")) {
    picture.colours[swatch.classList[1]] = getComputedStyle(swatch).backgroundColor;
  }
  const style = getComputedStyle(find(".gantt .pointed"));
  picture.colours.ink = style.color;
  picture.colours.line = style.borderTopColor;
  picture.colours.cross = style.outlineColor;
  picture.colours.track = style.textDecorationColor;
  picture.font = `11px ${style.fontFamily}`;
}

/** As many lanes as there are rows, and more while more are needed. */
function measure() {
  const rows = Math.min(live.limits?.rows ?? 16, LANES);
  const lanes = Math.max(rows, live.slots.length, picture.lanes, 4);
  const width = picture.canvas.clientWidth;
  const scale = devicePixelRatio;
  const lane = lanes > 16 ? 12 : 14;
  const height = TOP + lanes * lane + 8 + BARS + AXIS;
  if (width === picture.width && height === picture.height && scale === picture.scale) return;
  Object.assign(picture, { width, height, scale, lanes, lane });
  picture.canvas.style.height = `${height}px`;
  picture.canvas.width = Math.round(width * scale);
  picture.canvas.height = Math.round(height * scale);
}

/** The engine's time at the right edge. */
const edge = () => picture.paused ?? (live.zero === null ? 0 : performance.now() - live.zero - LATE);

function draw() {
  measure();
  const { context, width, height, scale, colours } = picture;
  const to = edge();
  const x = (at) => LEFT + ((at - to + WINDOW) * (width - LEFT)) / WINDOW;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = picture.font;
  context.save();
  context.beginPath();
  context.rect(LEFT, 0, width - LEFT, height);
  context.clip();
  tracks();
  if (live.zero !== null) axis(to, x);
  for (const lane of live.lanes.values()) if (lane.slot !== null) drawLane(lane, to, x);
  bars(to, x);
  context.restore();
  context.fillStyle = colours.ink;
  context.textAlign = "right";
  live.slots.forEach((lane, slot) => {
    if (lane && (lane.ended === null || lane.ended > to - 400)) context.fillText(lane.id, LEFT - 6, y(slot) + picture.lane - 4);
  });
  context.fillText("tokens", LEFT - 6, height - AXIS - 2);
}

/** Where lanes are, or will be. */
function tracks() {
  const { context, width, lane, lanes, colours } = picture;
  context.fillStyle = colours.track;
  for (let slot = 0; slot < lanes; slot++) context.fillRect(LEFT, y(slot) + 1, width - LEFT, lane - 2);
}

const y = (slot) => TOP + slot * picture.lane;

function axis(to, x) {
  const { context, height, colours } = picture;
  context.fillStyle = colours.ink;
  context.strokeStyle = colours.line;
  context.textAlign = "center";
  context.beginPath();
  for (let second = Math.ceil((to - WINDOW) / 2000) * 2; second * 1000 <= to; second += 2) {
    const at = Math.round(x(second * 1000)) + 0.5;
    context.moveTo(at, 0);
    context.lineTo(at, height - AXIS);
    if (second >= 0) context.fillText(`${second} s`, at, height - 3);
  }
  context.stroke();
}

function drawLane(lane, to, x) {
  const { context, colours } = picture;
  const [top, tall] = [y(lane.slot) + 1, picture.lane - 2];
  for (const span of lane.spans) {
    if (span.to < to - WINDOW || span.from > to) continue;
    // What is not known yet is on its way: the lane is drawn to the edge, not in steps.
    const open = lane.ended === null && span === lane.spans.at(-1) && live.last?.rows.length > 0;
    const until = open ? Math.max(span.to, Math.min(to, span.to + LATE)) : span.to;
    context.fillStyle = colours[span.state];
    const left = x(span.from);
    context.fillRect(left, top, Math.max(1, x(until) - left), tall);
  }
  context.fillStyle = colours.ink;
  for (const at of lane.paused) {
    context.fillRect(x(at) - 2, top, 1.5, tall);
    context.fillRect(x(at) + 1, top, 1.5, tall);
  }
  context.strokeStyle = colours.cross;
  for (const at of lane.preempted) {
    const left = x(at);
    context.beginPath();
    context.moveTo(left - 3, top + 2);
    context.lineTo(left + 3, top + tall - 2);
    context.moveTo(left + 3, top + 2);
    context.lineTo(left - 3, top + tall - 2);
    context.stroke();
  }
}

/** What a step is made of, from below: a token for each row that answers, what was guessed besides, prompts. */
const PARTS = ["decode", "right", "wrong", "prompt"];
const tokens = (step) => PARTS.reduce((sum, part) => sum + step[part], 0);

/** In each two pixels the step that had most. */
function bars(to, x) {
  const { context, width, height, colours } = picture;
  const columns = [];
  let most = 16;
  for (const step of live.steps) {
    if (step.at < to - WINDOW || step.at - step.took > to) continue;
    const sum = tokens(step);
    most = Math.max(most, sum);
    const last = Math.floor(x(step.at) / 2);
    for (let at = Math.max(0, Math.floor(x(step.at - step.took) / 2)); at <= last; at++) {
      if (!columns[at] || tokens(columns[at]) < sum) columns[at] = step;
    }
  }
  const bottom = height - AXIS;
  const tall = (sum) => (sum * (BARS - 4)) / most;
  for (const [nth, part] of PARTS.entries()) {
    context.fillStyle = colours[part];
    columns.forEach((step, at) => {
      const base = tall(PARTS.slice(0, nth).reduce((sum, below) => sum + step[below], 0));
      const own = tall(step[part]);
      if (own > 0) context.fillRect(at * 2, bottom - base - own, 2, own);
    });
  }
  context.fillStyle = colours.ink;
  context.textAlign = "left";
  if (columns.length > 0) context.fillText(count(most), LEFT + 3, bottom - BARS + 12);
}

/** Moves as long as there is something to see, then rests. */
function run() {
  if (picture.running) return;
  picture.running = true;
  const frame = () => {
    const isOver = live.zero === null || !live.last || edge() - live.last.at > WINDOW + 500;
    if (picture.canvas.offsetParent) draw();
    if (picture.paused !== null || isOver) picture.running = false;
    else if (calm.matches) setTimeout(frame, 1000);
    else requestAnimationFrame(frame);
  };
  frame();
}

function pause(button) {
  picture.paused = picture.paused === null ? edge() : null;
  button.setAttribute("aria-pressed", picture.paused !== null);
  write(button, picture.paused === null ? "Pause" : "Go on");
  run();
}

/** What lies under the pointer. */
function point(event) {
  const box = picture.canvas.getBoundingClientRect();
  const at = edge() - WINDOW + ((event.clientX - box.left - LEFT) * WINDOW) / (picture.width - LEFT);
  const slot = Math.floor((event.clientY - box.top - TOP) / picture.lane);
  const lanes = [...live.lanes.values()].filter((lane) => lane.slot === slot);
  for (const lane of lanes) {
    const span = lane.spans.find((span) => span.from <= at && at <= span.to);
    if (span) return write(find(".gantt .pointed"), describe(lane, span));
  }
  const step = live.steps.find((step) => step.at - step.took <= at && at <= step.at);
  if (step) write(find(".gantt .pointed"), `A step of ${time(step.took)}: ${count(step.decode + step.right)} tokens of answers, ${count(step.prompt)} of prompts.${ofGuesses(step)}`);
}

const ofGuesses = ({ right, wrong }) => (right + wrong > 0 ? ` ${count(right)} of ${count(right + wrong)} guessed tokens were kept.` : "");

function describe(lane, span) {
  const begun = lane.begun ? `, ${count(lane.begun.prompt_tokens)} tokens of prompt, ${count(lane.begun.cached)} of them cached` : "";
  const pauses = lane.paused.length > 0 ? ` Guesses took longer than they saved: it stopped guessing for a while, where the two lines are.` : "";
  return `Request ${lane.id} ${STATES[span.state]} for ${time(span.to - span.from)}${begun}.${lane.guesses ? ofGuesses({ right: lane.guesses.right, wrong: lane.guesses.guessed - lane.guesses.right }) : ""}${pauses}`;
}

/** For those who do not see it, now and then. */
function say() {
  const { last } = live;
  if (!last) return;
  const answers = last.rows.filter((row) => row.does === "decode").length;
  const label = last.rows.length === 0 ? "Nothing runs" : `${answers} rows answer, ${last.rows.length - answers} read prompts, ${last.waiting.count} wait`;
  if (picture.canvas.getAttribute("aria-label") !== label) picture.canvas.setAttribute("aria-label", label);
}

export function gantt() {
  picture.canvas = find(".gantt canvas");
  picture.context = picture.canvas.getContext("2d");
  const redraw = () => {
    readColours();
    if (!picture.running && picture.canvas.offsetParent) draw();
  };
  themeWatchers.push(redraw);
  new ResizeObserver(redraw).observe(picture.canvas);
  const button = find(".gantt .pause");
  button.addEventListener("click", () => pause(button));
  for (const name of ["pointermove", "pointerdown"]) picture.canvas.addEventListener(name, point);
  on("steps", run);
  on("state", redraw);
  setInterval(say, 2000);
  readColours();
  draw();
}
