"""ollama's Python client against a running server: every route that it has a word for.

usage: ollama.py URL MODEL REGISTRY

REGISTRY is the name of a model to pull, in a registry without TLS.
"""
import sys

sys.path.pop(0)  # this file has the package's name
import ollama

url, model, registry = sys.argv[1:]
client = ollama.Client(host=url)
messages = [{"role": "user", "content": "Tell me a story about a cat."}]
options = {"temperature": 0, "num_predict": 16}

chat = client.chat(model=model, messages=messages, options=options, think=False)
assert chat.message.role == "assistant" and chat.message.content and chat.done, chat
assert chat.eval_count <= 16 and chat.total_duration > 0 and chat.prompt_eval_duration > 0 and chat.load_duration > 0, chat

parts = list(client.chat(model=model, messages=messages, options=options, stream=True))
assert "".join(p.message.content for p in parts) == chat.message.content, parts
assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True] and parts[-1].done_reason in ("stop", "length"), parts

parts = list(client.generate(model=model, prompt=messages[0]["content"], options=options, stream=True))
assert "".join(p.response for p in parts) == chat.message.content, parts
assert client.generate(model=model, prompt="", keep_alive=-1).done_reason == "load"
assert len(client.embed(model=model, input=["a cat", "a dog"], dimensions=8).embeddings[1]) == 8
assert client.embeddings(model=model, prompt="a cat").embedding

assert model in [m.model for m in client.list().models]
assert model in [m.model for m in client.ps().models]
assert "FROM" in client.show(model).modelfile
for status, call in {
    404: lambda: client.chat(model="none", messages=messages),
    400: lambda: client.chat(model=model, messages=messages, options={"top_k": "many"}),
}.items():
    try:
        call()
        raise SystemExit(f"want {status}")
    except ollama.ResponseError as e:
        assert e.status_code == status and e.error, e
for part in client.chat(model=model, messages=messages, stream=True):
    break  # and go away

assert [p.status for p in client.pull(registry, insecure=True, stream=True)][-1] == "success"
made = client.create(model="python-cat", from_=registry, system="You are a cat.", parameters={"temperature": 0.1})
assert made.status == "success", made
show = client.show("python-cat")
assert "You are a cat." in show.modelfile and "0.1" in show.parameters and show.details.family, show
assert client.chat(model="python-cat", messages=messages, options=options).message.content
assert client.copy("python-cat", "python-kitten").status == "success"
assert "python-kitten:latest" in [m.model for m in client.list().models]
assert client.delete("python-kitten").status == "success"
assert client.delete("python-cat").status == "success"
assert not [m.model for m in client.list().models if m.model.startswith("python-")]
print("ok")
