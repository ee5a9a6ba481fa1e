"""OpenAI's Python quick start against a running server: models, chat, stream, completions, and an error.

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

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    raise AssertionError("an unknown model was answered")
except openai.NotFoundError as e:
    assert e.code == "model_not_found", e.code

print("ok", openai.__version__)
