"""A tiny model in nvfp4 as compressed-tensors writes it: a float for each matrix beside the scales.

mlx-lm does not load these names for a Llama, so the reference is mlx-lm with the numbers, unpacked here
by the tables of the two float types.
"""

import shutil
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

import oracle
import synthetic
from checkpoint_files import save_safetensors, write_text_json

NAME = "llama-nvfp4-packed"
SEED = 4
GROUP = 16
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
CONFIG = {**synthetic.BASE, "hidden_size": 32}
QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "format": "nvfp4-pack-quantized",
    "ignore": ["lm_head"],
}
NOTE = "nvfp4 with a global scale for each matrix, under the names of compressed-tensors; embedding and head in f32."


def e4m3():
    """The numbers of the bytes 0 to 126, which have no sign."""
    bytes_ = np.arange(127)
    exponent, mantissa = bytes_ >> 3, bytes_ & 7
    normal = (8 + mantissa) * np.exp2(exponent - 10.0)
    return np.where(exponent == 0, mantissa * np.exp2(-9.0), normal).astype(np.float32)


def nearest(values, table):
    return np.abs(values[..., None] - table).argmin(axis=-1)


def packed(w):
    """[out, in] → codes [out, in/2], scales [out, in/16], the global divisor, and the numbers they stand for."""
    divisor = np.float32(448 * 6 / np.abs(w).max())
    groups = w.reshape(w.shape[0], -1, GROUP)
    table = e4m3()
    scales = nearest(np.abs(groups).max(axis=-1) / 6 * divisor, table)
    step = (table[scales] / divisor)[..., None]
    codes = nearest(np.abs(groups) / step, E2M1)
    numbers = np.where(groups < 0, -1, 1) * E2M1[codes] * step
    codes = (codes + 8 * (groups < 0)).reshape(w.shape)
    pairs = codes[:, 0::2] | codes[:, 1::2] << 4
    return pairs.astype(np.uint8), scales.astype(np.uint8), divisor, numbers.reshape(w.shape)


def write(folder, seed):
    """Returns the numbers of all tensors."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors, numbers = {}, {}
    for name, w in synthetic.random_weights(CONFIG, seed).items():
        numbers[name] = w
        if "proj" not in name:
            tensors[name] = w
            continue
        codes, scales, divisor, plain = packed(np.array(w))
        numbers[name] = mx.array(plain.astype(np.float32))
        tensors |= {
            f"{name}_packed": mx.array(codes),
            f"{name}_scale": mx.array(scales),
            f"{name}_global_scale": mx.array([float(divisor)]),
            f"{name.removesuffix('weight')}input_global_scale": mx.array([1.0]),
        }
    save_safetensors(folder / "model.safetensors", tensors)
    write_text_json(folder / "config.json", {**CONFIG, "quantization_config": QUANTIZATION})
    return numbers


def model_of(numbers, folder):
    folder.mkdir()
    save_safetensors(folder / "model.safetensors", numbers)
    write_text_json(folder / "config.json", CONFIG)
    return load_model(folder)[0]


def make(folder, seed=SEED):
    numbers = write(folder, seed)
    with tempfile.TemporaryDirectory() as scratch:
        model = model_of(numbers, Path(scratch) / "model")
        entries = [oracle.observe(model, ids, synthetic.GREEDY) for ids in synthetic.prompts(seed)]
    expected = synthetic.expectation(NAME, "float32", NOTE, seed, entries)
    synthetic.check(expected)
    return expected
