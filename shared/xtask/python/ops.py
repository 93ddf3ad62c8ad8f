"""Single steps of the reference: sampling filters, rotary positions, affine quantization."""


import mlx.core as mx
import numpy as np
from mlx_lm.models.rope_utils import initialize_rope
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_repetition_penalty

import oracle
from checkpoint_files import save_safetensors

SEEDS = (0, 1, 2, 7, 42, 1234)
FILTERS = {
    "top_k": (apply_top_k, (1, 2, 5, 20)),
    "top_p": (apply_top_p, (0.05, 0.3, 0.5, 0.9, 0.99)),
    "min_p": (apply_min_p, (0.02, 0.05, 0.2, 0.9, 1.0)),
}
CHAINS = (
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0},
    {"temperature": 0.7, "top_p": 1.0, "min_p": 0.0, "top_k": 0},
    {"temperature": 0.8, "top_p": 0.9, "min_p": 0.0, "top_k": 0},
    {"temperature": 1.3, "top_p": 1.0, "min_p": 0.05, "top_k": 0},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 5},
    {"temperature": 1.5, "top_p": 0.95, "min_p": 0.02, "top_k": 8},
    {"temperature": 0.2, "top_p": 0.5, "min_p": 0.3, "top_k": 3},
)
PENALTIES = (
    {"penalty": 1.3, "context_size": 20, "tokens": [1, 5, 5, 9, 30]},
    {"penalty": 1.1, "context_size": 3, "tokens": [1, 5, 5, 9, 30, 2]},
    {"penalty": 0.8, "context_size": 20, "tokens": list(range(25))},
    {"penalty": 1.3, "context_size": 20, "tokens": []},
)


def sampling():
    rng = np.random.default_rng(11)
    sizes, scales = (32, 48, 200, 64), (2.0, 4.0, 3.0, 0.5)
    logits = [rng.standard_normal(n, dtype=np.float32) * np.float32(s) for n, s in zip(sizes, scales)]
    return {
        "mlx_lm": oracle.MLX_LM,
        "note": "Filters see log-probabilities: logits - logsumexp(logits), computed in f32. kept: ids that "
        "are not -inf afterwards. A chain is top_p, min_p, top_k (1.0, 0.0 and 0 mean off), then the "
        "temperature; filtered is before the temperature, null is -inf. A draw is "
        "categorical(filtered * (1 / temperature), key=key(seed)). Penalties see logits.",
        "logits": [oracle.floats(row) for row in logits],
        "filters": [case for i, row in enumerate(logits) for case in filters(i, row)],
        "chains": [chain(i, row, c) for i, row in enumerate(logits) for c in CHAINS],
        "penalties": [penalty(i, row, c) for i, row in enumerate(logits) for c in PENALTIES],
    }


def logprobs(row):
    row = mx.array(row)[None]
    return row - mx.logsumexp(row, keepdims=True)


def filters(i, row):
    for name, (apply, values) in FILTERS.items():
        for value in values:
            left = np.array(apply(logprobs(row), value))[0]
            kept = np.flatnonzero(np.isfinite(left)).tolist()
            yield {"logits": i, "filter": name, "value": value, "kept": kept}


def chain(i, row, c):
    x = logprobs(row)
    if c["top_p"] < 1.0:
        x = apply_top_p(x, c["top_p"])
    if c["min_p"] > 0.0:
        x = apply_min_p(x, c["min_p"])
    if c["top_k"] > 0:
        x = apply_top_k(x, c["top_k"])
    scaled = x * (1.0 / c["temperature"])
    draws = [mx.random.categorical(scaled, key=mx.random.key(s)).item() for s in SEEDS]
    filtered = [v if np.isfinite(v) else None for v in oracle.floats(x[0])]
    return {"logits": i, **c, "filtered": filtered, "seeds": list(SEEDS), "draws": draws}


def penalty(i, row, c):
    process = make_repetition_penalty(c["penalty"], c["context_size"])
    out = process(mx.array(c["tokens"], dtype=mx.int32), mx.array(row)[None])
    return {"logits": i, **c, "output": oracle.floats(out[0])}


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
ROPES = (
    ("default", False, None, 10000.0),
    ("traditional", True, None, 10000.0),
    ("high base", False, None, 1000000.0),
    ("linear", False, {"type": "linear", "factor": 4.0}, 10000.0),
    ("llama3", False, LLAMA3, 500000.0),
    ("yarn", False, YARN, 10000.0),
    ("yarn with mscale", False, {**YARN, "beta_fast": 8.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 1.2}, 10000.0),
)


