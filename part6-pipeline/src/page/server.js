import { find } from "./dom.js";

const KEY = "pipeline.key";

/** What the server said instead of an answer, or why it said nothing. */
export class Fault extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }

  /** Whether nobody is there. */
  get isGone() {
    return this.status === 0;
  }
}

export const key = {
  get: () => localStorage.getItem(KEY) ?? "",
  set: (value) => {
    declined = false;
    if (value) localStorage.setItem(KEY, value);
    else localStorage.removeItem(KEY);
  },
  isNeeded: () => document.documentElement.dataset.key === "needed",
};

/** One dialog, however many requests wait for it. */
let asking = null;

/** Who closes it without a key is not asked again, so that old chats can be read. */
let declined = false;

function askForKey(why) {
  if (declined) throw new Fault("This server lets in only those who know its key: it is among the settings.", 401);
  asking ??= new Promise((done) => {
    const dialog = find("#key");
    const input = find("input", dialog);
    find(".why", dialog).textContent = why;
    input.value = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      if (input.value.trim()) key.set(input.value.trim());
      else declined = true;
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

/**
 * Asks the server; with a body it is a POST. The response is a good one.
 * A key that is missing or wrong is asked for, and then it is tried again.
 */
export async function ask(path, { body, signal } = {}) {
  if (key.isNeeded() && !key.get()) await askForKey("This server lets in only those who know its key.");
  const headers = { ...(body && { "content-type": "application/json" }), ...(key.get() && { authorization: `Bearer ${key.get()}` }) };
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  if (response.status === 401) {
    await askForKey("The server does not know this key.");
    return ask(path, { body, signal });
  }
  throw new Fault(said.error?.message ?? `The server answered with status ${response.status}.`, response.status);
}

export const json = async (path, options) => (await ask(path, options)).json();

/** The events of a stream: their name and their data. A connection that breaks is a fault. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n");
        const of = (field) => lines.filter((line) => line.startsWith(`${field}: `)).map((line) => line.slice(field.length + 2));
        if (of("data").length > 0) yield { name: of("event")[0] ?? "message", data: of("data").join("\n") };
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The connection broke before the answer was complete.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * The chunks of an answer. A fault in the stream, or an end without `[DONE]`, is an error here.
 */
export async function* chunks(path, body, signal) {
  const response = await ask(path, { body, signal });
  for await (const { data } of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Fault(chunk.error.message, 500);
    yield chunk;
  }
  throw new Fault("The answer ended before it was complete.");
}
