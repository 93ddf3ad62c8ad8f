"""Asks Python's jsonschema whether answers meet their schemas.

    python -m venv /tmp/judge
    /tmp/judge/bin/pip install jsonschema==4.26.0 rfc3339-validator==0.1.4 fqdn==1.5.1 rfc3987-syntax==1.1.0 isoduration==20.11.0
    ANSWERS=/tmp/answers.jsonl DRAWS=30 cargo test -p part6-pipeline --test constraint meets_every_schema
    /tmp/judge/bin/python part6-pipeline/tests/validate.py /tmp/answers.jsonl
"""

import collections
import json
import sys

from jsonschema.validators import Draft202012Validator, validator_for


def main(path):
    counts, invalid = collections.Counter(), 0
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            answer = json.loads(line)
            schema = answer["schema"]
            kind = validator_for(schema, default=Draft202012Validator)
            kind.check_schema(schema)
            judge = kind(schema, format_checker=kind.FORMAT_CHECKER)
            counts[answer["name"]] += 1
            try:
                errors = [error.message for error in judge.iter_errors(json.loads(answer["text"]))]
            except ValueError as error:
                errors = [f"no JSON: {error}"]
            if errors:
                invalid += 1
                print(f"{answer['name']}: {answer['text']!r}: {errors[0]}")
    print(f"{sum(counts.values())} answers to {len(counts)} schemas, {invalid} invalid")
    return 1 if invalid or not counts else 0


sys.exit(main(sys.argv[1]))
