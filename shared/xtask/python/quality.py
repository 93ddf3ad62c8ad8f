"""Perplexity by mlx-lm, divergence by NumPy, and quantized KV caches, all for the embedded model in f32."""

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, QuantizedKVCache
from mlx_lm.perplexity import eval_ppl
from mlx_lm.utils import load_model, load_tokenizer, quantize_model

import oracle
import real

SIZE, COUNT = 48, 6
PACKINGS = ((8, 64), (4, 64), (4, 32), (3, 64))
CACHES = ((8, 8), (8, 4), (4, 8), (4, 4))
TOKENS = 24


def matrix(root, tokenizer):
    """The first windows of both texts: the model knows one of them and is lost in the other."""
    rows = []
    for name in ("answers", "alice"):
        text = (root / f"assets/texts/{name}.txt").read_text(encoding="utf-8")[:4000]
        ids = tokenizer.encode(text, add_special_tokens=False)[: SIZE * COUNT // 2]
        rows += [ids[at : at + SIZE] for at in range(0, len(ids), SIZE)]
    return rows


def log_softmax(logits):
    logits = np.array(logits.astype(mx.float32)).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def logprobs(model, rows):
    return [log_softmax(model(mx.array([row[:-1]]))[0]) for row in rows]


def compared(said, base, rows):
    """Per window: what quality.rs says of it, in double precision."""
    found = {"nll": [], "divergence": [], "flips": [], "rms_shift": []}
    for q, p, row in zip(said, base, rows):
        at = (np.arange(len(row) - 1), row[1:])
        found["nll"].append(-q[at].mean())
        found["divergence"].append((np.exp(p) * (p - q)).sum(-1).mean())
        found["flips"].append(float((q.argmax(-1) != p.argmax(-1)).mean()))
        found["rms_shift"].append(np.sqrt(np.square(np.exp(q[at]) - np.exp(p[at])).mean()))
    return {name: [float(f"{v:.9g}") for v in values] for name, values in found.items()}


def divergences(said, base):
    return np.concatenate([(np.exp(p) * (p - q)).sum(-1) for q, p in zip(said, base)])


def f32(folder):
    model, config = load_model(folder)
    model.set_dtype(mx.float32)
    return model, config


def scores(folder, rows):
    model, _ = f32(folder)
    base = logprobs(model, rows)
    yield case("f32", model, base, base, rows)
    for bits, group in PACKINGS:
        model, config = f32(folder)
        quantize_model(model, config, group, bits)
        yield case(f"{bits}-bit g{group}", model, logprobs(model, rows), base, rows)


def case(name, model, said, base, rows):
    perplexity, error = eval_ppl(model, mx.array(rows), batch_size=2)
    spread = np.percentile(divergences(said, base), [50, 90, 99, 99.9])
    return {
        "variant": name,
        "eval_ppl": float(f"{perplexity:.9g}"),
        "eval_ppl_error": float(f"{error:.9g}"),
        "divergence_percentiles": [float(f"{v:.9g}") for v in spread],
        **compared(said, base, rows),
    }


class Unpacked(KVCache):
    """What MLX's quantize leaves of keys and values, for widths that mlx-lm's own cache cannot mix.

    The widths are not called `bits`: by that name mlx-lm knows a cache that is packed.
    """

    def __init__(self, bits):
        super().__init__()
        self.widths = bits

    def update_and_fetch(self, *new):
        def rounded(x, bits):
            return mx.dequantize(*mx.quantize(x, group_size=64, bits=bits), group_size=64, bits=bits)

        return super().update_and_fetch(*(rounded(x, bits) for x, bits in zip(new, self.widths)))


def cache_case(model, ids, keys, values):
    def caches():
        if keys == values:
            return [QuantizedKVCache(64, keys) for _ in model.layers]
        return [Unpacked((keys, values)) for _ in model.layers]

    prompt = caches()
    model(mx.array([ids[:-1]]), cache=prompt)
    logits = model(mx.array([ids[-1:]]), cache=prompt)[0, -1]
    tokens, margins, cache = [], [], caches()
    token_logits = model(mx.array([ids]), cache=cache)[0, -1]
    for _ in range(TOKENS):
        margins.append(oracle.margin(token_logits))
        tokens.append(int(mx.argmax(token_logits)))
        token_logits = model(mx.array([tokens[-1:]]), cache=cache)[0, -1]
    return {
        "keys": keys,
        "values": values,
        "oracle": "QuantizedKVCache" if keys == values else "mx.quantize in a dense cache",
        "top": real.top(logits),
        "greedy": tokens,
        "min_margin": oracle.short(min(margins)),
    }


def make(root, folder, out):
    tokenizer = load_tokenizer(folder)
    rows = matrix(root, tokenizer)
    model, _ = f32(folder)
    ids = real.chat_ids(tokenizer, real.TEXTS[1])
    oracle.write_json(
        out / "tiny/quality.json",
        {"mlx_lm": oracle.MLX_LM, "ids": rows, "cases": list(scores(folder, rows))},
    )
    cases = [cache_case(model, ids, keys, values) for keys, values in CACHES]
    oracle.write_json(out / "tiny/kv_quantized.json", {"mlx_lm": oracle.MLX_LM, "ids": ids, "cases": cases})
