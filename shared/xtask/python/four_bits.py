"""The same tiny model as AutoAWQ and as GPTQ write it; mlx-lm loads the first and says what both compute.

mlx-lm takes GPTQ's name for AWQ's layout, which GPTQ's own checkpoints do not have: their words hold
neighbours along the inputs, in plain order, and their zeros are stored less one.
"""

import copy
import shutil

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

import oracle
import synthetic
from checkpoint_files import save_safetensors, write_text_json

GROUP = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # the column of each nibble, lowest first
PLAIN = list(range(8))
SEED = 1
AWQ = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": GROUP,
    "version": "gemm",
    "zero_point": True,
    "modules_to_not_convert": None,
}
GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": GROUP,
    "desc_act": False,
    "sym": False,
    "checkpoint_format": "gptq",
}
CONFIG = {**synthetic.BASE, "hidden_size": 32, "intermediate_size": 64}
NOTE = "4-bit codes of [in, out] in groups of 32, scales in f32 so that nothing is rounded. "
NAMES = {
    "llama-awq": NOTE + "AutoAWQ's GEMM layout.",
    "llama-gptq": NOTE + "GPTQ's own layout with zeros less one and a plain g_idx: the model of llama-awq, whose "
    "logits these are, for mlx-lm cannot load this layout.",
}


def quantized(w):
    """[out, in] → codes [in, out], zeros and scales [groups, out]."""
    groups = w.T.reshape(-1, GROUP, w.shape[0])
    low, high = groups.min(axis=1), groups.max(axis=1)
    scales = ((high - low) / 15).astype(np.float32)
    zeros = np.clip(np.round(-low / scales), 1, 15).astype(np.int64)
    codes = np.clip(np.round(groups / scales[:, None]) + zeros[:, None], 0, 15)
    return codes.reshape(w.shape[1], w.shape[0]).astype(np.int64), zeros, scales


def words(values, order):
    """Eight neighbours of the last axis in each word."""
    eights = values.reshape(*values.shape[:-1], -1, 8)
    packed = sum(eights[..., column] << (4 * at) for at, column in enumerate(order))
    return mx.array(packed.astype(np.uint32).view(np.int32))


def awq(module, codes, zeros, scales):
    return {
        f"{module}.qweight": words(codes, AWQ_ORDER),
        f"{module}.qzeros": words(zeros, AWQ_ORDER),
        f"{module}.scales": mx.array(scales),
    }


def gptq(module, codes, zeros, scales):
    inputs = np.arange(codes.shape[0], dtype=np.int32)
    return {
        f"{module}.qweight": mx.array(np.array(words(codes.T, PLAIN)).T),
        f"{module}.qzeros": words(zeros - 1, PLAIN),
        f"{module}.scales": mx.array(scales),
        f"{module}.g_idx": mx.array(inputs // GROUP),
    }


def write(folder, seed, parts, quantization):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = {}
    for name, w in synthetic.random_weights(CONFIG, seed).items():
        if "proj" in name:
            tensors |= parts(name.removesuffix(".weight"), *quantized(np.array(w)))
        else:
            tensors[name] = w
    save_safetensors(folder / "model.safetensors", tensors)
    write_text_json(folder / "config.json", {**CONFIG, "quantization_config": quantization})


def expect(folder, seed):
    model = load_model(folder)[0]
    entries = [oracle.observe(model, ids, synthetic.GREEDY) for ids in synthetic.prompts(seed)]
    expected = synthetic.expectation("llama-awq", "float32", NAMES["llama-awq"], seed, entries)
    synthetic.check(expected)
    return expected


def make(out, record, seed=SEED):
    write(out / "llama-awq", seed, awq, AWQ)
    write(out / "llama-gptq", seed, gptq, GPTQ)
    expected = expect(out / "llama-awq", seed)
    for name, note in NAMES.items():
        record(out / name, {**copy.deepcopy(expected), "model": name, "note": note})
