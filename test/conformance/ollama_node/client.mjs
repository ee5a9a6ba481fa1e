// ollama's JavaScript client against a running server: every route that it has a word for.
//
//   node client.mjs URL MODEL REGISTRY
//
// REGISTRY is the name of a model to pull, in a registry without TLS.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const [url, model, registry] = process.argv.slice(2);
const client = new Ollama({ host: url });
const messages = [{ role: "user", content: "Tell me a story about a cat." }];
const options = { temperature: 0, num_predict: 16 };

assert.ok((await client.version()).version);
const chat = await client.chat({ model, messages, options });
assert.equal(chat.message.role, "assistant");
assert.ok(chat.message.content && chat.done && chat.eval_count <= 16 && chat.total_duration > 0 && chat.prompt_eval_duration > 0);

let text = "", last;
for await (const part of await client.chat({ model, messages, options, stream: true, logprobs: true, top_logprobs: 2 })) {
  text += part.message.content;
  last = part;
  assert.ok(part.done || part.logprobs[0].top_logprobs.length === 2);
}
assert.equal(text, chat.message.content);
assert.ok(last.done && ["stop", "length"].includes(last.done_reason) && last.eval_count === chat.eval_count);

text = "";
for await (const part of await client.generate({ model, prompt: messages[0].content, options, stream: true })) text += part.response;
assert.equal(text, chat.message.content);
assert.equal((await client.generate({ model, prompt: "", keep_alive: "5m" })).done_reason, "load");
assert.equal((await client.embed({ model, input: ["a cat", "a dog"] })).embeddings.length, 2);
assert.ok((await client.embeddings({ model, prompt: "a cat" })).embedding.length > 0);

assert.ok((await client.list()).models.some((m) => m.name === model));
assert.ok((await client.ps()).models.some((m) => m.name === model));
assert.ok((await client.show({ model })).modelfile.includes("FROM"));
await assert.rejects(client.chat({ model: "none", messages }), (e) => e.status_code === 404 && e.message.includes("not found"));
await assert.rejects(client.chat({ model, messages, format: "json" }), (e) => e.status_code === 400 && e.message.includes("format"));

const stream = await client.chat({ model, messages, stream: true });
await assert.rejects(async () => {
  for await (const _ of stream) stream.abort();
}, { name: "AbortError" });

let status;
for await (const part of await client.pull({ model: registry, insecure: true, stream: true })) status = part.status;
assert.equal(status, "success");
assert.equal((await client.create({ model: "node-cat", from: registry, system: "You are a cat.", parameters: { temperature: 0.1 } })).status, "success");
const show = await client.show({ model: "node-cat" });
assert.equal(show.system, "You are a cat.");
assert.ok(show.parameters.includes("0.1"));
assert.ok((await client.chat({ model: "node-cat", messages, options })).message.content);
await client.copy({ source: "node-cat", destination: "node-kitten" });
assert.ok((await client.list()).models.some((m) => m.name === "node-kitten:latest"));
await client.delete({ model: "node-kitten" });
await client.delete({ model: "node-cat" });
assert.ok(!(await client.list()).models.some((m) => m.name.startsWith("node-")));
console.log("ok");
