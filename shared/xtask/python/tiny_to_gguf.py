"""The embedded model as a GGUF file, in BF16 as it is stored: python tiny_to_gguf.py FOLDER FILE [--add-bos]

With --add-bos the file says that texts begin with an id of their own; the model was not trained so.
"""

import json
import sys
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Q

mx.set_default_device(mx.cpu)

import gguf_fixtures

NORMAL, CONTROL = gguf_fixtures.NORMAL, gguf_fixtures.CONTROL


def tokenizer_metadata(writer, folder, config, add_bos):
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["id"] for token in model["added_tokens"] if token["special"]}
    tokens = sorted(model["model"]["vocab"], key=model["model"]["vocab"].get)
    assert len(tokens) == config["vocab_size"], "an id without a token"
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # digits one by one, then GPT-2's pieces
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if id in special else NORMAL for id in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(add_bos)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    writer.add_chat_template(settings["chat_template"])


def write(folder, path, add_bos):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    gguf_fixtures.hyperparameters(writer, config)
    tokenizer_metadata(writer, folder, config, add_bos)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, w in mx.load(str(folder / "model.safetensors")).items():
        name, w = gguf_fixtures.gguf_name(name), np.array(w.astype(mx.float32))
        part = name.split(".")[-2]
        if part in heads:
            w = gguf_fixtures.permute(w, heads[part])
        kind = Q.F32 if "norm" in name else Q.BF16
        writer.add_tensor(name, gguf.quants.quantize(w, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


write(Path(sys.argv[1]), Path(sys.argv[2]), "--add-bos" in sys.argv[3:])
