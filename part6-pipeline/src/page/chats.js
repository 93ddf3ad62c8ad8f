/** The list of conversations. */
import { el, find } from "./dom.js";
import { forget, isWriting, open, shown } from "./conversation.js";
import * as store from "./store.js";

function draw() {
  const items = store.all().map((chat) => {
    const now = chat.id === shown.chat?.id;
    const name = el("button.name", { type: "button", "aria-current": now && "true", title: chat.title, onclick: () => choose(chat.id) }, chat.title);
    const cross = el("button.remove", { type: "button", "aria-label": `Delete “${chat.title}”`, title: "Delete", onclick: () => remove(chat) }, "×");
    return el(isWriting(chat.id) ? "li.writes" : "li", {}, name, cross);
  });
  find("#chats .list").replaceChildren(...items);
}

function choose(id) {
  open(id);
  toggle(false);
  find("#say").focus();
}

function remove(chat) {
  if (!confirm(`Delete “${chat.title}”?`)) return;
  forget(chat.id);
  if (chat.id === shown.chat.id) open(store.all()[0]?.id);
  draw();
  find("#chats .new").focus();
}

/** On narrow windows the list lies over the page. */
function toggle(isOpen) {
  const menu = find(".menu");
  menu.setAttribute("aria-expanded", isOpen);
  document.body.classList.toggle("menu-open", isOpen);
}

export function chats() {
  shown.listed = draw;
  find("#chats .new").addEventListener("click", () => choose(undefined));
  find(".menu").addEventListener("click", () => toggle(find(".menu").getAttribute("aria-expanded") !== "true"));
  find(".panes").addEventListener("click", (event) => {
    if (!event.target.closest("#chats")) toggle(false);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.body.classList.contains("menu-open")) {
      toggle(false);
      find(".menu").focus();
    }
  });
  open(sessionStorage["pipeline.open"] ?? store.all()[0]?.id);
}
