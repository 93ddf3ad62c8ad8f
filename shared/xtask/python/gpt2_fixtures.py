"""A tiny random GPT-2 in the two layouts that its checkpoints have, and what mlx-lm makes of it.

`hub` is laid out like openai-community/gpt2: no prefix, Conv1D weights `[in, out]`, the causal masks
saved as buffers. `converted` is what `mlx_lm.convert` writes: the prefix `model.`, weights `[out, in]`.
Both hold the same numbers, so one expected.json serves both.
"""

import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

import oracle
from checkpoint_files import save_safetensors, write_text_json
from synthetic import GREEDY, check, prompts

CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 168,
    "n_ctx": 168,
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
# Searched for, as those of the other fixtures: no near tie in 64 tokens × 3 prompts, and no dull loop.
SEED = 4


def shapes():
    """Name → shape of every parameter, as the hub stores them."""
    e, v, n = CONFIG["n_embd"], CONFIG["vocab_size"], CONFIG["n_positions"]
    table = {"wte.weight": (v, e), "wpe.weight": (n, e)}
    for layer in range(CONFIG["n_layer"]):
        at = f"h.{layer}"
        for norm in ("ln_1", "ln_2"):
            table |= {f"{at}.{norm}.weight": (e,), f"{at}.{norm}.bias": (e,)}
        for name, inner, outer in (
            ("attn.c_attn", e, 3 * e),
            ("attn.c_proj", e, e),
            ("mlp.c_fc", e, 4 * e),
            ("mlp.c_proj", 4 * e, e),
        ):
            table |= {f"{at}.{name}.weight": (inner, outer), f"{at}.{name}.bias": (outer,)}
    return table | {"ln_f.weight": (e,), "ln_f.bias": (e,)}


def random_weights(seed):
    """Loud enough that attention is sharp, and that positions count as much as tokens."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes().items():
        noise = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("bias"):
            weights[name] = 0.2 * noise
        elif "ln_" in name:
            weights[name] = (2.0 if name.startswith("ln_f") else 1.0) + 0.3 * noise
        elif name.startswith("w"):
            weights[name] = noise
        else:
            weights[name] = 2.0 * noise / np.sqrt(np.float32(shape[0]))
    return {name: mx.array(w.astype(np.float32)) for name, w in weights.items()}


def masks():
    n = CONFIG["n_positions"]
    mask = mx.tril(mx.ones((n, n), dtype=mx.bool_))[None, None]
    return {f"h.{layer}.attn.bias": mask for layer in range(CONFIG["n_layer"])}


def write(folder, seed):
    """Both layouts; returns mlx-lm's model, read from the first of them."""
    shutil.rmtree(folder, ignore_errors=True)
    hub, converted = folder / "hub", folder / "converted"
    for place in (hub, converted):
        place.mkdir(parents=True)
        write_text_json(place / "config.json", CONFIG)
    save_safetensors(hub / "model.safetensors", random_weights(seed) | masks())
    model, _ = load_model(hub)
    save_safetensors(converted / "model.safetensors", dict(tree_flatten(model.parameters())))
    return model


def off_differences(model, ids, logits):
    """How far the last logits move without what sets GPT-2 apart: a test must notice each."""

    def moved():
        off = oracle.logits_of(model, ids)[-1]
        return oracle.short(mx.abs(off - mx.array(logits)).max().item())

    wpe = model.model.wpe.weight
    model.model.wpe.weight = mx.zeros_like(wpe)
    found = {"positions": moved()}
    model.model.wpe.weight = wpe
    tanh = nn.gelu_approx
    nn.gelu_approx = nn.gelu
    found["tanh_gelu"] = moved()
    nn.gelu_approx = tanh
    return found


def expect(model, seed):
    entries = [
        oracle.observe(model, ids, GREEDY, all_positions=i == 0)
        for i, ids in enumerate(prompts(seed))
    ]
    last = entries[-1]
    off = off_differences(model, last["ids"], last["logits_last"])
    return {
        "model": "gpt2",
        "mlx_lm": oracle.MLX_LM,
        "dtype": "float32",
        "note": None,
        "seed": seed,
        "min_margin": min(e["min_margin"] for e in entries),
        "distinct": min(len(set(e["greedy"])) for e in entries),
        "switch_off_logit_difference": off["positions"],
        "erf_gelu_logit_difference": off["tanh_gelu"],
        "prompts": entries,
    }


def make(folder, seed=SEED):
    expected = expect(write(folder, seed), seed)
    check(expected)
    # The tests allow 2e-5 of the largest logit: that has to tell the two GELUs apart.
    largest = max(abs(v) for v in expected["prompts"][-1]["logits_last"])
    if expected["erf_gelu_logit_difference"] < 1e-4 * largest:
        raise SystemExit("gpt2: the exact GELU gives nearly the same, try another seed")
    return expected