def ropes(dims=16):
    x = np.random.default_rng(12).standard_normal((1, 2, 3, dims), dtype=np.float32)
    variants = []
    for name, traditional, scaling, base in ROPES:
        rope = initialize_rope(dims, base, traditional, scaling, 512)
        outputs = [
            {"offset": offset, "output": oracle.floats(rope(mx.array(x), offset=offset).flatten())}
            for offset in (0, 7, 5000)
        ]
        variants.append({"name": name, "base": base, "traditional": traditional, "scaling": scaling, "outputs": outputs})
    return {
        "mlx_lm": oracle.MLX_LM,
        "note": "x is [1, 2 heads, 3 positions, dims], row by row; so is each output. "
        "max_position_embeddings is 512.",
        "dims": dims,
        "shape": list(x.shape),
        "x": oracle.floats(x.flatten()),
        "variants": variants,
    }


def quantization():
    """`b4g64.packed` and so on: what mx.quantize gives, and x · wᵀ by mx.quantized_matmul."""
    rng = np.random.default_rng(13)
    w = mx.array(rng.standard_normal((8, 128), dtype=np.float32))
    x = mx.array(rng.standard_normal((3, 128), dtype=np.float32))
    tensors = {"w": w, "x": x}
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            tensors |= quantized(f"b{bits}g{group}", w, x, bits, group)
    half = mx.bfloat16
    return tensors | quantized("bf16.b4g64", w.astype(half), x.astype(half), 4, 64)


def quantized(name, w, x, bits, group):
    packed, scales, biases = mx.quantize(w, group_size=group, bits=bits)
    how = {"group_size": group, "bits": bits}
    product = mx.quantized_matmul(x, packed, scales, biases, transpose=True, **how)
    parts = {"packed": packed, "scales": scales, "biases": biases, "matmul": product}
    return {f"{name}.{part}": value for part, value in parts.items()}


DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def rows(tiny):
    """128 weights each: real ones, and those at which a recipe can go wrong."""
    tensors = mx.load(str(tiny / "model.safetensors"))
    real = tensors["model.layers.0.self_attn.q_proj.weight"][3, :128]
    rng = np.random.default_rng(14)
    normal = rng.standard_normal(128, dtype=np.float32)
    outlier = normal * np.float32(0.01)
    outlier[70] = 3.0
    return {
        "real": np.array(real.astype(mx.float32)),
        "normal": normal,
        "halves": rng.integers(-15, 16, 128).astype(np.float32) / 2,
        "zeros": np.zeros(128, dtype=np.float32),
        "equal": np.full(128, 0.7, dtype=np.float32),
        "negative": -1 - np.abs(normal),
        "positive": 5 + np.abs(normal),
        "outlier": outlier,
        "subnormal": (normal * 1e-40).astype(np.float32),
        "mirrored": np.concatenate([normal[:16], -normal[:16]] * 4),
    }


def groups(rows):
    """Rows of 128 weights as mx.quantize packs them; `unpacked` in f32 from the stored scales."""
    return {
        "mlx_lm": oracle.MLX_LM,
        "note": "values are f32 numbers, rounded to dtype before they are quantized. words: those of the row, "
        "8 hexadecimal digits each. unpacked: mx.dequantize with the scales and biases as f32.",
        "rows": {name: oracle.floats(row) for name, row in rows.items()},
        "cases": [
            packed_row(name, row, dtype, bits, size)
            for name, row in rows.items()
            for dtype in DTYPES
            for bits in (2, 3, 4, 5, 6, 8)
            for size in (32, 64, 128)
            if belongs(name, dtype, bits, size)
        ],
    }


def belongs(name, dtype, bits, size):
    """Every width, group and type of the real row; of the others what is not said twice."""
    return name == "real" or (size == 64 and (dtype == "f32" or bits == 4))


def packed_row(name, row, dtype, bits, size):
    how = {"group_size": size, "bits": bits}
    words, scales, biases = mx.quantize(mx.array(row)[None].astype(DTYPES[dtype]), **how)
    scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    case = {
        "row": name,
        "dtype": dtype,
        **how,
        "words": "".join(f"{word:08x}" for word in np.array(words[0]).tolist()),
        "scales": oracle.floats(scales[0]),
        "biases": oracle.floats(biases[0]),
    }
    if bits == 4 and size == 64 and dtype == "bf16":
        case["unpacked"] = oracle.floats(mx.dequantize(words, scales, biases, **how)[0])
    return case


def make(folder, tiny):
    folder.mkdir(parents=True, exist_ok=True)
    oracle.write_json(folder / "groups.json", groups(rows(tiny)))
    oracle.write_json(folder / "sampling.json", sampling())
    oracle.write_json(folder / "rope.json", ropes())
    save_safetensors(folder / "quantize.safetensors", quantization())
