"""Affine quantization: hard matrices packed by MLX on the CPU, and by the formula of its GPU kernels."""

import mlx.core as mx
import numpy as np

from checkpoint_files import save_safetensors

COLUMNS = 128
WIDTHS = (2, 3, 4, 5, 6, 8)
# Another group with one width: the formula is the same.
SETTINGS = [(bits, 64) for bits in WIDTHS] + [(4, 32)]
TYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def hard_matrix():
    """A row for each way in which a group can be special."""
    rng = np.random.default_rng(17)
    normal = rng.standard_normal(COLUMNS)
    outlier = 0.01 * rng.standard_normal(COLUMNS)
    outlier[77] = -9.0
    rows = [
        normal,
        np.zeros(COLUMNS),
        np.full(COLUMNS, 0.37),
        np.full(COLUMNS, -1.5),
        -1 - np.abs(normal),  # all negative, far from zero
        1 + np.abs(normal),
        np.arange(COLUMNS) % 31 / 2 - 7.5,  # ties: steps of a half
        rng.integers(-8, 9, COLUMNS) / 4,
        6e-8 * rng.integers(-40, 41, COLUMNS),  # below the normal numbers of f16
        1e-39 * rng.standard_normal(COLUMNS),  # and of f32
        outlier,
        30000 * normal / np.abs(normal).max(),
    ]
    return np.array(rows, dtype=np.float32)


def on_gpu(w, group, bits):
    """What the CUDA and Metal kernels of MLX compute, in f32: halves go away from zero, and the search
    for the largest value begins with 0."""
    f32 = np.float32

    def rounded(x):
        whole = np.trunc(x)
        return (whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0)).astype(f32)

    groups = w.reshape(-1, group)
    top = f32((1 << bits) - 1)
    least, most = groups.min(axis=1), np.maximum(groups.max(axis=1), f32(0))
    scale = np.maximum((most - least) / top, f32(1e-7))
    low = np.abs(least) > np.abs(most)
    scale = np.where(low, scale, -scale)
    edge = np.where(low, least, most)
    steps = rounded(edge / scale)
    at_zero = steps == 0
    scale = np.where(at_zero, scale, edge / np.where(at_zero, f32(1), steps))
    bias = np.where(at_zero, f32(0), edge)
    codes = rounded((groups - bias[:, None]) / scale[:, None])
    codes = np.clip(codes, 0, top).astype(np.uint8).reshape(len(w), -1)
    shape = (len(w), -1)
    return bit_string(codes, bits), scale.reshape(shape), bias.reshape(shape)


def bit_string(codes, bits):
    planes = np.unpackbits(codes[..., None], axis=-1, bitorder="little")[..., :bits]
    packed = np.packbits(planes.reshape(len(codes), -1), axis=-1, bitorder="little")
    return packed.view("<u4")


def make(folder):
    tensors = {}
    for type_name, dtype in TYPES.items():
        w = mx.array(hard_matrix()).astype(dtype)
        tensors[f"{type_name}.w"] = w
        as_f32 = np.array(w.astype(mx.float32))
        for bits, group in SETTINGS:
            name = f"{type_name}.b{bits}g{group}"
            tensors |= triple(f"{name}.cpu", *mx.quantize(w, group_size=group, bits=bits))
            words, scales, biases = map(mx.array, on_gpu(as_f32, group, bits))
            tensors |= triple(f"{name}.gpu", words, scales.astype(dtype), biases.astype(dtype))
    save_safetensors(folder / "affine.safetensors", tensors)


def triple(name, words, scales, biases):
    return {f"{name}.words": words, f"{name}.scales": scales, f"{name}.biases": biases}
