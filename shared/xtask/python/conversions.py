"""What `mlx_lm.convert` makes of the embedded model: its configuration, its tensors, its greedy tokens."""

import hashlib
import json
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm import convert
from mlx_lm.utils import load_model, load_tokenizer

import oracle
from real import GREEDY, TEXTS, chat_ids

SETTINGS = {
    "4-bit": {"q_bits": 4, "q_group_size": 64},
    "4-bit-f32": {"q_bits": 4, "q_group_size": 64, "dtype": "float32"},
    "3-bit-g128-f16": {"q_bits": 3, "q_group_size": 128, "dtype": "float16"},
    "mixed_3_6-f32": {"q_group_size": 64, "quant_predicate": "mixed_3_6", "dtype": "float32"},
    "mixed_2_6": {"q_group_size": 64, "quant_predicate": "mixed_2_6"},
    "mixed_4_6": {"q_group_size": 32, "quant_predicate": "mixed_4_6"},
}


def make(source, out, say):
    results = {}
    for name, settings in SETTINGS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "converted"
            convert(str(source), str(folder), quantize=True, **settings)
            results[name] = {"settings": settings} | conversion(folder)
            if settings.get("dtype") == "float32":
                results[name] |= answers(folder, say)
    note = (
        "quantization_config is the same as quantization; modules are its entries, their bits. sha256 is "
        "over the bytes of all tensors, sorted by name."
    )
    oracle.write_json(out / "tiny/converted.json", {"mlx_lm": oracle.MLX_LM, "note": note, "conversions": results})


def conversion(folder):
    weights = mx.load(str(folder / "model.safetensors"))
    digest = hashlib.sha256()
    for name in sorted(weights):
        w = weights[name]
        digest.update(np.array(w.view(mx.uint16) if w.dtype == mx.bfloat16 else w).tobytes())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    quantization = config.pop("quantization")
    assert config.pop("quantization_config") == quantization
    modules = {path: quantization.pop(path) for path, value in list(quantization.items()) if "." in path}
    assert all(list(value) == ["group_size", "bits", "mode"] for value in modules.values())
    return {
        "config": config,
        "quantization": quantization,
        "modules": {path: value["bits"] for path, value in modules.items()},
        "metadata": index["metadata"],
        "tensors": len(weights),
        "sha256": digest.hexdigest(),
    }


def answers(folder, say):
    model, config = load_model(folder)
    tokenizer = load_tokenizer(folder, eos_token_ids=config.get("eos_token_id"))
    prompts = []
    for text in TEXTS[:2]:
        ids = chat_ids(tokenizer, text)
        greedy, margins = oracle.greedy_cached(model, ids, GREEDY)
        say(f"  {folder.name} margin {min(margins):.3g}")
        prompts.append({"ids": ids, "greedy": greedy, "min_margin": oracle.short(min(margins))})
    return {"prompts": prompts}
