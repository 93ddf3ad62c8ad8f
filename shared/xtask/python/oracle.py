"""What the reference says: mlx-lm's logits and greedy tokens, and how sure it is of them."""

import json
from importlib.metadata import version

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step

MLX_LM = version("mlx-lm")


def floats(array):
    """A list of Python floats whose repr is the shortest text that gives the same f32 back."""
    flat = np.array(array.astype(mx.float32) if isinstance(array, mx.array) else array)
    if flat.ndim > 1:
        return [floats(row) for row in flat]
    return [float(str(np.float32(v))) for v in flat]


def short(value):
    """One f32 for the record (a margin, a difference): four digits are plenty."""
    return float(f"{float(value):.4g}")


def write_json(path, value):
    """Lists of numbers on one line each, so that a diff of two fixtures can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_render(value, "") + "\n", encoding="utf-8")


def _render(value, indent):
    deeper = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{deeper}{json.dumps(k)}: {_render(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        rows = [deeper + _render(v, deeper) for v in value]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text


def margin(scores):
    """Distance between the best and the second best score of a row."""
    row = np.sort(np.array(scores.astype(mx.float32)))
    return float(row[-1] - row[-2])


def greedy_cached(model, ids, count):
    """mlx-lm's own loop, with its KV cache. Returns the tokens and the margin of each choice."""
    tokens, margins = [], []
    for token, logprobs in generate_step(mx.array(ids), model, max_tokens=count):
        tokens.append(int(token))
        margins.append(margin(logprobs))
    return tokens, margins


def greedy_naive(model, ids, count):
    """No cache: the whole sequence again for each token, as part 2 of the series does."""
    tokens, margins = [], []
    for _ in range(count):
        logits = model(mx.array([ids + tokens]))[0, -1]
        tokens.append(int(mx.argmax(logits).item()))
        margins.append(margin(logits))
    return tokens, margins


def first_difference(a, b):
    """Index of the first token that differs within the shorter list, or None."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)


def logits_of(model, ids):
    """Logits of every position, [positions, vocabulary], without a cache."""
    logits = model(mx.array([ids]))[0]
    mx.eval(logits)
    return logits


def observe(model, ids, count=64, all_positions=False):
    """Everything a test compares for one prompt of a small model."""
    logits = logits_of(model, ids)
    greedy, margins = greedy_cached(model, ids, count)
    naive, naive_margins = greedy_naive(model, ids, count)
    entry = {
        "ids": list(ids),
        "logits_last": floats(logits[-1]),
        "greedy": greedy,
        "greedy_naive": naive,
        "first_difference": first_difference(greedy, naive),
        "min_margin": short(min(margins + naive_margins)),
    }
    if all_positions:
        entry["logits_all"] = floats(logits)
    return entry


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))
