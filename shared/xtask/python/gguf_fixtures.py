"""Two tiny GGUF files, written as llama.cpp's converter writes them, with tokenizers in their metadata."""

import json
import shutil
import tempfile
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Q
from mlx_lm.utils import load_model, load_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import gguf_to_hf
import oracle
import synthetic

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
MERGES = 40
TEXT = (
    "The reader of this file learns its words from these lines, and from nothing else. "
    "There are thirty or forty pieces in it: the, there, then, other, reader, lines, letters, "
    "and a few that hold an ending such as ing, ed, er or es. "
)
TEXTS = (
    "The letters of the reader",
    "hello there,  12 other lines!\n",
    "🙂 नमस्ते the end",
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA = {
    "name": "gguf-llama",
    "file": "model.gguf",
    "seed": 3,
    "arch": "llama",
    "note": "llama architecture: rows of q and k are interleaved in the file. SentencePiece tokenizer with "
    "scores and byte tokens, BOS added.",
    "config": {"hidden_size": 32, "vocab_size": 0},
    "types": {
        "token_embd": Q.Q8_0,
        "output": Q.Q8_0,
        "0.attn_q": Q.Q4_0,
        "0.attn_k": Q.Q4_1,
        "0.attn_v": Q.F16,
        "0.attn_output": Q.Q8_0,
        "0.ffn_gate": Q.BF16,
        "0.ffn_up": Q.F32,
        "0.ffn_down": Q.Q4_1,
        "1.attn_q": Q.F32,
        "1.attn_k": Q.BF16,
        "1.attn_v": Q.Q8_0,
        "1.attn_output": Q.Q4_0,
        "1.ffn_gate": Q.Q4_0,
        "1.ffn_up": Q.Q8_0,
        "1.ffn_down": Q.F16,
    },
}
QWEN2 = {
    "name": "gguf-qwen2",
    "file": "model.gguf",
    "seed": 3,
    "arch": "qwen2",
    "note": "qwen2 architecture: q and k as Hugging Face has them, biases, no output.weight (tied). Byte-level "
    "BPE tokenizer, no BOS.",
    "config": {
        "hidden_size": 32,
        "model_type": "qwen2",
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "vocab_size": 0,
    },
    "types": {"token_embd": Q.F16, "attn_": Q.Q8_0, "0.ffn_": Q.Q4_0, "1.ffn_": Q.Q4_1},
}


def train(pre_tokenizer, alphabet=()):
    """A vocabulary of merges, learnt from TEXT: pieces and merges, in the order they were found."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    size = len(alphabet or set(TEXT.replace(" ", "▁")))
    trainer = trainers.BpeTrainer(
        vocab_size=size + MERGES, initial_alphabet=list(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    vocab = tokenizer.get_vocab()
    pieces = sorted(vocab, key=vocab.get)
    return pieces[:size], pieces[size:], tokenizer


def sentencepiece_metadata(writer):
    """<unk>, BOS, EOS, 256 bytes, then merged pieces by rank and single characters, as Llama 2 has it."""
    singles, merged, _ = train(pre_tokenizers.Metaspace())
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + merged + singles
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(merged) + len(singles))
    scores = [0.0] * 259 + [-float(i) for i in range(len(merged) + len(singles))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(INST)
    return len(tokens)


def byte_level_metadata(writer):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    singles, merged, tokenizer = train(pre_tokenizers.ByteLevel(add_prefix_space=False), alphabet)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = singles + merged + special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([NORMAL] * (len(tokens) - 3) + [CONTROL] * 3)
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_pad_token_id(len(tokens) - 3)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
    return len(tokens)


def merges_of(tokenizer):


    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [m if isinstance(m, str) else " ".join(m) for m in merges]


def hyperparameters(writer, config):
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])


def permute(w, heads):
    """What llama.cpp's converter does to q and k of a Llama: the two halves of a head, row by row."""
    split = w.reshape(heads, 2, w.shape[0] // heads // 2, -1)
    return split.swapaxes(1, 2).reshape(w.shape)


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    parts = module.split(".")
    back = {hf: ours for ours, hf in gguf_to_hf.MODULES.items()}
    if parts[:2] == ["model", "layers"]:
        return f"blk.{parts[2]}.{back['.'.join(parts[3:])]}.{kind}"
    return f"{back[module]}.{kind}"


def type_of(name, types):
    if name.endswith("bias") or "norm" in name:
        return Q.F32
    short = name.removeprefix("blk.")
    return next(kind for prefix, kind in types.items() if short.startswith(prefix) or prefix in short)


def write(path, spec, seed):
    writer = gguf.GGUFWriter(path, spec["arch"])
    writer.add_name(spec["name"])
    metadata = sentencepiece_metadata if spec["arch"] == "llama" else byte_level_metadata
    config = {**synthetic.BASE, **spec["config"], "vocab_size": metadata(writer)}
    hyperparameters(writer, config)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, w in synthetic.random_weights(config, seed).items():
        name, w = gguf_name(name), np.array(w)
        part = name.split(".")[-2]
        if spec["arch"] == "llama" and part in heads:
            w = permute(w, heads[part])
        kind = type_of(name, spec["types"])
        writer.add_tensor(name, gguf.quants.quantize(w, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config


def model_of(path, folder, dtype):
    gguf_to_hf.convert(path, folder, dtype)
    return load_model(folder)[0]


def tokenizer_rows(folder):
    tokenizer = load_tokenizer(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for text in TEXTS:
        raw = list(tokenizer.encode(text))
        assert raw == plain.encode(text).ids, (folder, text)
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True
        )
        decoded = tokenizer.decode(raw, skip_special_tokens=True)
        rows.append({"text": text, "raw": raw, "decoded": decoded, "chat": list(chat)})
    return rows


def make(folder, spec, seed=None):
    seed = spec["seed"] if seed is None else seed
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / spec["file"]
    config = write(path, spec, seed)
    with tempfile.TemporaryDirectory() as scratch:
        return expect(path, Path(scratch), spec, seed, config)


def expect(path, scratch, spec, seed, config):
    model = model_of(path, scratch / "as-read", "as-read")
    prompts = synthetic.prompts(seed, config["vocab_size"])
    entries = [oracle.observe(model, ids, synthetic.GREEDY) for ids in prompts]
    dense = model_of(path, scratch / "dense", "f32")
    apart = [difference(dense, entry) for entry in entries]
    expected = {
        "model": spec["name"],
        "mlx_lm": oracle.MLX_LM,
        "dtype": str(model(mx.array([[1]])).dtype).removeprefix("mlx.core."),
        "note": spec["note"] + " Logits are those of the tensors as MLX reads them: packed ones stay packed "
        "(groups of 32, scales in f16), BF16 becomes f16; with f32 norms, activations are f32 "
        "from the first norm on. dequantized_logit_difference: largest distance to the last "
        "logits of the same file dequantized to f32.",
        "seed": seed,
        "min_margin": min(e["min_margin"] for e in entries),
        "distinct": min(len(set(e["greedy"])) for e in entries),
        "switch_off_logit_difference": None,
        "dequantized_logit_difference": oracle.short(max(apart)),
        "prompts": entries,
        "tokenizer": tokenizer_rows(scratch / "as-read"),
    }
    synthetic.check(expected)
    return expected


def difference(dense, entry):
    logits = oracle.logits_of(dense, entry["ids"])[-1]
    return mx.abs(logits - mx.array(entry["logits_last"])).max().item()


def specs():
    return [LLAMA, QWEN2]
