/** The conversation that is shown: say something, stop, say it in another way, ask again. */
import { el, find, onceAFrame } from "./dom.js";
import { empty, fill } from "./answer.js";
import { Message } from "./message.js";
import * as store from "./store.js";

/** Milliseconds between two writes of an answer that grows. */
const KEEP = 1000;

const IDEAS = ["Tell me a story about a dragon and a teapot.", "What is a black hole?", "Why do birds migrate?", "Write a short poem about the sea."];

/** Conversations that this window writes, by id. Another one may be shown meanwhile. */
const writing = new Map();

export const shown = { chat: null, views: [], listed: () => {} };

/** The page is about to go, and its connections break. */
let leaves = false;

const list = () => find("#chat .messages");
const scroll = () => find("#chat .scroll");

/** Shows a conversation; none is a new one, which is kept as soon as something is said in it. */
export function open(id) {
  const chat = writing.get(id)?.chat ?? store.settle(store.get(id)) ?? store.create(shown.chat?.system);
  shown.chat = chat;
  sessionStorage["pipeline.open"] = chat.id;
  draw();
  scroll().scrollTop = scroll().scrollHeight;
}

/** Another window has changed it. */
export function refresh(id) {
  const isShown = id === null || id === shown.chat.id;
  if (isShown && !writing.has(shown.chat.id) && !find(".editor", list())) {
    const end = isAtEnd();
    shown.chat = store.get(shown.chat.id) ?? store.create();
    draw();
    if (end) toEnd();
  }
}

function draw() {
  const { chat } = shown;
  shown.views = chat.messages.map((message, at) => view(message, at));
  list().replaceChildren(...shown.views.map((view) => view.element));
  buttons();
  shown.listed();
}

function view(message, at) {
  return new Message(message, {
    edit: (text) => again(at, text),
    again: () => again(at - 1, shown.chat.messages[at - 1].text),
  });
}

/** What can be pressed now. */
function buttons() {
  const { chat } = shown;
  const here = writing.has(chat.id);
  const elsewhere = store.isWrittenElsewhere(chat);
  find(".composer .send").hidden = here;
  find(".composer .stop").hidden = !here;
  find("#say").placeholder = elsewhere ? "Another window writes here just now" : "Write a message";
  find("#chat .welcome").hidden = chat.messages.length > 0;
  find("#chat").classList.toggle("busy", here);
  list().setAttribute("aria-busy", here);
  // Its window may go without a word: then no other one will replace this chat.
  if (elsewhere) setTimeout(() => shown.chat === chat && open(chat.id), store.SILENCE + 1000);
}

const isAtEnd = () => scroll().scrollHeight - scroll().scrollTop - scroll().clientHeight < 80;
const toEnd = () => (scroll().scrollTop = scroll().scrollHeight);

/** The user says something. */
export function say(text) {
  const { chat } = shown;
  if (!text.trim() || writing.has(chat.id) || store.isWrittenElsewhere(chat)) return false;
  if (chat.messages.length === 0) chat.title = text.trim().replace(/\s+/g, " ").slice(0, 60);
  chat.messages.push({ role: "user", text: text.trim(), state: "done" });
  write(chat);
  return true;
}

/** Another answer to a message, which may say something else now. What came after it is forgotten. */
function again(at, text) {
  const { chat } = shown;
  if (writing.has(chat.id) || store.isWrittenElsewhere(chat) || at < 0) return;
  chat.messages.length = at + 1;
  chat.messages[at] = { role: "user", text: text.trim(), state: "done" };
  if (at === 0) chat.title = text.trim().replace(/\s+/g, " ").slice(0, 60);
  write(chat);
}

/** Lets the model write the next message. */
async function write(chat) {
  const message = empty();
  chat.messages.push(message);
  const controller = new AbortController();
  writing.set(chat.id, { chat, controller });
  keep(chat);
  draw();
  toEnd();
  let kept = Date.now();
  const update = onceAFrame(() => {
    if (shown.chat !== chat) return;
    const end = isAtEnd();
    shown.views.at(-1).update();
    if (end) toEnd();
  });
  await fill(chat, message, store.settings(), controller.signal, () => {
    update();
    if (Date.now() - kept > KEEP && !chat.forgotten) {
      kept = Date.now();
      keep(chat);
    }
  });
  if (leaves && message.state === "failed") {
    message.state = "interrupted";
    delete message.error;
  }
  writing.delete(chat.id);
  if (!chat.forgotten) keep(chat);
  if (shown.chat === chat) {
    const end = isAtEnd();
    shown.views.at(-1).update();
    buttons();
    if (end) toEnd();
  }
  shown.listed();
}

function keep(chat) {
  const notice = find("#chat .notice");
  notice.hidden = store.put(chat);
  notice.textContent = "The browser has no room left for this chat: delete older ones, or it is lost when the window is closed.";
}

export function stop(id = shown.chat.id) {
  writing.get(id)?.controller.abort();
}

/** Nobody wants this conversation any more, also if it is being written. */
export function forget(id) {
  const entry = writing.get(id);
  if (entry) entry.chat.forgotten = true;
  stop(id);
  store.remove(id);
}

export const isWriting = (id) => writing.has(id);

/** The last thing that the user said, to be said in another way. */
function editLast() {
  const at = shown.chat.messages.findLastIndex(({ role }) => role === "user");
  if (at >= 0 && !writing.has(shown.chat.id)) shown.views[at].edit();
}

export function conversation() {
  const field = find("#say");
  const form = find(".composer");
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight * 0.35)}px`;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (say(field.value)) field.value = "";
    grow();
  });
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
    if (event.key === "ArrowUp" && field.value === "") {
      event.preventDefault();
      editLast();
    }
  });
  find(".composer .stop").addEventListener("click", () => {
    stop();
    field.focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !find("dialog[open]")) stop();
  });
  addEventListener("beforeunload", () => (leaves = true));
  addEventListener("pageshow", () => (leaves = false));
  // The last words of an answer are kept when the window goes.
  addEventListener("pagehide", () => writing.forEach(({ chat }) => keep(chat)));
  const ideas = IDEAS.map((idea) => el("button", { type: "button", onclick: () => say(idea) }, idea));
  find("#chat .ideas").append(...ideas);
  store.watch((id) => {
    refresh(id);
    shown.listed();
  });
}
