"""Greedy tokens of real models: the embedded one, and SmolLM2-135M-Instruct in four forms."""

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model, load_tokenizer

import oracle
from gguf_to_hf import convert

GREEDY = 64
TOP = 16
TEXTS = (
    "Explain black holes",
    "Why is the sky blue during the day, and why does it turn red and orange when the sun goes down "
    "in the evening? Please answer in a few short sentences that a child can follow.",
    "🙂 नमस्ते दुनिया, explain 🚀 गुरुत्वाकर्षण!",
)
# What mlx-lm decodes without a cache is a whole sequence for each token. MLX multiplies packed
# weights on the CPU with a plain loop, so those variants get fewer of these tokens.
NAIVE = {"f32": 64, "bf16": 64, "4-bit": 8, "gguf": 8}


def chat_ids(tokenizer, text):
    messages = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def top(logits):
    """[id, logit] of the best, the best first."""
    row = np.array(logits.astype(mx.float32))
    order = np.argsort(-row, kind="stable")[:TOP]
    return [[int(i), float(str(row[i]))] for i in order]


def observe(model, tokenizer, text, naive_count):
    ids = chat_ids(tokenizer, text)
    logits = oracle.logits_of(model, ids)
    greedy, margins = oracle.greedy_cached(model, ids, GREEDY)
    naive, naive_margins = oracle.greedy_naive(model, ids, naive_count)
    stops = [i for i, t in enumerate(greedy) if t in tokenizer.eos_token_ids]
    return {
        "ids": ids,
        "top": top(logits[-1]),
        "greedy": greedy,
        "tokens": [tokenizer.convert_ids_to_tokens(t) for t in greedy],
        "text": tokenizer.decode(greedy[: stops[0]] if stops else greedy),
        "stop_at": stops[0] if stops else None,
        "greedy_naive": naive,
        "first_difference": oracle.first_difference(greedy, naive),
        "min_margin": oracle.short(min(margins)),
        "min_margin_naive": oracle.short(min(naive_margins)),
        "margins": [float(f"{m:.3g}") for m in margins],
    }


def variant(name, model, tokenizer, note, say):
    prompts = []
    for text in TEXTS:
        entry = observe(model, tokenizer, text, NAIVE[name])
        say(f"  {name:6} margin {entry['min_margin']}, differs at {entry['first_difference']}")
        prompts.append(entry)
    dtype = str(model(mx.array([[1]])).dtype).removeprefix("mlx.core.")
    margin = min(p["min_margin"] for p in prompts)
    return {"variant": name, "logits_dtype": dtype, "note": note, "min_margin": margin, "prompts": prompts}


def expected(model, variants):
    return {
        "model": model,
        "mlx_lm": oracle.MLX_LM,
        "note": "64 greedy tokens, not ended by a stop token: stop_at is the index of the first one, "
        "and text is what comes before it. greedy is mlx-lm's loop with its cache; "
        "greedy_naive runs the whole sequence again for each token.",
        "texts": list(TEXTS),
        "variants": variants,
    }


def make_tiny(folder, out, say):
    model, config = load_model(folder)
    tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    bf16 = variant("bf16", model, tokenizer, "as stored", say)
    model.set_dtype(mx.float32)
    f32 = variant("f32", model, tokenizer, "the bf16 weights cast to f32", say)
    oracle.write_json(out / "tiny/expected.json", expected("tiny", [bf16, f32]))


SMOLLM2 = {
    "f32": ({"dtype": "f32"}, "every tensor dequantized by gguf-py in f32"),
    "bf16": ({"dtype": "bf16"}, "every tensor dequantized in f32, then cast to bf16"),
    "4-bit": (
        {"dtype": "f32", "bits": 4, "group": 64},
        "quantized by mlx-lm from the f32 variant, 4 bits in groups of 64: scales, norms and "
        "activations in f32 (in bf16 MLX's CPU needs a second for each position)",
    ),
    "gguf": (
        {"dtype": "as-read"},
        "the packed tensors as MLX reads them from the GGUF file, groups of 32, scales in f16. The embedding is "
        "looked up in f16; the norms are f32 in the file, so everything after the first norm is f32",
    ),
}


def smollm2_folder(cache, name):
    return cache / f"smollm2-{name}"


def make_smollm2(gguf, cache, out, say, names=None):
    """Each variant is written as soon as it is there; earlier ones of the same file are kept."""
    path = out / "smollm2/expected.json"
    for name, (how, note) in SMOLLM2.items():
        if names and name not in names:
            continue
        folder = smollm2_folder(cache, name)
        convert(gguf, folder, **how)
        model, config = load_model(folder)
        tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
        result = variant(name, model, tokenizer, note, say)
        merge(path, result)


def merge(path, result):
    old = oracle.read_json(path)["variants"] if path.exists() else []
    kept = {v["variant"]: v for v in old} | {result["variant"]: result}
    ordered = [kept[name] for name in SMOLLM2 if name in kept]
    oracle.write_json(path, expected("SmolLM2-135M-Instruct", ordered))
