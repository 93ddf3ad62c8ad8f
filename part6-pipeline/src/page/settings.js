/** How answers are drawn, and who they come from. */
import { find } from "./dom.js";
import { shown } from "./conversation.js";
import { key } from "./server.js";
import * as store from "./store.js";

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens"];

function fill(form, values) {
  for (const name of [...NUMBERS, "seed", "stop"]) form.elements[name].value = values[name];
}

export function settings() {
  const dialog = find("#settings");
  const form = find("form", dialog);
  find(".open-settings").addEventListener("click", () => {
    fill(form, store.settings());
    form.elements.system.value = shown.chat.system;
    form.elements.key.value = key.get();
    find(".key", form).hidden = !key.isNeeded();
    dialog.showModal();
  });
  find(".defaults", form).addEventListener("click", () => fill(form, store.DEFAULTS));
  form.addEventListener("submit", () => {
    const values = Object.fromEntries(NUMBERS.map((name) => [name, form.elements[name].valueAsNumber]));
    store.keepSettings({ ...values, seed: form.elements.seed.value, stop: form.elements.stop.value });
    shown.chat.system = form.elements.system.value;
    if (shown.chat.messages.length > 0) store.put(shown.chat);
    if (key.isNeeded()) key.set(form.elements.key.value.trim());
  });
}
