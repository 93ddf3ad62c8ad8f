/**
 * Many chats at once, so that batches form.
 *
 * A browser keeps six connections to a server. So these chats share three: each is one request with many prompts, whose
 * answers come in one stream. For the engine they are as many requests as there are prompts.
 */
import { el, find, onceAFrame, write } from "./dom.js";
import { model } from "./answer.js";
import { chunks, json } from "./server.js";

/** All begin in the same way: the prefix tree has it after the first one. */
const SYSTEM = "You are a friendly assistant who answers children. Use short words and short sentences, be kind, and say so when you do not know something.";
const ABOUT = ["a dragon and a teapot", "the sea at night", "a fox who could not sleep", "why the sky is blue", "a train to the moon", "how bread is made", "a very small giant", "the first snow", "why cats purr", "a lighthouse", "a lost umbrella", "how bees find home", "a clock that ran backwards", "the colour green", "a mouse in a library", "what thunder is"];
const ASK = ["Tell me a story about", "Tell me something about", "What do you know about"];
/** Tokens of the answers of each group, and how much later than the one before it begins. */
const GROUPS = [160, 96, 224];
const STAGGER = 250;

const state = { controller: null, lines: [] };

const question = (at) => `${ASK[at % ASK.length]} ${ABOUT[at % ABOUT.length]}${at < ABOUT.length ? "" : ", once more"}.`;

/** The ids of a prompt: with them a conversation can stand in a list of prompts. */
async function prompt(at, signal) {
  const messages = [{ role: "system", content: SYSTEM }, { role: "user", content: question(at) }];
  const body = model.hasTemplate ? { messages } : { prompt: `${SYSTEM}\n\n${question(at)}` };
  return (await json("/tokenize", { body, signal })).tokens;
}

async function group(prompts, places, max_tokens, delay, signal) {
  await new Promise((done) => setTimeout(done, delay));
  const body = { model: model.name, prompt: prompts, max_tokens, temperature: 0.9, stream: true };
  for await (const { choices } of chunks("/v1/completions", body, signal)) {
    for (const choice of choices) {
      const line = state.lines[places[choice.index]];
      line.text += choice.text;
      if (choice.finish_reason) line.done = true;
    }
    show();
  }
}

/** The last words. */
const tail = (text) => (text.length <= 130 ? text : text.slice(-130).replace(/^\S*/, "…"));

const show = onceAFrame(() => {
  for (const line of state.lines) {
    write(line.said, tail(line.text.replace(/\s+/g, " ")));
    line.element.classList.toggle("done", line.done);
  }
});

function line(at) {
  const said = el("span.text");
  const element = el("li", {}, el("span.asked", {}, question(at)), said);
  return { text: "", done: false, said, element };
}

async function start(n) {
  const { signal } = (state.controller = new AbortController());
  state.lines = Array.from({ length: n }, (_, at) => line(at));
  find(".said").hidden = false;
  find(".said ol").replaceChildren(...state.lines.map(({ element }) => element));
  if (!model.known) await model.learn();
  const prompts = [];
  for (let at = 0; at < n; at++) prompts.push(await prompt(at, signal));
  const all = GROUPS.map((max_tokens, number) => {
    const places = prompts.map((_, at) => at).filter((at) => at % GROUPS.length === number);
    if (places.length === 0) return undefined;
    return group(places.map((at) => prompts[at]), places, max_tokens, number * STAGGER, signal);
  });
  await Promise.all(all);
}

export function load() {
  const form = find(".load");
  const stop = find(".stop", form);
  const busy = (is) => {
    find("[type=submit]", form).disabled = is;
    stop.hidden = !is;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (state.controller) return;
    busy(true);
    try {
      await start(Number(form.elements.n.value));
    } catch (error) {
      if (!state.controller.signal.aborted) {
        state.controller.abort(); // the other groups
        find(".said ol").prepend(el("li.fault", { role: "alert" }, error.message));
      }
    }
    state.controller = null;
    busy(false);
  });
  stop.addEventListener("click", () => {
    state.controller?.abort();
    find("[type=submit]", form).focus();
  });
}
