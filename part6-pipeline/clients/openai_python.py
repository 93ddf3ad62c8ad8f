"""What the openai package for Python makes of a server: python openai_python.py http://127.0.0.1:8080"""

import json
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

# Log-probabilities: as objects with bytes in a chat, as lists in a completion, and of the prompt.
told = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2).choices[0]
assert b"".join(bytes(token.bytes) for token in told.logprobs.content).decode() == told.message.content == content
assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in told.logprobs.content)
pieces = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2, stream=True)
tokens = [t for c in pieces for t in (c.choices[0].logprobs.content if c.choices[0].logprobs else [])]
assert tokens == told.logprobs.content
scored = client.completions.create(model=model, prompt="Once upon a time", echo=True, logprobs=1, max_tokens=0)
lists = scored.choices[0].logprobs
assert scored.choices[0].text == "".join(lists.tokens) == "Once upon a time"
assert lists.token_logprobs[0] is None and all(one < 0 for one in lists.token_logprobs[1:])
assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset)

# What an answer is drawn from can be shifted.
forced = client.chat.completions.create(**ask, logit_bias={"40": 100}, logprobs=True).choices[0]
assert len({token.token for token in forced.logprobs.content}) == 1
client.chat.completions.create(**ask, presence_penalty=1, frequency_penalty=1)
assert refused(openai.BadRequestError, presence_penalty=3).param == "presence_penalty"
assert refused(openai.BadRequestError, logit_bias={"40": 101}).param == "logit_bias"

# Tools: the model that is built in has none in its template, and says so.
parameters = {
    "type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["unit"],
    "additionalProperties": False,
}
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters, "strict": True}}]
call = {**ask, "max_tokens": 100, "tools": tools, "tool_choice": "required"}
try:
    answer = client.chat.completions.create(**call).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    made = answer.message.tool_calls[0]
    assert made.function.name == "get_weather" and json.loads(made.function.arguments)["unit"] in ("celsius", "fahrenheit")
    with client.chat.completions.stream(**call) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls" and final.message.tool_calls[0].function.arguments == made.function.arguments
    turns = [*SAID, answer.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": made.id, "content": "21"}]
    client.chat.completions.create(**{**call, "messages": turns, "tool_choice": "auto", "max_tokens": 4})
    print("tools are called")
except openai.BadRequestError as error:
    assert error.param == "tools" and "has no tools" in error.message, error
    print("the chat template has no tools")

print(f"openai {openai.__version__}: all as it should be")
