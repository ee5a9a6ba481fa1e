// OpenAI's Node quick start against a running server: models, chat, stream, and an error. It is read from standard input, so that the
// package is found in the folder where it was installed:
//   node --input-type=module - BASE_URL MODEL < quickstart.mjs
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 });

const models = await client.models.list();
assert(models.data.some((m) => m.id === model), 'the list lacks the model');

const ask = { model, messages: [{ role: 'user', content: 'Tell me a story about a cat.' }], max_tokens: 24, temperature: 0 };
const chat = await client.chat.completions.create(ask);
const [choice] = chat.choices;
assert(choice.message.role === 'assistant' && choice.message.content, JSON.stringify(chat));
assert(['stop', 'length'].includes(choice.finish_reason), choice.finish_reason);
assert.equal(chat.usage.total_tokens, chat.usage.prompt_tokens + chat.usage.completion_tokens);

const pieces = [];
const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
stream.on('content', (delta) => pieces.push(delta));
const final = await stream.finalChatCompletion();
assert.equal(final.choices[0].message.content, choice.message.content);
assert.equal(pieces.join(''), choice.message.content);
assert(pieces.length > 1, 'the stream came in one piece');
assert.equal(final.usage.completion_tokens, chat.usage.completion_tokens);

await assert.rejects(client.chat.completions.create({ ...ask, model: 'no-such-model' }), (err) => {
  assert(err instanceof OpenAI.NotFoundError, String(err));
  assert.equal(err.code, 'model_not_found');
  return true;
});

console.log('ok');
