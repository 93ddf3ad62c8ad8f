"""What LiteLLM makes of a server: python litellm_python.py http://127.0.0.1:8080"""

import sys
from importlib.metadata import version

import litellm

URL = sys.argv[1].rstrip("/")
ask = {
    "model": "openai/tiny",
    "api_base": f"{URL}/v1",
    "api_key": "none",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_tokens": 12,
    "temperature": 0,
    "num_retries": 0,
}
whole = litellm.completion(**ask)
content = whole.choices[0].message.content
assert content and whole.choices[0].finish_reason == "length"
assert whole.usage.completion_tokens == 12

chunks = list(litellm.completion(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == content
assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
assert litellm.stream_chunk_builder(chunks).usage.completion_tokens == 12

text = litellm.text_completion(
    model="text-completion-openai/tiny", api_base=f"{URL}/v1", api_key="none", prompt="Once upon", max_tokens=5
)
assert text.choices[0].text and text.usage.completion_tokens == 5

for kind, fields in [
    (litellm.BadRequestError, {"temperature": -1}),
    (litellm.ContextWindowExceededError, {"messages": [{"role": "user", "content": "a " * 5000}]}),
    (litellm.NotFoundError, {"model": "openai/no-such-model"}),
]:
    try:
        litellm.completion(**{**ask, **fields})
        raise AssertionError(f"{fields} was answered")
    except kind as error:
        assert str(error)

print(f"litellm {version('litellm')}: all as it should be")
