/** One message of a conversation on the page. */
import { count, el, time, write } from "./dom.js";
import { copyText, show } from "./markdown.js";

const STATES = {
  streaming: "",
  done: "",
  stopped: "Stopped.",
  interrupted: "Not complete: its window was closed or loaded again.",
  length: "The most tokens that it may have.",
};

/** `act.edit(text)` says something else instead, `act.again()` wants another answer. */
export class Message {
  constructor(message, act) {
    this.message = message;
    this.act = act;
    this.body = el("div.body");
    this.note = el("p.note");
    this.buttons = el("div.tools");
    this.element = el(`li.message.${message.role}`, {}, el("span.hidden", {}, message.role === "user" ? "You: " : "Answer: "), this.body, this.note, this.buttons);
    this.fillButtons();
    this.update();
  }

  fillButtons() {
    const { role } = this.message;
    const copy = el("button", { type: "button", onclick: () => copyText(copy, this.message.text) }, "Copy");
    const other = role === "user"
      ? el("button.edit", { type: "button", onclick: () => this.edit() }, "Edit")
      : el("button.again", { type: "button", onclick: () => this.act.again() }, "Regenerate");
    this.buttons.append(other, copy);
  }

  /** Shows what has changed. */
  update() {
    const { role, text, state, error } = this.message;
    if (role === "user") write(this.body, text);
    else show(this.body, text);
    this.element.classList.toggle("waits", state === "streaming");
    this.element.classList.toggle("empty", !text);
    this.element.classList.toggle("failed", Boolean(error));
    write(this.note, error ?? this.said());
    this.note.toggleAttribute("role", Boolean(error));
    if (error) this.note.setAttribute("role", "alert");
    this.buttons.hidden = state === "streaming";
  }

  said() {
    const { state, stats, reason } = this.message;
    const parts = [STATES[reason === "length" && state === "done" ? "length" : state] ?? ""];
    if (stats) {
      parts.push(`${count(stats.tokens)} tokens`, `first after ${time(stats.ttft)}`);
      if (stats.speed) parts.push(`${count(stats.speed)} tokens/s`);
      if (stats.prompt) parts.push(`${count(stats.cached)} of ${count(stats.prompt)} prompt tokens cached`);
    }
    return parts.filter(Boolean).join(" · ");
  }

  /** A field with the text in the place of the message. */
  edit() {
    const field = el("textarea", { "aria-label": "Your message", rows: Math.min(12, this.message.text.split("\n").length + 1) });
    field.value = this.message.text;
    const close = () => {
      form.replaceWith(this.body);
      this.buttons.hidden = false;
      this.buttons.firstElementChild.focus();
    };
    const form = el("form.editor", {
      onsubmit: (event) => {
        event.preventDefault();
        if (!field.value.trim()) return;
        close();
        this.act.edit(field.value);
      },
      onkeydown: (event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          close();
        }
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
          event.preventDefault();
          form.requestSubmit();
        }
      },
    }, field, el("div.buttons", {}, el("button", { type: "button", onclick: close }, "Leave it"), el("button.main", { type: "submit" }, "Ask again")));
    this.body.replaceWith(form);
    this.buttons.hidden = true;
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}
