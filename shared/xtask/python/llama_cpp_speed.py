"""part 3 and llama.cpp in turns on the same GGUF file, a fresh process for each answer.

    .mlx/llama.cpp/bin/python llama_cpp_speed.py MODEL PART3 [--prompts 33,512] [--new 128] [--rounds 5] [--threads 2]

Both get the same ids, prompt and answer once without being measured, and take the most likely token each time.
One line of JSON for each length of the prompt: medians with the lowest and the highest, and the ratio of each round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp import Llama

TEXT = Path(__file__).parents[3] / "assets/texts/alice.txt"


def best(llm):
    logits = llama_cpp.llama_get_logits_ith(llm._ctx.ctx, -1)
    return int(np.ctypeslib.as_array(logits, shape=(llm.n_vocab(),)).argmax())


def answer(llm, ids, new):
    llm.reset()
    started = time.perf_counter()
    llm.eval(ids)
    tokens = [best(llm)]
    first = time.perf_counter()
    while len(tokens) < new:
        llm.eval(tokens[-1:])
        tokens.append(best(llm))
    end = time.perf_counter()
    return {"prefill": len(ids) / (first - started), "decode": (new - 1) / (end - first), "tokens": tokens}


def opened(model, threads, flash):
    return Llama(
        model, n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads,
        flash_attn=flash, verbose=False,
    )


def theirs(args, prompt):
    """In a process of its own: the answer that is measured is its second."""
    llm = opened(args.model, args.threads, args.flash)
    ids = llm.tokenize(prompt.read_bytes(), add_bos=False)
    answer(llm, ids, 8)
    print(json.dumps(answer(llm, ids, args.new)))


def ours(args, prompt):
    command = [args.part3, "--model", args.model, "--prompt-file", prompt, "--raw", "--ignore-eos", "--json"]
    command += ["--cache", "prealloc", "--rounds", "2", "--max-tokens", str(args.new)]
    env = os.environ | {"OMP_NUM_THREADS": str(args.threads), "RAYON_NUM_THREADS": str(args.threads)}
    out = subprocess.run(command, env=env, capture_output=True, check=True, text=True).stdout
    run = json.loads(out.splitlines()[-1])["runs"][0]
    assert run["prompt_tokens"] == int(prompt.stem), run["prompt_tokens"]
    return {"prefill": run["prefill_tps"], "decode": run["decode_tps"], "tokens": run["tokens"]}


def child(prompt):
    command = [sys.executable, *sys.argv, "--child", str(prompt)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def cut(llm, count):
    """The beginning of the text that is so many tokens, and is so when it is tokenized alone."""
    text = TEXT.read_text(encoding="utf-8")
    for end in range(count, 8 * count):
        piece = text[:end]
        if len(llm.tokenize(piece.encode(), add_bos=False)) == count:
            return piece
    raise SystemExit(f"no beginning of {TEXT} is {count} tokens")


def spread(numbers):
    return [round(f(numbers), 2) for f in (statistics.median, min, max)]


def compare(args, prompt):
    rounds = []
    for turn in range(args.rounds):
        order = [("part 3", ours), ("llama.cpp", lambda args, prompt: child(prompt))]
        rounds.append({name: run(args, prompt) for name, run in (order if turn % 2 else order[::-1])})
    a, b = ([round[name] for round in rounds] for name in ("part 3", "llama.cpp"))
    report = {"prompt": int(prompt.stem), "new": args.new, "rounds": args.rounds, "flash": args.flash}
    for what in ("decode", "prefill"):
        report[what] = {
            "part 3": spread([x[what] for x in a]),
            "llama.cpp": spread([x[what] for x in b]),
            "ratio": spread([x[what] / y[what] for x, y in zip(a, b)]),
        }
    differ = [next((i for i, (t, u) in enumerate(zip(x["tokens"], y["tokens"])) if t != u), None) for x, y in zip(a, b)]
    print(json.dumps(report | {"first_difference": differ}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("part3")
    parser.add_argument("--prompts", default="33,512")
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash", action="store_true", help="llama.cpp with flash attention")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return theirs(args, args.child)
    print(llama_cpp.llama_print_system_info().decode(), flush=True)
    llm = opened(args.model, args.threads, False)
    with tempfile.TemporaryDirectory() as scratch:
        for count in map(int, args.prompts.split(",")):
            prompt = Path(scratch) / f"{count}.txt"
            prompt.write_text(cut(llm, count), encoding="utf-8")
            compare(args, prompt)


main()
