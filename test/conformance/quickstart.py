"""OpenAI's Python quick start against a running server: models, chat, stream, completions, embeddings, and errors.

usage: quickstart.py BASE_URL MODEL
"""
import sys

import openai
from openai import OpenAI

base_url, model = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key="any", max_retries=0)

assert model in [m.id for m in client.models.list()], "the list lacks the model"
assert client.models.retrieve(model).id == model

messages = [{"role": "user", "content": "Tell me a story about a cat."}]
chat = client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0)
answer = chat.choices[0].message.content
assert chat.choices[0].message.role == "assistant" and answer, chat
assert chat.choices[0].finish_reason in ("stop", "length"), chat
assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens, chat.usage

stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
)
pieces, usage = [], None
for chunk in stream:
    pieces += [c.delta.content for c in chunk.choices if c.delta.content]
    usage = chunk.usage or usage
assert "".join(pieces) == answer, (pieces, answer)
assert len(pieces) > 1 and usage.completion_tokens == chat.usage.completion_tokens, (pieces, usage)

text = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, temperature=0)
assert text.choices[0].text and text.usage.completion_tokens == 8, text

texts = ["A cat sat.", "Once upon a time", "A cat sat."]
embeddings = client.embeddings.create(model=model, input=texts)  # as base64, which the client decodes
vectors = [e.embedding for e in embeddings.data]
assert [e.index for e in embeddings.data] == [0, 1, 2] and vectors[0] == vectors[2] != vectors[1], embeddings
assert all(abs(sum(x * x for x in v) - 1) < 1e-5 for v in vectors), vectors
assert embeddings.usage.prompt_tokens == embeddings.usage.total_tokens > 3, embeddings.usage
plain = client.embeddings.create(model=model, input=texts[0], encoding_format="float")
assert all(abs(a - b) < 1e-7 for a, b in zip(plain.data[0].embedding, vectors[0], strict=True)), plain
short = client.embeddings.create(model=model, input=texts[0], dimensions=8)
assert len(short.data[0].embedding) == 8 and abs(sum(x * x for x in short.data[0].embedding) - 1) < 1e-5, short

try:
    client.embeddings.create(model=model, input=["a", ""])
    raise AssertionError("an empty text was embedded")
except openai.BadRequestError as e:
    assert e.param == "input[1]", e.param

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    raise AssertionError("an unknown model was answered")
except openai.NotFoundError as e:
    assert e.code == "model_not_found", e.code

print("ok", openai.__version__)
