"""What Pydantic AI makes of a server: python pydantic_ai_python.py http://127.0.0.1:8080"""

import sys
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

URL = sys.argv[1].rstrip("/")
model = OpenAIChatModel("tiny", provider=OpenAIProvider(base_url=f"{URL}/v1", api_key="none"))


class Animal(BaseModel):
    name: str = Field(max_length=20)
    kind: Literal["cat", "dog", "bird"]
    legs: int = Field(ge=0, le=4)
    tags: list[Literal["small", "big", "wild"]] = Field(max_length=3)


agent = Agent(model, output_type=NativeOutput(Animal), retries=0)
for seed in range(8):
    settings = {"max_tokens": 300, "seed": seed, "temperature": 1.0}
    result = agent.run_sync("Describe an animal.", model_settings=settings)
    assert isinstance(result.output, Animal), result
    assert result.usage.output_tokens > 0

plain = Agent(model, retries=0)
with plain.run_stream_sync("Tell me a story.", model_settings={"max_tokens": 12, "temperature": 0}) as stream:
    pieces = list(stream.stream_text(delta=True, debounce_by=None))
whole = plain.run_sync("Tell me a story.", model_settings={"max_tokens": 12, "temperature": 0}).output
assert "".join(pieces) == whole, (pieces, whole)

print(f"pydantic-ai {version('pydantic-ai-slim')}: all as it should be")
