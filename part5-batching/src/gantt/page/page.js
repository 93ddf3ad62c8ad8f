/** The step that is looked at, and what is drawn of it. */
const state = { step: 0, zoom: 0 };
let drawn;

/** Tokens by their places, the last one included. */
const range = (from, to) => (to - from === 1 ? `${from}` : `${from} to ${to - 1}`);

const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** What is said of a stretch of a request. */
function told(lane, span) {
  const [from, to] = span.tokens;
  const tokens = to > from ? `, tokens ${range(from, to)}` : "";
  return `Request ${lane.id}, ${time(span.from)} to ${time(span.to)}: ${span.why}${tokens}. `
    + `Its prompt has ${lane.prompt_tokens} tokens, its answer ${lane.output_tokens}; it ended by ${lane.end}.`;
}

function point(lane, span) {
  find(".hover").textContent = told(lane, span);
}

function redraw() {
  const holder = find("#chart .scroll");
  drawn = chart(Math.max(320, holder.clientWidth) * 2 ** state.zoom, point);
  holder.replaceChildren(drawn.svg);
  find("output[for=zoom]").value = `${2 ** state.zoom} ×`;
  show(state.step);
}

function show(step) {
  if (!gantt.steps.length) return;
  state.step = Math.min(Math.max(step, 0), gantt.steps.length - 1);
  const now = gantt.steps[state.step];
  find("#step").value = state.step;
  find("#step").setAttribute("aria-valuetext", `step ${state.step + 1}, at ${time(now.from)}`);
  find("output[for=step]").value = `${state.step + 1}, at ${time(now.from)}`;
  find(".number").value = state.step + 1;
  drawn.cursor.setAttribute("x", drawn.x(now.from));
  drawn.cursor.setAttribute("width", Math.max(1, drawn.x(now.to) - drawn.x(now.from)));
  keepInSight(drawn.x(now.from));
  summary(now);
  table(now);
}

/** A picture that is zoomed is scrolled to where the step is. */
function keepInSight(x) {
  const holder = find("#chart .scroll");
  if (x < holder.scrollLeft + LEFT || x > holder.scrollLeft + holder.clientWidth - 20) {
    holder.scrollLeft = x - holder.clientWidth / 2;
  }
}

function summary(now) {
  const tokens = now.ran.reduce((sum, [, from, to]) => sum + to - from, 0);
  const parts = [`${time(now.from)} to ${time(now.to)}: ${count(tokens, "token")} of ${count(now.ran.length, "request")}.`];
  if (now.preempted.length) parts.push(`Gave memory back: ${now.preempted.join(", ")}.`);
  if (now.queue) parts.push(`The first of the queue ${now.queue}.`);
  find(".summary").textContent = parts.join(" ");
}

function table(now) {
  const head = make("tr");
  for (const name of ["request", "tokens", "why"]) head.append(make("th", { scope: "col" }, name));
  const rows = [
    ...now.ran.map(([id, from, to, why]) => [id, range(from, to), why]),
    ...now.held.map(([id, why]) => [id, "", why]),
  ];
  find(".ran").replaceChildren(head, ...rows.map((row) => {
    const line = make("tr");
    for (const cell of row) line.append(make("td", {}, cell));
    return line;
  }));
}

function legend() {
  const entries = Object.entries(STATES).map(([name, text]) => {
    const entry = make("li");
    entry.append(make("i", { class: name }), text);
    return entry;
  });
  const cross = make("li");
  cross.append(make("i", { class: "cross" }, "×"), "gives its memory back");
  find(".legend").replaceChildren(...entries, cross);
}

function listen() {
  find("#step").max = Math.max(gantt.steps.length - 1, 0);
  find("#step").addEventListener("input", (event) => show(Number(event.target.value)));
  find("#zoom").addEventListener("input", (event) => {
    state.zoom = Number(event.target.value);
    redraw();
  });
  find(".back").addEventListener("click", () => show(state.step - 1));
  find(".on").addEventListener("click", () => show(state.step + 1));
  find("#chart").addEventListener("keydown", (event) => {
    const change = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!change) return;
    event.preventDefault();
    show(state.step + change);
  });
  addEventListener("resize", redraw);
}

theme();
legend();
listen();
redraw();
document.documentElement.dataset.ready = "";
