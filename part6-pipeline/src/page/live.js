/** What the engine does, as `GET /live` tells it: a lane for each request, and the steps. */
import { Fault, ask, events } from "./server.js";

/** Milliseconds that are kept: what the picture shows, and a little more. */
export const WINDOW = 10_000;
/** Steps and requests that are kept for the simulator. */
const STEPS = 4096;
const REQUESTS = 1024;
/** After so many milliseconds without a request, another run begins. */
const PAUSE = 3000;
/** Requests of which is told how they guess. */
const GUESSERS = 32;
/** Lanes that are drawn. */
export const LANES = 24;

export const live = {
  state: "connecting",
  why: null,
  limits: null,
  /** The newest report. */
  last: null,
  lanes: new Map(),
  slots: [],
  /** Of each step: when it ended, how long it took, tokens of answers and of prompts, and of guesses right and wrong ones. */
  steps: [],
  /** Who got a row last, with what was there of its prompt. */
  starts: [],
  /** Who guesses or has guessed, the latest first: tokens that were guessed, those that were right, and pauses. */
  guessers: [],
  /** The requests of this run that have ended. */
  ended: [],
  /** Steps as the simulator learns from them. */
  measured: [],
  mostUsed: 0,
  lost: 0,
  /** When this server began. */
  began: null,
  /** The page's clock when the engine's was 0. */
  zero: null,
};

/** Who wants to know: of a new state, and of steps. */
const listeners = { state: [], steps: [] };
export const on = (what, listener) => listeners[what].push(listener);
const tell = (what) => listeners[what].forEach((listener) => listener());

function become(state, why = null) {
  if (live.state === state && live.why === why) return;
  [live.state, live.why] = [state, why];
  tell("state");
}

/** A connection as long as the page can be seen, again and again. */
export async function connect() {
  let wait = 250;
  for (;;) {
    await visible();
    const controller = new AbortController();
    const hide = () => document.hidden && controller.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      for await (const event of events(await ask("/live", { signal: controller.signal }))) {
        wait = 250;
        hear(event);
      }
      become("gone");
    } catch (error) {
      if (error.name !== "AbortError") become(error instanceof Fault && !error.isGone ? "refused" : "gone", error.message);
    }
    document.removeEventListener("visibilitychange", hide);
    forgetLanes();
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 1.6, 4000);
  }
}

function visible() {
  if (!document.hidden) return undefined;
  return new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
}

function hear({ name, data }) {
  const said = JSON.parse(data);
  if (name === "state") {
    if (live.began !== said.began) forgetRun();
    live.began = said.began;
    live.limits = said.limits ?? live.limits;
    become(said.state, said.why);
  } else if (name === "steps") {
    live.lost += said.lost;
    // Some of those that are on the picture may have ended in what was lost.
    if (said.lost > 0) forgetLanes();
    said.reports.forEach(take);
    const zero = performance.now() - said.reports.at(-1).at;
    // The fastest of all ways here is nearest to the truth; clocks that drift apart are followed slowly.
    live.zero = live.zero === null || zero < live.zero || zero - live.zero > 1000 ? zero : live.zero + 0.2;
    tell("steps");
  }
}

/** Another server: what was measured of the one before is not of this one. */
function forgetRun() {
  forgetLanes();
  live.ended.length = live.measured.length = live.starts.length = live.guessers.length = live.mostUsed = 0;
}

/** Another engine, or the same one after a while in which nobody listened. */
function forgetLanes() {
  live.lanes.clear();
  live.slots.length = live.steps.length = 0;
  live.last = live.zero = null;
  tell("steps");
}

function take(report) {
  const from = report.at - report.took;
  live.last = report;
  live.mostUsed = Math.max(live.mostUsed, report.kv.used);
  for (const begun of report.begun) {
    live.starts.unshift(begun);
    lane(begun.id, from).begun = begun;
  }
  live.starts.length = Math.min(live.starts.length, 8);
  if (report.rows.length > 0) {
    report.rows.forEach((row) => extend(row.id, row.does, from, report.at, row.to));
    report.held.forEach((held) => extend(held.id, "held", from, report.at));
    report.waiting.first.forEach((id) => extend(id, "queued", from, report.at));
    note(report);
  }
  report.rows.filter((row) => row.guessed > 0).forEach((row) => guessed(row.id, row, from));
  report.paused.forEach((id) => {
    guessed(id, { guessed: 0, right: 0 }, from).pauses += 1;
    lane(id, from).paused.push(from);
  });
  report.preempted.forEach((id) => lane(id, from).preempted.push(from));
  report.ended.forEach(end);
  prune(report.at - WINDOW - 1000);
}

/** What became of a guess of a request. */
function guessed(id, { guessed, right }, at) {
  const found = live.guessers.find((other) => other.id === id) ?? { id, guessed: 0, right: 0, pauses: 0 };
  Object.assign(found, { guessed: found.guessed + guessed, right: found.right + right, at });
  live.guessers = [found, ...live.guessers.filter((other) => other !== found)].slice(0, GUESSERS);
  lane(id, at).guesses = found;
  return found;
}

function lane(id, at) {
  let found = live.lanes.get(id);
  if (!found) {
    found = { id, slot: null, spans: [], preempted: [], paused: [], guesses: null, begun: null, ended: null, positions: 0 };
    live.lanes.set(id, found);
  }
  if (found.slot === null && found.ended === null) {
    const free = live.slots.findIndex((other) => !other || (other.ended !== null && other.ended <= at + 0.001));
    const slot = free >= 0 ? free : live.slots.length;
    if (slot < LANES) {
      found.slot = slot;
      live.slots[slot] = found;
    }
  }
  return found;
}

function extend(id, state, from, to, positions) {
  const found = lane(id, from);
  const last = found.spans.at(-1);
  if (positions) found.positions = positions;
  if (last && last.state === state && from - last.to < 50) last.to = to;
  else found.spans.push({ state, from: last ? Math.max(from, last.to) : from, to });
}

/** A step for the picture and for the simulator. */
function note({ at, took, rows }) {
  const decode = rows.filter((row) => row.does === "decode");
  const pieces = rows.filter((row) => row.does !== "decode").map((row) => [row.to - row.from, row.from]);
  const prompt = pieces.reduce((sum, [tokens]) => sum + tokens, 0);
  const sum = (part) => decode.reduce((sum, row) => sum + row[part], 0);
  const right = sum("right");
  live.steps.push({ at, took, decode: decode.length, prompt, right, wrong: sum("guessed") - right });
  if (took <= 0) return;
  const context = decode.reduce((sum, row) => sum + row.to, 0);
  live.measured.push({ rows: decode.length, context, pieces, ms: took });
  if (live.measured.length > STEPS) live.measured.splice(0, live.measured.length - STEPS);
}

function end(ended) {
  const found = live.lanes.get(ended.id);
  if (found) found.ended = live.last.at;
  if (ended.why === "left" || ended.ttft === null) return;
  const newest = live.ended.reduce((at, other) => Math.max(at, other.arrived), -Infinity);
  const busy = live.ended.reduce((at, other) => Math.max(at, other.end), -Infinity);
  if (ended.arrived - Math.max(newest, busy) > PAUSE) live.ended.length = 0;
  live.ended.push({ ...ended, end: live.last.at });
  if (live.ended.length > REQUESTS) live.ended.shift();
}

function prune(before) {
  while (live.steps[0]?.at < before) live.steps.shift();
  for (const [id, found] of live.lanes) {
    if (found.ended !== null && found.ended < before) live.lanes.delete(id);
    while (found.spans.length > 1 && found.spans[0].to < before) found.spans.shift();
  }
}
