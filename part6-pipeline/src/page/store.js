/**
 * Conversations, in the browser's own storage: each under a key of its own, so that two windows that write different
 * ones do not write over each other.
 */
const PREFIX = "pipeline.chat.";
const SETTINGS = "pipeline.settings";

/** This window, also after a reload. */
export const WINDOW = (sessionStorage["pipeline.window"] ??= crypto.getRandomValues(new Uint32Array(2)).join("-"));

/** A window that streams says so with each piece, at most once a second. After so many milliseconds without a word it is gone. */
export const SILENCE = 15_000;

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // something else has written there
  }
}

const isChat = (chat) => typeof chat?.id === "string" && Array.isArray(chat.messages);

/** All conversations, the one that was changed last first. */
export function all() {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  return keys.map(read).filter(isChat).sort((a, b) => b.changed - a.changed);
}

export function get(id) {
  const chat = read(PREFIX + id);
  return isChat(chat) ? chat : null;
}

export function create(system = "") {
  const id = `${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  return { id, title: "New chat", system, messages: [], changed: Date.now() };
}

/** Whether there was room for it. */
export function put(chat) {
  chat.changed = Date.now();
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
    return true;
  } catch {
    return false;
  }
}

export const remove = (id) => localStorage.removeItem(PREFIX + id);

/** Calls `changed` with the id of a conversation that another window has changed. */
export function watch(changed) {
  addEventListener("storage", ({ key }) => {
    if (key === null) changed(null);
    else if (key.startsWith(PREFIX)) changed(key.slice(PREFIX.length));
  });
}

/** Whether another window writes the last answer of a conversation just now. */
export function isWrittenElsewhere(chat) {
  const last = chat.messages.at(-1);
  return last?.state === "streaming" && last.window !== WINDOW && Date.now() - last.beat < SILENCE;
}

/** Answers that nobody writes any more, since their window was closed or loaded again, are marked so. */
export function settle(chat) {
  const last = chat?.messages.at(-1);
  if (last?.state !== "streaming" || isWrittenElsewhere(chat)) return chat;
  last.state = "interrupted";
  put(chat);
  return chat;
}

export const DEFAULTS = { temperature: 0.7, top_p: 1, top_k: 0, min_p: 0, max_tokens: 256, seed: "", stop: "" };

export const settings = () => ({ ...DEFAULTS, ...read(SETTINGS) });

export const keepSettings = (values) => localStorage.setItem(SETTINGS, JSON.stringify(values));
