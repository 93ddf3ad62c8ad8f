"""Schemas that nobody thought of, and answers that must match them: python schemas_python.py http://127.0.0.1:8080 [40]

Hypothesis draws the schemas, and jsonschema looks at each answer. The server may refuse a schema by name. Answers that are cut off by their length are only counted.
"""

import json
import sys
from collections import Counter
from importlib.metadata import version

import jsonschema
import openai
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

URL = sys.argv[1].rstrip("/")
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 40
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)

NAMES = st.text("abcdefgh", min_size=1, max_size=8)
LEAVES = st.one_of(
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(1, 9)),
    st.sampled_from([r"^[a-f]{2}$", r"^a+b?$", r"^\d{4}-\d{2}$"]).map(lambda p: {"type": "string", "pattern": p}),
    st.builds(lambda a, b: {"type": "integer", "minimum": a, "maximum": b}, st.integers(-9, 0), st.integers(0, 999)),
    st.sampled_from(["number", "boolean", "null"]).map(lambda name: {"type": name}),
    st.lists(NAMES, min_size=1, max_size=3, unique=True).map(lambda names: {"enum": names}),
)


def list_of(schema):
    def build(items, least, more):
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + more}

    return st.builds(build, schema, st.integers(0, 2), st.integers(0, 3))


@st.composite
def object_of(draw, schema):
    fields = draw(st.dictionaries(NAMES, schema, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(fields)), unique=True)) if fields else []
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def choice_of(schema):
    return st.lists(schema, min_size=1, max_size=3).map(lambda all: {"anyOf": all})


SCHEMAS = st.recursive(LEAVES, lambda s: st.one_of(list_of(s), object_of(s), choice_of(s)), max_leaves=8)
counts = Counter()


@settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(SCHEMAS)
def answers_match(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    try:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Describe an animal."}],
            max_tokens=120,
            temperature=1,
            seed=counts.total(),
            response_format={"type": "json_schema", "json_schema": {"name": "any", "schema": schema}},
        )
    except openai.BadRequestError as error:
        assert error.param.startswith("response_format"), error
        counts["refused"] += 1
        return
    choice = answer.choices[0]
    if choice.finish_reason == "length":
        counts["cut off"] += 1
        return
    jsonschema.validate(json.loads(choice.message.content), schema)
    counts["matched"] += 1


answers_match()
assert counts["matched"] > COUNT / 2, counts
print(f"jsonschema {version('jsonschema')}: {dict(counts)}")
