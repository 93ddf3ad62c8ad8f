/** Twice the users, half the memory: the requests that were seen, through part 5's simulator on the server. */
import { count, el, find, time, write } from "./dom.js";
import { live, on } from "./live.js";
import { json } from "./server.js";

/** Before so many steps the simulator cannot learn how long they take. */
const ENOUGH = 64;

const NUMBERS = [
  ["tokens/s", (told) => (told.throughput === null ? "–" : count(told.throughput))],
  ["first token, median", (told) => time(told.ttft.median)],
  ["first token, 99 in 100", (told) => time(told.ttft.p99)],
  ["later tokens, median", (told) => time(told.tpot.median)],
  ["later tokens, 99 in 100", (told) => time(told.tpot.p99)],
  ["rows that lost their memory", (told) => (told.preemptions === null ? "–" : count(told.preemptions))],
  ["refused", (told) => count(told.refused)],
];

const signed = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(0)}`;

function trace() {
  const requests = live.ended.filter((ended) => ended.tokens > 0).map((ended) => ({
    at: ended.arrived, prompt_tokens: Math.max(1, ended.prompt_tokens - ended.cached), tokens: ended.tokens, ttft: ended.ttft, tpot: ended.tpot,
  }));
  return { steps: live.measured, requests };
}

/** What can be chosen depends on what the server has, and on what was used. */
function choices(form) {
  const { rows, kv_tokens: memory } = live.limits ?? {};
  if (!rows) return;
  const used = live.mostUsed;
  fill(form.elements.memory, [[`as now: ${count(memory)}`, memory], [`half: ${count(memory / 2)}`, memory / 2], ...(used > 0 && used < memory ? [[`all that was used: ${count(used)}`, used], [`half of that: ${count(used / 2)}`, used / 2], [`a quarter of that: ${count(used / 4)}`, used / 4]] : [])]);
  fill(form.elements.rows, [[`as now: ${rows}`, rows], [`half: ${Math.ceil(rows / 2)}`, rows / 2], [`twice: ${rows * 2}`, rows * 2], ["1", 1]]);
}

function fill(select, options) {
  const labels = options.map(([label]) => label).join("|");
  if (select.dataset.labels === labels) return;
  const chosen = Math.max(0, select.selectedIndex);
  select.dataset.labels = labels;
  select.replaceChildren(...options.map(([label, value]) => el("option", { value: Math.max(1, Math.ceil(value)) }, label)));
  select.selectedIndex = Math.min(chosen, options.length - 1);
}

function refresh(form) {
  const isEnough = live.measured.length >= ENOUGH && live.ended.length > 0;
  find("[type=submit]", form).disabled = !isEnough || form.dataset.busy === "yes";
  if (live.last?.rows.length > 0) return; // a choice must not change under the hand
  choices(form);
  if (isEnough) write(find(".what-if .trace"), `${count(live.ended.length)} requests were seen in this run, and ${count(live.measured.length)} steps to learn from. Tokens that were cached do not run again here either.`);
}

async function simulate(form) {
  const value = (name) => Number(form.elements[name].value);
  const told = await json("/what-if", { body: { ...trace(), users: value("users"), kv_tokens: value("memory"), rows: value("rows") } });
  const runs = [["measured", told.measured], ["simulated", told.simulated], ["what if", told.what_if]];
  const head = el("tr", {}, el("td"), ...runs.map(([name]) => el("th", { scope: "col" }, name)));
  const body = NUMBERS.map(([name, of]) => el("tr", {}, el("th", { scope: "row" }, name), ...runs.map(([, numbers]) => el("td", {}, of(numbers)))));
  const notes = [`Steps that it had not learnt from took ${(100 * told.step_error).toFixed(0)} % more or less than the simulator said (median), all together ${signed(-told.step_bias / (1 + told.step_bias))} %.`];
  if (told.beyond) notes.push(`Some of it is a guess: ${told.beyond}.`);
  return [el("div.wide", { tabindex: "0" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))), el("p.note", {}, notes.join(" "))];
}

export function whatIf() {
  const form = find(".what-if form");
  const told = find(".what-if .told");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.dataset.busy === "yes") return;
    form.dataset.busy = "yes";
    refresh(form);
    try {
      told.replaceChildren(...(await simulate(form)));
    } catch (error) {
      told.replaceChildren(el("p.fault", {}, error.message));
    }
    form.dataset.busy = "";
    refresh(form);
  });
  let changed = true;
  for (const what of ["steps", "state"]) on(what, () => (changed = true));
  setInterval(() => {
    if (changed) refresh(form);
    changed = false;
  }, 500);
}
