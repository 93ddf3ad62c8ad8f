"""Writing checkpoints: the same weights give the same bytes, in every run."""

import json

import mlx.core as mx
import numpy as np


def save_safetensors(path, weights):
    """Sorted names and a fixed header, so that the same weights are the same bytes."""
    codes = {
        mx.float32: "F32",
        mx.float16: "F16",
        mx.bfloat16: "BF16",
        mx.uint32: "U32",
        mx.int32: "I32",
        mx.uint8: "U8",
        mx.bool_: "BOOL",
    }
    header, blobs, at = {"__metadata__": {"format": "mlx"}}, [], 0
    for name in sorted(weights):
        w = weights[name]
        blob = np.array(w.view(mx.uint16) if w.dtype == mx.bfloat16 else w).tobytes()
        offsets = [at, at := at + len(blob)]
        header[name] = {"dtype": codes[w.dtype], "shape": list(w.shape), "data_offsets": offsets}
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def save_sharded(folder, weights, shards=3):
    names = sorted(weights)
    per = -(-len(names) // shards)
    index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": {}}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * per : (i + 1) * per]
        save_safetensors(folder / file, {n: weights[n] for n in part})
        index["weight_map"] |= {n: file for n in part}
    write_text_json(folder / "model.safetensors.index.json", index)


def write_text_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
