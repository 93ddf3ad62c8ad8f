"""The decode speed of mlx-lm's own loop, for `cargo xtask decode`.

decode.py prompt MODEL TOKENS         a text of that many tokens
decode.py run MODEL FILE NEW DTYPE    one line of JSON; DTYPE may be empty
"""

import json
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer

STORY = (
    "A black hole is a place in space where gravity is so strong that nothing can escape. Most black "
    "holes form when a very massive star runs out of fuel. We cannot see one directly, but we can see "
    "how it pulls on the stars and the gas around it. "
)


def prompt(model, tokens):
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    ids = tokenizer.encode(STORY * (tokens // 20 + 1)).ids[: int(tokens)]
    return tokenizer.decode(ids)


def run(model, file, new, dtype):
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    ids = tokenizer.encode(Path(file).read_text()).ids
    network, _ = load_model(Path(model))
    if dtype:
        network.set_dtype({"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}[dtype])
    for _ in range(2):  # the first time is the warm-up
        tokens, times = [], []
        for token, _ in generate_step(mx.array(ids), network, max_tokens=new):
            tokens.append(int(token))
            times.append(time.perf_counter())
    speed = (len(tokens) - 1) / (times[-1] - times[0])
    return {"prompt_tokens": len(ids), "tokens": tokens, "decode_tps": speed}


if sys.argv[1] == "prompt":
    print(prompt(sys.argv[2], int(sys.argv[3])), end="")
else:
    print(json.dumps(run(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])))
