/** One answer of the model, as it comes. */
import { Fault, chunks, json } from "./server.js";
import { WINDOW } from "./store.js";

/** What the page must know of the model. Asked for once, and again when the server has come back: it may be another one. */
export const model = {
  name: "", hasTemplate: true, context: 0, known: false,

  async learn() {
    const [models, tokenizer] = await Promise.all([json("/v1/models"), json("/tokenizer_info")]);
    this.name = models.data[0].id;
    this.context = models.data[0].max_model_len;
    this.hasTemplate = Boolean(tokenizer.chat_template);
    this.known = true;
  },
};

/** What is asked for an answer to a conversation, and where. */
function request(chat, settings) {
  const body = {
    model: model.name,
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: settings.max_tokens,
    temperature: settings.temperature,
    top_p: settings.top_p,
  };
  if (settings.top_k > 0) body.top_k = settings.top_k;
  if (settings.min_p > 0) body.min_p = settings.min_p;
  if (settings.seed !== "") body.seed = Number(settings.seed);
  const stop = settings.stop.split("\n").filter(Boolean).slice(0, 4);
  if (stop.length > 0) body.stop = stop;
  if (model.hasTemplate) return ["/v1/chat/completions", { ...body, messages: messages(chat) }];
  // It was never taught who speaks: it goes on with the text.
  return ["/v1/completions", { ...body, prompt: messages(chat).reduce((text, { role, content }) => (role === "assistant" || !text ? text + content : `${text}\n\n${content}`), "") }];
}

/** As the template wants it: user and assistant in turn, also where an answer has failed. */
function messages(chat) {
  const all = chat.system.trim() ? [{ role: "system", content: chat.system }] : [];
  for (const { role, text } of chat.messages) {
    if (!text) continue;
    const last = all.at(-1);
    if (last?.role === role) last.content += `\n\n${text}`;
    else all.push({ role, content: text });
  }
  return all;
}

/** Fills `message`, the last one of the conversation; `changed` is told of each piece. */
export async function fill(chat, message, settings, signal, changed) {
  const begun = performance.now();
  let first = null;
  try {
    if (!model.known) await model.learn();
    for await (const chunk of chunks(...request(chat, settings), signal)) {
      const choice = chunk.choices[0];
      const text = choice?.delta?.content ?? choice?.text ?? "";
      if (text) {
        first ??= performance.now();
        message.text += text;
      }
      if (choice?.finish_reason) message.reason = choice.finish_reason;
      if (chunk.usage) message.stats = stats(chunk.usage, begun, first);
      message.beat = Date.now();
      changed();
    }
    message.state = "done";
  } catch (error) {
    message.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) message.error = error instanceof Fault ? error.message : `The page failed: ${error.message}`;
    if (error.isGone) model.known = false;
  }
  delete message.beat;
  delete message.window;
  changed();
}

/** A message that is about to be filled. */
export const empty = () => ({ role: "assistant", text: "", state: "streaming", window: WINDOW, beat: Date.now() });

function stats(usage, begun, first) {
  const tokens = usage.completion_tokens;
  const seconds = (performance.now() - first) / 1000;
  return {
    tokens,
    prompt: usage.prompt_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    ttft: first === null ? null : first - begun,
    speed: first !== null && tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
  };
}
