"""mlx-lm as a part of the series would be: the flags of one, the text as it comes, the JSON line.

`cargo compare --against mlx-lm` starts it. With --prompt-of N it prints a text of N tokens instead.
"""

import argparse
import json
import time
from pathlib import Path

STORY = (
    "A black hole is a place in space where gravity is so strong that nothing can escape. Most black "
    "holes form when a very massive star runs out of fuel. We cannot see one directly, but we can see "
    "how it pulls on the stars and the gas around it. "
)


def flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--revision")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"])
    parser.add_argument("--prompt")
    parser.add_argument("--prompt-file")
    parser.add_argument("--prompt-of", type=int)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--raw", action="store_true")
    # What it does anyway: greedy, past every stop token, with the JSON line.
    parser.add_argument("--temperature", choices=["0"])
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def prompt_ids(tokenizer, args):
    text = args.prompt
    if args.prompt_file:
        text = Path(args.prompt_file).read_text().removesuffix("\n").removesuffix("\r")
    if args.raw or tokenizer.chat_template is None:
        return tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer.encode(text, add_special_tokens=False)


def answer(args):
    started = time.perf_counter()
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.generate import generate_step, generation_stream, wired_limit

    model, tokenizer = mlx_lm.load(args.model, revision=args.revision)
    if args.dtype:
        model.set_dtype({"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}[args.dtype])
    loaded = time.perf_counter()
    prompt = prompt_ids(tokenizer, args)
    detokenizer = tokenizer.detokenizer
    tokens, times = [], []
    handed_over = time.perf_counter()
    with wired_limit(model, [generation_stream]):
        for token, _ in generate_step(mx.array(prompt), model, max_tokens=args.max_tokens):
            times.append(time.perf_counter())
            tokens.append(int(token))
            detokenizer.add_token(tokens[-1])
            print(detokenizer.last_segment, end="", flush=True)
    detokenizer.finalize()
    print(detokenizer.last_segment)

    ttft, decode = times[0] - handed_over, times[-1] - times[0]
    gaps = len(tokens) - 1
    run = {
        "variant": "mlx-lm",
        "prompt_tokens": len(prompt),
        "tokens": tokens,
        "text": detokenizer.text,
        "finish_reason": "length",
        "load_ms": (loaded - started) * 1e3,
        "ttft_ms": ttft * 1e3,
        "tpot_ms": decode / gaps * 1e3 if gaps else None,
        "prefill_tps": len(prompt) / ttft,
        "decode_tps": gaps / decode if gaps else None,
        "peak_bytes": mx.get_peak_memory(),
    }
    versions = {"mlx": mx.__version__, "mlx_lm": mlx_lm.__version__}
    print(json.dumps({"part": "mlx-lm", "model": args.model, "versions": versions, "runs": [run]}))


def prompt_of(count, model):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    ids = tokenizer.encode(STORY * (count // 20 + 1)).ids[:count]
    print(tokenizer.decode(ids), end="")


if __name__ == "__main__":
    args = flags()
    if args.prompt_of:
        prompt_of(args.prompt_of, args.model)
    else:
        answer(args)
