// What the openai package for Node makes of a server: node openai_node.mjs http://127.0.0.1:8080
import assert from "node:assert/strict";
import OpenAI from "openai";

const url = process.argv[2].replace(/\/$/, "");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const [{ id: model }] = (await client.models.list()).data;
const ask = {
  model,
  messages: [{ role: "user", content: "Tell me a story." }],
  max_tokens: 12,
  temperature: 0,
};

const whole = await client.chat.completions.create(ask);
const content = whole.choices[0].message.content;
assert.ok(content);
assert.equal(whole.choices[0].finish_reason, "length");
assert.equal(whole.usage.completion_tokens, 12);

const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
let text = "";
stream.on("content", (delta) => (text += delta));
const last = await stream.finalChatCompletion();
assert.equal(text, content);
assert.equal(last.choices[0].message.content, content);
assert.equal((await stream.totalUsage()).completion_tokens, 12);

// A client that leaves in the middle must not harm the next one.
for (let number = 0; number < 5; number++) {
  const leaving = await client.chat.completions.create({ ...ask, max_tokens: 500, stream: true });
  for await (const _ of leaving) break;
}
assert.equal((await client.chat.completions.create(ask)).choices[0].message.content, content);

await assert.rejects(client.chat.completions.create({ ...ask, temperature: -1 }), (error) => {
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.equal(error.param, "temperature");
  return true;
});
await assert.rejects(client.chat.completions.create({ ...ask, model: "no-such-model" }), OpenAI.NotFoundError);
console.log("openai for Node: all as it should be");
