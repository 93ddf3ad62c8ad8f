"""A tiny GGUF file in types that gguf can only unpack: random blocks whose numbers are as loud as weights.

MLX's reader takes few of them, so the reference is mlx-lm with the numbers that gguf makes of the file.
Types that MLX has no matrices of are rounded to 16 bits first, as they are when they are loaded.
"""

import shutil
import tempfile
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Q
from mlx_lm.utils import load_model
from tokenizers import pre_tokenizers

import gguf_fixtures
import gguf_to_hf
import oracle
import synthetic
from checkpoint_files import save_safetensors, write_text_json

SPEC = {
    "name": "gguf-k",
    "file": "model.gguf",
    "seed": 39,
    "arch": "llama",
    "note": "K-quants and their relatives. Logits are those of the numbers that gguf makes of the file, in f32; "
    "those of Q2_K, Q3_K, Q6_K, IQ4_NL and IQ4_XS are rounded to f16 first.",
    "config": {
        "hidden_size": 256,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "tie_word_embeddings": True,
    },
    "types": {
        "token_embd": Q.Q4_K,
        "0.attn_q": Q.Q4_K,
        "0.attn_k": Q.Q5_K,
        "0.attn_v": Q.Q6_K,
        "0.attn_output": Q.Q5_0,
        "0.ffn_gate": Q.Q3_K,
        "0.ffn_up": Q.Q4_K,
        "0.ffn_down": Q.IQ4_NL,
        "1.attn_q": Q.Q6_K,
        "1.attn_k": Q.IQ4_XS,
        "1.attn_v": Q.Q2_K,
        "1.attn_output": Q.IQ4_NL,
        "1.ffn_gate": Q.Q5_K,
        "1.ffn_up": Q.Q5_K,
        "1.ffn_down": Q.Q5_1,
    },
}
UNPACKED = {Q.Q2_K, Q.Q3_K, Q.Q6_K, Q.IQ4_NL, Q.IQ4_XS}


def halves(values):
    return values.astype(np.float16).view(np.uint8).reshape(-1, 2)


def six_bit_pairs(scales, minima):
    """The inverse of gguf's get_scale_min: [n, 8] twice → [n, 12]."""
    low = [scales[:, :4] & 63 | (scales[:, 4:] >> 4) << 6, minima[:, :4] & 63 | (minima[:, 4:] >> 4) << 6]
    return np.concatenate([*low, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4], axis=1)


def blocks(kind, count, loudness, rng):
    """`count` blocks with random codes, whose numbers have about the deviation `loudness` and the mean 0."""
    spread = loudness * np.exp2(rng.uniform(-0.5, 0.5, count))
    of = lambda low, high, n: rng.integers(low, high, (count, n), dtype=np.uint8)
    codes = lambda n: of(0, 256, n)
    if kind in (Q.Q4_K, Q.Q5_K):
        steps = 16 if kind == Q.Q4_K else 32
        scales = of(32, 64, 8)
        d = spread / (48 * steps / np.sqrt(12))
        head = [halves(d), halves(d * (steps - 1) / 2), six_bit_pairs(scales, scales)]
        return np.concatenate(head + [codes(128 if kind == Q.Q4_K else 160)], axis=1)
    if kind == Q.Q6_K:
        return np.concatenate([codes(192), of(64, 128, 16), halves(spread / (96 * 18.5))], axis=1)
    if kind == Q.Q3_K:
        scales = of(48, 64, 16)  # less 32
        low, high = scales & 15, scales >> 4
        packed = [low[:, :8] | low[:, 8:] << 4, high[:, :4] | high[:, 4:8] << 2 | high[:, 8:12] << 4 | high[:, 12:] << 6]
        return np.concatenate([codes(96), *packed, halves(spread / (24 * 2.3))], axis=1)
    if kind == Q.Q2_K:
        scales = of(8, 16, 16)
        d = spread / (11.5 * 1.12)
        return np.concatenate([scales | scales << 4, codes(64), halves(d), halves(d * 1.5)], axis=1)
    if kind == Q.IQ4_NL:
        return np.concatenate([halves(spread / 72), codes(16)], axis=1)
    if kind == Q.IQ4_XS:
        high = np.full((count, 2), 0xFF, np.uint8)  # scales of 48 to 63, less 32
        return np.concatenate([halves(spread / (24 * 72)), high, codes(132)], axis=1)
    raise SystemExit(f"no blocks of {kind}")


def packed(w, kind, rng):
    """Random blocks in the place of a matrix, or the matrix where gguf can pack it."""
    if kind in (Q.F32, Q.Q5_0, Q.Q5_1):
        return gguf.quants.quantize(w, kind)
    size, width = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = w.shape
    data = blocks(kind, rows * columns // size, w.std(), rng)
    assert data.shape[1] == width and data.dtype == np.uint8, kind
    return data.reshape(rows, columns // size * width)


def tokenizer_metadata(writer):
    """A small SentencePiece vocabulary without tokens for bytes: the embedding stays small."""
    singles, merged, _ = gguf_fixtures.train(pre_tokenizers.Metaspace())
    tokens = ["<unk>", "<s>", "</s>"] + merged + singles
    normal = len(tokens) - 3
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 3 + [-float(i) for i in range(normal)])
    writer.add_token_types(
        [gguf_fixtures.UNKNOWN, gguf_fixtures.CONTROL, gguf_fixtures.CONTROL] + [gguf_fixtures.NORMAL] * normal
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    return len(tokens)


def write(path, seed):
    rng = np.random.default_rng(seed + 500)
    writer = gguf.GGUFWriter(path, SPEC["arch"])
    writer.add_name(SPEC["name"])
    config = {**synthetic.BASE, **SPEC["config"], "vocab_size": tokenizer_metadata(writer)}
    gguf_fixtures.hyperparameters(writer, config)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    for name, w in synthetic.random_weights(config, seed).items():
        name = gguf_fixtures.gguf_name(name)
        kind = gguf_fixtures.type_of(name, SPEC["types"])
        writer.add_tensor(name, packed(np.array(w), kind, rng), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config


def model_of(path, folder):
    folder.mkdir()
    reader = gguf.GGUFReader(path)
    config = gguf_to_hf.config_of(gguf_to_hf.read_metadata(reader), {t.name for t in reader.tensors})
    numbers = {}
    for tensor in reader.tensors:
        array = mx.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        if tensor.tensor_type in UNPACKED:
            array = array.astype(mx.float16).astype(mx.float32)
        numbers[tensor.name] = array
    save_safetensors(folder / "model.safetensors", gguf_to_hf.rename(numbers, config))
    write_text_json(folder / "config.json", config)
    return load_model(folder)[0]


def make(folder, seed=None):
    seed = SPEC["seed"] if seed is None else seed
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = write(folder / SPEC["file"], seed)
    with tempfile.TemporaryDirectory() as scratch:
        model = model_of(folder / SPEC["file"], Path(scratch) / "model")
        prompts = synthetic.prompts(seed, config["vocab_size"])
        entries = [oracle.observe(model, ids, synthetic.GREEDY) for ids in prompts]
    expected = synthetic.expectation(SPEC["name"], "float32", SPEC["note"], seed, entries)
    synthetic.check(expected)
    return expected
