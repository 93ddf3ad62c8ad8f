// What Vercel's AI SDK makes of a server: node ai_node.mjs http://127.0.0.1:8080
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, streamText } from "ai";
import { z } from "zod";

const url = process.argv[2].replace(/\/$/, "");
const provider = createOpenAICompatible({
  name: "ours",
  baseURL: `${url}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const ask = {
  model: provider("tiny"),
  prompt: "Tell me a story.",
  maxOutputTokens: 12,
  temperature: 0,
  maxRetries: 0,
};

const whole = await generateText(ask);
assert.ok(whole.text);
assert.equal(whole.finishReason, "length");
assert.equal(whole.usage.outputTokens, 12);

const streamed = streamText({ ...ask, onError: ({ error }) => { throw error; } });
let text = "";
for await (const delta of streamed.textStream) text += delta;
assert.equal(text, whole.text);
assert.equal(await streamed.finishReason, "length");
assert.equal((await streamed.usage).outputTokens, 12);

const schema = z.object({
  name: z.string().max(12),
  kind: z.enum(["cat", "dog", "bird"]),
  legs: z.number().int().min(0).max(4),
});
for (let seed = 0; seed < 5; seed++) {
  const settings = { ...ask, temperature: 1, seed, maxOutputTokens: 300 };
  const { output } = await generateText({ ...settings, output: Output.object({ schema }) });
  schema.parse(output);
}

const leaving = new AbortController();
const aborted = streamText({ ...ask, maxOutputTokens: 500, abortSignal: leaving.signal, onError: () => {} });
try {
  for await (const _ of aborted.textStream) leaving.abort();
} catch (error) {
  assert.equal(error.name, "AbortError");
}
assert.equal((await generateText(ask)).text, whole.text);

await assert.rejects(generateText({ ...ask, temperature: -1 }), (error) => {
  assert.equal(error.statusCode, 400);
  return true;
});
console.log("ai: all as it should be");
