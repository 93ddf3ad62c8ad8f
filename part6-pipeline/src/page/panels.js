/** The numbers beside the picture. Five times a second: faster they could not be read. */
import { bytes, count, el, find, percentile, time, write } from "./dom.js";
import { live, on } from "./live.js";

const PERIOD = 200;
/** Tokens of a node of the tree. */
const BLOCK = 16;

let changed = true;

const tile = (name) => {
  const [value, small] = document.querySelectorAll(`.tiles .${name} dd`);
  return (text, more = "") => {
    write(value, text);
    write(small, more);
  };
};

function rows() {
  const limit = live.limits?.rows ?? 0;
  const now = live.last?.rows ?? [];
  write(find(".tiles .rows dd"), limit ? `${now.length} of ${limit}` : "–");
  const squares = find(".squares");
  const shown = Math.min(limit, 64);
  if (squares.children.length !== shown) squares.replaceChildren(...Array.from({ length: shown }, () => el("i")));
  squares.classList.toggle("few", shown <= 16);
  [...squares.children].forEach((square, at) => {
    const state = now[at]?.does ?? "";
    if (square.className !== state) square.className = state;
  });
}

function queue() {
  const waiting = live.last?.waiting;
  tile("queue")(count(waiting?.count ?? 0), waiting?.why?.replace(/^waits: /, "") ?? "nobody waits");
}

function speed() {
  const end = live.last?.at ?? 0;
  const second = live.steps.filter((step) => step.at > end - 1000);
  const sum = (part) => second.reduce((sum, step) => sum + step[part], 0);
  const runs = live.last?.rows.length > 0;
  const middle = percentile(second.map((step) => step.took), 0.5);
  tile("speed")(runs ? count(sum("decode") + sum("right")) : "0", runs ? `and ${count(sum("prompt"))} of prompts; a step takes ${time(middle)}` : "nothing runs");
}

function times() {
  for (const name of ["ttft", "tpot"]) {
    const values = live.ended.map((ended) => ended[name]).filter((value) => value !== null);
    const worst = percentile(values, 0.99);
    tile(name)(time(percentile(values, 0.5)), values.length > 0 ? `99 in 100 within ${time(worst)}; ${count(values.length)} ${values.length === 1 ? "answer" : "answers"}` : "no answer has ended");
  }
}

function memory() {
  const { used, limit } = live.last?.kv ?? { used: 0, limit: live.limits?.kv_tokens ?? 0 };
  tile("kv")(count(used), limit ? `of ${count(limit)}; ${count(live.mostUsed)} at most so far` : "");
  find(".tiles .meter i").style.width = `${limit ? Math.min(100, (100 * used) / limit) : 0}%`;
}

/** Only where guesses are made. */
function guesses() {
  const all = live.last?.guesses;
  const guess = all && all.guessed + all.paused > 0;
  find(".guesses").hidden = !guess;
  document.querySelectorAll(".legend .guess").forEach((item) => (item.hidden = !guess));
  if (!guess) return;
  const share = all.guessed > 0 ? `${((100 * all.right) / all.guessed).toFixed(0)} %` : "none";
  write(find(".guesses .summary"), `${count(all.guessed)} tokens were guessed and ${count(all.right)} of them kept: ${share}. Each one kept saves its request a step. ${pauses(all.paused)}`);
  const rows = live.guessers.slice(0, 8);
  const most = Math.max(1, ...rows.map((row) => row.guessed));
  const list = find(".guessers");
  const key = JSON.stringify(rows);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...rows.map((row) => guesser(row, most)));
}

function pauses(times) {
  if (times === 0) return "No request has stopped guessing.";
  const often = times === 1 ? "Once a request has stopped guessing for a while" : `Requests have stopped guessing for a while, ${count(times)} times in all`;
  return `${often}, since it took longer than it saved.`;
}

function guesser({ id, guessed, right, pauses }, most) {
  const bar = el("span.bar");
  bar.style.width = `${(100 * guessed) / most}%`;
  const part = el("i");
  part.style.width = `${guessed > 0 ? (100 * right) / guessed : 0}%`;
  bar.append(part);
  const paused = pauses > 0 ? ` It stopped guessing for a while${pauses === 1 ? "" : `, ${count(pauses)} times`}.` : "";
  return el("li", {}, el("span.id", {}, id), el("span.track", { "aria-hidden": "true" }, bar), el("span.why", {}, `${count(right)} of ${count(guessed)} guessed tokens were kept.${paused}`));
}

function prefix() {
  const tree = live.last?.prefix;
  if (tree && tree.hits + tree.misses > 0) {
    const share = tree.prompt_tokens > 0 ? (100 * tree.cached_tokens) / tree.prompt_tokens : 0;
    write(find(".prefix .summary"), `${bytes(tree.bytes)} are kept. ${count(tree.hits)} of ${count(tree.hits + tree.misses)} prompts found a beginning, and with it ${share.toFixed(0)} % of all tokens of prompts.`);
  }
  const list = find(".prefix .starts");
  const ids = live.starts.map((start) => start.id).join();
  if (list.dataset.ids === ids) return;
  list.dataset.ids = ids;
  list.replaceChildren(...live.starts.map(start));
}

/** A prompt as a bar: what was there, what had to run, and where it left the known way. */
function start({ id, prompt_tokens: tokens, cached, missed }) {
  const longest = Math.max(...live.starts.map((other) => other.prompt_tokens));
  const bar = el("span.bar");
  bar.style.width = `${(100 * tokens) / longest}%`;
  const part = el("i");
  part.style.width = `${(100 * cached) / tokens}%`;
  bar.append(part);
  if (missed) {
    const mark = el("b");
    mark.style.left = `${(100 * missed.at) / tokens}%`;
    bar.append(mark);
  }
  return el("li", {}, el("span.id", {}, id), el("span.track", { "aria-hidden": "true" }, bar), el("span.why", {}, `${count(cached)} of ${count(tokens)} tokens were there. `, ...reason({ missed, cached, tokens })));
}

function reason({ missed, cached, tokens }) {
  if (!missed && tokens - cached < BLOCK) return [`The rest is no whole block of ${BLOCK}.`];
  if (!missed && tokens - cached === BLOCK) return ["The last token has to run, and with it its block."];
  if (!missed) return [cached > 0 ? "No other prompt goes on from there." : "No prompt had begun like this."];
  const by = missed.by > Number.MAX_SAFE_INTEGER ? "a prompt of an earlier run" : missed.by;
  const piece = (text) => el("code", {}, text.replaceAll(" ", "␣").replaceAll("\n", "↵") || "∅");
  return ["Token ", count(missed.at), " is ", piece(missed.token), ", and was ", piece(missed.other), ` for ${by}.`];
}

export function panels() {
  on("steps", () => (changed = true));
  on("state", () => (changed = true));
  setInterval(() => {
    if (!changed || document.hidden) return;
    changed = false;
    for (const part of [rows, queue, speed, times, memory, guesses, prefix]) part();
  }, PERIOD);
}
