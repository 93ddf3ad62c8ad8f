"""Greedy tokens with mlx-lm's RotatingKVCache, before and after it wraps."""

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import RotatingKVCache
from mlx_lm.utils import load_model, load_tokenizer

import oracle
import real

CHECKPOINTS = ("llama", "qwen3")
WINDOWS = ((16, 0), (16, 4), (24, 4), (64, 4))
LENGTHS = (10, 41)
PREFILL_STEPS = (512, 8, 1)
TOKENS = 48


def prompts(vocab):
    rng = np.random.default_rng(21)
    return [rng.integers(0, vocab, n).tolist() for n in LENGTHS]


# The windows of a real model, for a prompt of 46 tokens: one that it fills at once, one that fills
# while it answers.
REAL_WINDOWS = ((32, 0), (32, 4), (64, 4))
REAL_PREFILL_STEPS = (512, 8)


def case(model, ids, size, keep, step):
    caches = [RotatingKVCache(size, keep) for _ in model.layers]
    tokens, margins = [], []
    steps = generate_step(mx.array(ids), model, max_tokens=TOKENS, prompt_cache=caches, prefill_step_size=step)
    for token, logprobs in steps:
        tokens.append(int(token))
        margins.append(oracle.margin(logprobs))
    return tokens, min(margins)


def cases(name, model, ids_list, full, windows=WINDOWS, prefill_steps=PREFILL_STEPS):
    for prompt, ids in enumerate(ids_list):
        for size, keep in windows:
            for step in prefill_steps:
                tokens, margin = case(model, ids, size, keep, step)
                yield {
                    "checkpoint": name,
                    "prompt": prompt,
                    "size": size,
                    "keep": keep,
                    "prefill_step": step,
                    "greedy": tokens,
                    "min_margin": oracle.short(margin),
                    "differs_from_full": tokens != full[prompt],
                }


def make(out):
    found = []
    for name in CHECKPOINTS:
        model, config = load_model(out / name)
        ids_list = prompts(config["vocab_size"])
        full = [oracle.greedy_cached(model, ids, TOKENS)[0] for ids in ids_list]
        found += [c | {"ids": ids_list[c["prompt"]]} for c in cases(name, model, ids_list, full)]
    write(out / "rotating/expected.json", found)


def make_smollm2(folder, out):
    model, _ = load_model(folder)
    ids_list = [real.chat_ids(load_tokenizer(folder), real.TEXTS[1])]
    full = [oracle.greedy_cached(model, ids, TOKENS)[0] for ids in ids_list]
    found = cases("smollm2", model, ids_list, full, REAL_WINDOWS, REAL_PREFILL_STEPS)
    write(out / "rotating/smollm2.json", [c | {"ids": ids_list[c["prompt"]]} for c in found])


def write(path, found):
    wrapped = [c for c in found if c["size"] < len(c["ids"]) + TOKENS]
    if 2 * sum(c["differs_from_full"] for c in wrapped) < len(wrapped):
        raise SystemExit(f"{path.stem}: forgetting changes too little, try another seed")
    if min(c["min_margin"] for c in found) < 1e-4:
        raise SystemExit(f"{path.stem}: two logits are too close, try another seed")
    oracle.write_json(path, {"mlx_lm": oracle.MLX_LM, "cases": found})
