"""What the openai package for Python makes of a server: python openai_python.py http://127.0.0.1:8080"""

import sys

import openai

URL = sys.argv[1].rstrip("/")
SAID = [{"role": "user", "content": "Tell me a story."}]


def refused(kind, **fields):
    try:
        client.chat.completions.create(**{"model": model, "messages": SAID, "max_tokens": 1, **fields})
    except kind as error:
        assert error.type and error.message, error
        return error
    raise AssertionError(f"{fields} was answered")


client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
assert client.models.retrieve(model).id == model

ask = {"model": model, "messages": SAID, "max_tokens": 12, "temperature": 0}
whole = client.chat.completions.create(**ask)
content = whole.choices[0].message.content
assert content and whole.choices[0].finish_reason == "length"
assert whole.usage.completion_tokens == 12 and whole.usage.prompt_tokens_details.cached_tokens >= 0

chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == content
assert chunks[0].choices[0].delta.role == "assistant"
assert [c.usage is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]

with client.chat.completions.stream(**ask) as stream:
    deltas = [event.delta for event in stream if event.type == "content.delta"]
assert "".join(deltas) == content

both = client.completions.create(model=model, prompt=["Once upon", "The cat"], max_tokens=5, n=2)
assert [choice.index for choice in both.choices] == [0, 1, 2, 3]

# A client that leaves in the middle must not harm the next one.
for _ in range(5):
    stream = client.chat.completions.create(**{**ask, "max_tokens": 500}, stream=True)
    next(iter(stream))
    stream.close()
assert client.chat.completions.create(**ask).choices[0].message.content == content

assert refused(openai.BadRequestError, temperature=-1).param == "temperature"
assert refused(openai.BadRequestError, messages=[]).param == "messages"
assert refused(openai.NotFoundError, model="no-such-model").code == "model_not_found"
refused(openai.BadRequestError, response_format={"type": "sound"})
try:
    client.responses.create(model=model, input="hi")
    raise AssertionError("responses are answered")
except openai.NotFoundError as error:
    assert "/v1/chat/completions" in error.message

print(f"openai {openai.__version__}: all as it should be")
