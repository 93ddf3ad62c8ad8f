/** The page: the chat on one side, the scheduler at work on the other. */
import { find, write } from "./dom.js";
import { model } from "./answer.js";
import { chats } from "./chats.js";
import { conversation } from "./conversation.js";
import { gantt } from "./gantt.js";
import { connect, live, on } from "./live.js";
import { load } from "./load.js";
import { panels } from "./panels.js";
import { settings } from "./settings.js";
import { theme } from "./theme.js";
import { whatIf } from "./what_if.js";

const STATES = {
  connecting: "connecting",
  loading: "the model is being loaded",
  ready: "ready",
  draining: "ends, and takes nothing new",
  stopped: "the server has ended",
  dead: "the engine has failed",
  gone: "the server does not answer; trying again",
  refused: "the server does not show its steps",
};

/** On a narrow window there is room for one of both. */
function views() {
  const buttons = [...document.querySelectorAll(".views button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      document.body.dataset.view = button.dataset.view;
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      dispatchEvent(new Event("resize"));
    });
  }
}

async function state() {
  const element = find(".bar .state");
  element.dataset.state = live.state;
  write(element, STATES[live.state] ?? live.state);
  element.title = live.why ?? "";
  if (live.state !== "ready") return;
  try {
    await model.learn();
  } catch {
    return; // it has gone again, which the next state says
  }
  write(find(".model"), model.name);
  document.title = `${model.name}: chat and scheduler`;
  const how = model.hasTemplate ? "" : " It has no chat template, so it goes on with your text instead of answering it.";
  write(find("#chat .lead"), `${model.name} runs on this machine. Prompt and answer have room for ${model.context.toLocaleString("en-US")} tokens.${how}`);
}

for (const part of [theme, views, settings, conversation, chats, gantt, panels, load, whatIf]) part();
on("state", state);
connect();
find("#say").focus();
document.documentElement.dataset.ready = "";
