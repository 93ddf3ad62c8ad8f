"""GGUF in, a Hugging Face directory out: config.json, safetensors, tokenizer, chat template.

    python gguf_to_hf.py model.gguf out_dir --dtype f32
    python gguf_to_hf.py model.gguf out_dir --dtype bf16 --bits 4 --group 64
    python gguf_to_hf.py model.gguf out_dir --dtype as-read

`as-read` keeps what MLX's own reader gives: quantized tensors stay packed (groups of 32, scales in
f16), the others keep the type MLX loads them as.
"""

import argparse
import json
import shutil
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model, save_config
from tokenizers import pre_tokenizers, processors
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

from checkpoint_files import save_safetensors, write_text_json

GROUP = 32  # weights per scale in GGUF's Q4_0, Q4_1 and Q8_0
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
MODULES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_metadata(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


def hf_name(name):
    """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{MODULES[parts[2]]}.{parts[3]}"
    return f"{MODULES[parts[0]]}.{parts[1]}"


def config_of(meta, names):
    arch = meta["general.architecture"]

    def key(suffix, default=None):
        return meta.get(f"{arch}.{suffix}", default)

    heads, hidden = key("attention.head_count"), key("embedding_length")
    config = {
        "architectures": [ARCHITECTURES[arch]],
        "model_type": arch,
        "hidden_size": hidden,
        "intermediate_size": key("feed_forward_length"),
        "num_hidden_layers": key("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": key("attention.head_count_kv", heads),
        "head_dim": key("attention.key_length", hidden // heads),
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "max_position_embeddings": key("context_length"),
        # The file holds the f32 nearest to 1e-5; the config of the original says 1e-5.
        "rms_norm_eps": float(str(np.float32(key("attention.layer_norm_rms_epsilon")))),
        "rope_theta": float(key("rope.freq_base", 10000.0)),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_output.bias" in names,
        "mlp_bias": "blk.0.ffn_down.bias" in names,
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
    }
    return {k: v for k, v in config.items() if v is not None}


def unpermute(array, heads):
    """llama.cpp interleaves the two halves of each head's rows; Hugging Face has them one after the other."""
    rows = array.shape[0]
    split = array.reshape(heads, rows // heads // 2, 2, -1)
    return split.swapaxes(1, 2).reshape(array.shape)


def rename(tensors, config):
    """GGUF names → Hugging Face names, with q and k as Hugging Face lays them out."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    renamed = {}
    for name, array in tensors.items():
        name = hf_name(name)
        projection = name.split(".")[-2]
        if config["model_type"] == "llama" and projection in heads:
            array = unpermute(array, heads[projection])
        renamed[name] = array
    return renamed


def dequantized(reader, config, dtype):
    """Every tensor in full, by gguf's own dequantization in f32, then cast."""
    full = {t.name: mx.array(gguf.quants.dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    return {name: w.astype(dtype) for name, w in rename(full, config).items()}


def as_read(path, config):
    """The packed tensors as MLX reads them, and the quantization block that describes them."""
    weights = rename(mx.load(str(path)), config)
    quantization = {"group_size": GROUP, "bits": 4, "mode": "affine"}
    for name in sorted(weights):
        module, kind = name.rsplit(".", 1)
        if kind == "scales":
            bits = weights[f"{module}.weight"].shape[-1] * 32 // (weights[name].shape[-1] * GROUP)
            quantization[module] = {"group_size": GROUP, "bits": bits, "mode": "affine"}
        elif kind == "weight" and "norm" not in name and f"{module}.scales" not in weights:
            quantization[module] = False
    return weights, quantization


def tokenizer_of(meta):
    """transformers' own conversion, and what it does not know about two kinds of tokenizer."""
    fields = {
        "tokenizer_type": "model",
        "pre_tokenizer_type": "pre",
        "tokens": "tokens",
        "scores": "scores",
        "token_type": "token_type",
        "merges": "merges",
    }
    prefix = "tokenizer.ggml."
    known = {k: meta[prefix + v] for k, v in fields.items() if prefix + v in meta}
    tokenizer, _ = convert_gguf_tokenizer(meta["general.architecture"], known)
    if known.get("pre_tokenizer_type") == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    if adds_bos(meta):
        bos = meta[prefix + "bos_token_id"]
        token = known["tokens"][bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[token, "$A"], pair=[token, "$A", token, "$B"], special_tokens=[(token, bos)]
        )
    return tokenizer


def adds_bos(meta):
    """Old SentencePiece files have no flag, and llama.cpp adds a BOS to them."""
    default = meta["tokenizer.ggml.model"] == "llama"
    return meta.get("tokenizer.ggml.add_bos_token", default)


def write_tokenizer(folder, meta):
    tokenizer_of(meta).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": adds_bos(meta)}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = meta.get(f"tokenizer.ggml.{key}_token_id")
        if token is not None:
            config[f"{name}_token"] = meta["tokenizer.ggml.tokens"][token]
    if "tokenizer.chat_template" in meta:
        config["chat_template"] = meta["tokenizer.chat_template"]
    write_text_json(folder / "tokenizer_config.json", config)


def quantize_folder(folder, bits, group):
    model, config = load_model(folder)
    model, config = quantize_model(model, config, group, bits)
    weights = dict(tree_flatten(model.parameters()))
    mx.eval(weights)
    (folder / "model.safetensors").unlink()
    save_safetensors(folder / "model.safetensors", weights)
    save_config(config, folder / "config.json")


def convert(path, folder, dtype, bits=None, group=64):
    """dtype: `f32`, `bf16` or `as-read`. With bits: quantized by mlx-lm from that dtype."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader = gguf.GGUFReader(path)
    meta = read_metadata(reader)
    config = config_of(meta, {t.name for t in reader.tensors})
    if dtype == "as-read":
        weights, config["quantization"] = as_read(path, config)
        config["torch_dtype"] = "float16"
    else:
        kind = {"f32": mx.float32, "bf16": mx.bfloat16}[dtype]
        weights = dequantized(reader, config, kind)
        config["torch_dtype"] = {"f32": "float32", "bf16": "bfloat16"}[dtype]
    save_safetensors(folder / "model.safetensors", weights)
    write_text_json(folder / "config.json", config)
    write_tokenizer(folder, meta)
    if bits:
        quantize_folder(folder, bits, group)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("f32", "bf16", "as-read"), default="f32")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--group", type=int, default=64)
    args = parser.parse_args()
    convert(args.gguf, args.folder, args.dtype, args.bits, args.group)


if __name__ == "__main__":
    main()
