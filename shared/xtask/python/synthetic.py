"""Tiny random checkpoints, one for each switch of the Llama family, and what mlx-lm makes of them."""

import copy
import shutil

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model, save_config

import oracle
from checkpoint_files import save_safetensors, save_sharded, write_text_json

VOCAB = 48
PROMPT_LENGTHS = (12, 30, 100)
GREEDY = 64

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
# Wide heads, so that the scaled frequencies fill more than one or two pairs.
ROPE = {"num_attention_heads": 2, "num_key_value_heads": 1}


class EveryLayerSlides(list):
    """mlx-lm asks where the first full layer is, even when there is none; any answer will do."""

    def index(self, *_):
        return 0


def fixture(name, seed, note=None, oracle_config=None, off=None, **changes):
    return {
        "name": name,
        "seed": seed,
        "note": note,
        "config": {**BASE, **changes},
        "oracle_config": oracle_config,
        "off": off,
    }


# `off` is the same checkpoint with the switch ignored: the logits must change, or the fixture
# would pass an implementation that never looked at the switch.
FLOAT = [
    fixture("llama", 37, off={"rope_traditional": True}),
    fixture("llama-tied", 5, tie_word_embeddings=True),
    fixture(
        "llama-rope-llama3",
        40,
        off={"rope_scaling": None},
        **ROPE,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    fixture(
        "llama-rope-linear",
        25,
        off={"rope_scaling": None},
        **ROPE,
        rope_scaling={"type": "linear", "factor": 4.0},
    ),
    fixture(
        "llama-rope-yarn",
        1,
        off={"rope_scaling": None},
        **ROPE,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 16.0,
            "beta_slow": 1.0,
        },
    ),
    fixture(
        "mistral-layer-types",
        35,
        note="Layer 0 attends to everything, layer 1 to a window, as layer_types says.",
        off={"sliding_window": 4096},
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        sliding_window=8,
        layer_types=["full_attention", "sliding_attention"],
    ),
    fixture(
        "mistral-sliding-window",
        2,
        note="The config names only sliding_window. mlx-lm ignores it then; transformers applies it "
        "in every layer, and so do we. The expected values are those of mlx-lm's model with "
        "every layer sliding.",
        oracle_config={"layer_types": EveryLayerSlides(["sliding_attention"] * 2)},
        off={"sliding_window": 4096},
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        sliding_window=8,
    ),
    fixture("llama-bias", 15, attention_bias=True, mlp_bias=True),
    fixture("llama-head-dim", 24, head_dim=8),
    fixture(
        "qwen2",
        157,
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        tie_word_embeddings=True,
        rope_theta=1000000.0,
        rms_norm_eps=1e-6,
        use_sliding_window=False,
        sliding_window=8,
        max_window_layers=1,
    ),
    fixture(
        "qwen2-sliding-window",
        42,
        note="use_sliding_window with max_window_layers 1: layer 0 full, layer 1 sliding, as "
        "transformers does. mlx-lm ignores it, so the expected values come from its Llama model with "
        "the same weights, a zero output bias and layer_types.",
        oracle_config={
            "model_type": "llama",
            "attention_bias": True,
            "layer_types": ["full_attention", "sliding_attention"],
        },
        off={"sliding_window": 4096},
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
    ),
    fixture(
        "qwen3",
        61,
        architectures=["Qwen3ForCausalLM"],
        model_type="qwen3",
        head_dim=8,
        rope_theta=1000000.0,
        rms_norm_eps=1e-6,
    ),
    fixture("llama-bf16", 7, torch_dtype="bfloat16"),
    fixture("llama-sharded", 37),
]
# Seeds were searched for: 64 tokens × 3 prompts without a near tie (see MIN_MARGIN), and not a dull loop.
MIN_MARGIN = {"float32": 0.035, "bfloat16": 0.12}
MIN_DISTINCT = 12
QUANTIZED = [
    {
        **fixture("llama-4bit-tied", 33, hidden_size=32, tie_word_embeddings=True),
        "group_size": 32,
        "bits": 4,
        "overrides": {},
    },
    {
        **fixture(
            "qwen3-8bit-mixed",
            1,
            note="The default is 8 bits in groups of 64; down_proj of layer 1 has 4 bits in groups of 32, "
            "q_proj of layer 0 and lm_head are not quantized.",
            architectures=["Qwen3ForCausalLM"],
            model_type="qwen3",
            hidden_size=64,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            torch_dtype="bfloat16",
        ),
        "group_size": 64,
        "bits": 8,
        "overrides": {
            "model.layers.1.mlp.down_proj": {"group_size": 32, "bits": 4, "mode": "affine"},
            "model.layers.0.self_attn.q_proj": False,
            "lm_head": False,
        },
    },
    {
        **fixture("llama-mxfp4", 30, hidden_size=32, tie_word_embeddings=True),
        "mode": "mxfp4",
        "group_size": 32,
        "bits": 4,
        "overrides": {},
    },
    {
        **fixture(
            "qwen3-mxfp8",
            43,
            architectures=["Qwen3ForCausalLM"],
            model_type="qwen3",
            hidden_size=32,
            head_dim=8,
            torch_dtype="bfloat16",
        ),
        "mode": "mxfp8",
        "group_size": 32,
        "bits": 8,
        "overrides": {},
    },
    {
        **fixture(
            "llama-nvfp4-mixed",
            12,
            note="The default is nvfp4; lm_head has 8 affine bits in groups of 32, down_proj of layer 0 is "
            "mxfp4, q_proj of layer 1 is not quantized.",
            hidden_size=32,
        ),
        "mode": "nvfp4",
        "group_size": 16,
        "bits": 4,
        "overrides": {
            "lm_head": {"group_size": 32, "bits": 8, "mode": "affine"},
            "model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
            "model.layers.1.self_attn.q_proj": False,
        },
    },
]


def shapes(config):
    """Name → shape of every tensor that a checkpoint with this config holds."""
    e, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    h, hkv = config["num_attention_heads"], config["num_key_value_heads"]
    d = config.get("head_dim") or e // h
    kind = config["model_type"]
    table = {"model.embed_tokens.weight": (v, e), "model.norm.weight": (e,)}
    for layer in range(config["num_hidden_layers"]):
        at, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        table[f"model.layers.{layer}.input_layernorm.weight"] = (e,)
        table[f"model.layers.{layer}.post_attention_layernorm.weight"] = (e,)
        table |= {f"{at}.q_proj.weight": (h * d, e), f"{at}.k_proj.weight": (hkv * d, e)}
        table |= {f"{at}.v_proj.weight": (hkv * d, e), f"{at}.o_proj.weight": (e, h * d)}
        table |= {f"{mlp}.gate_proj.weight": (f, e), f"{mlp}.up_proj.weight": (f, e)}
        table[f"{mlp}.down_proj.weight"] = (e, f)
        if kind == "qwen3":
            table |= {f"{at}.q_norm.weight": (d,), f"{at}.k_norm.weight": (d,)}
        if config["attention_bias"] or kind == "qwen2":
            table |= {f"{at}.q_proj.bias": (h * d,), f"{at}.k_proj.bias": (hkv * d,)}
            table[f"{at}.v_proj.bias"] = (hkv * d,)
        if config["attention_bias"]:
            table[f"{at}.o_proj.bias"] = (e,)
        if config["mlp_bias"]:
            table |= {f"{mlp}.gate_proj.bias": (f,), f"{mlp}.up_proj.bias": (f,)}
            table[f"{mlp}.down_proj.bias"] = (e,)
    if not config["tie_word_embeddings"]:
        table["lm_head.weight"] = (v, e)
    return table


def random_weights(config, seed):
    """Weights loud enough that attention is sharp and the best token stands clear of the second."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(config).items():
        noise = rng.standard_normal(shape, dtype=np.float32)
        if "norm" in name:
            weights[name] = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            weights[name] = 0.5 * noise
        else:
            weights[name] = loudness(name, config) * noise / np.sqrt(np.float32(shape[1]))
    return {name: mx.array(w.astype(np.float32)) for name, w in weights.items()}


def loudness(name, config):
    if "embed_tokens" in name:
        # Tied: the head is this matrix, and a loud token would only ever predict itself.
        return 4.0
    if "lm_head" in name:
        return 8.0
    return 2.0 if "q_proj" in name or "k_proj" in name else 2.5


def prompts(seed, vocab=VOCAB, lengths=PROMPT_LENGTHS):
    rng = np.random.default_rng(seed + 1000)
    return [[int(t) for t in rng.integers(3, vocab, n)] for n in lengths]


def write_checkpoint(folder, spec, seed):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = spec["config"]
    dtype = getattr(mx, config["torch_dtype"])
    weights = {n: w.astype(dtype) for n, w in random_weights(config, seed).items()}
    write_text_json(folder / "config.json", config)
    if "sharded" in spec["name"]:
        save_sharded(folder, weights)
    else:
        save_safetensors(folder / "model.safetensors", weights)


def write_quantized(folder, spec, seed):
    """Quantize with mlx-lm's own function, and save as `mlx_lm.convert` lays a checkpoint out."""
    write_checkpoint(folder, spec, seed)
    model, config = load_model(folder)
    overrides = spec["overrides"]
    model, config = quantize_model(
        model,
        config,
        spec["group_size"],
        spec["bits"],
        mode=spec.get("mode", "affine"),
        quant_predicate=lambda path, _: overrides.get(path, True),
    )
    # quantize_model records parameters but not refusals; a hand-made config has those too.
    refused = {path: False for path, value in overrides.items() if value is False}
    config["quantization"] |= refused
    config["quantization_config"] = config["quantization"]
    (folder / "model.safetensors").unlink()
    weights = dict(tree_flatten(model.parameters()))
    save_safetensors(folder / "model.safetensors", weights)
    save_config(config, folder / "config.json")


def load_oracle(folder, spec, extra=None):
    overrides = dict(spec["oracle_config"] or {}) | (extra or {})
    if spec["name"] != "qwen2-sliding-window":
        return load_model(folder, model_config=overrides)[0]
    model, _ = load_model(folder, strict=False, model_config=overrides)
    for layer in model.layers:
        layer.self_attn.o_proj.bias = mx.zeros_like(layer.self_attn.o_proj.bias)
    return model


def off_difference(folder, spec, ids, logits):
    """How far the last logits move when the switch is ignored; None where nothing can be ignored."""
    if not spec["off"]:
        return None
    off = oracle.logits_of(load_oracle(folder, spec, spec["off"]), ids)[-1]
    return oracle.short(mx.abs(off.astype(mx.float32) - mx.array(logits)).max().item())


def expectation(name, dtype, note, seed, entries):
    """What a fixture says of a model: `entries` are what mlx-lm gave for each prompt."""
    return {
        "model": name,
        "mlx_lm": oracle.MLX_LM,
        "dtype": dtype,
        "note": note,
        "seed": seed,
        "min_margin": min(e["min_margin"] for e in entries),
        "distinct": min(len(set(e["greedy"])) for e in entries),
        "switch_off_logit_difference": None,
        "prompts": entries,
    }


def expect(folder, spec, seed):
    model = load_oracle(folder, spec)
    entries = [
        oracle.observe(model, ids, GREEDY, all_positions=i == 0)
        for i, ids in enumerate(prompts(seed))
    ]
    dtype = spec["config"]["torch_dtype"]
    expected = expectation(spec["name"], dtype, spec["note"], seed, entries)
    last = entries[-1]
    expected["switch_off_logit_difference"] = off_difference(
        folder, spec, last["ids"], last["logits_last"]
    )
    return expected


def check(expected):
    """A fixture that an honest implementation could miss, or a wrong one could pass, is no fixture."""
    name = expected["model"]
    if expected["min_margin"] < MIN_MARGIN[expected["dtype"]]:
        raise SystemExit(f"{name}: margin {expected['min_margin']} is a near tie, try another seed")
    if expected["distinct"] < MIN_DISTINCT:
        raise SystemExit(f"{name}: only {expected['distinct']} distinct tokens, try another seed")
    if (expected["switch_off_logit_difference"] or 1.0) < 0.5:
        raise SystemExit(f"{name}: ignoring the switch changes nothing, try another seed")
    if any(p["first_difference"] is not None for p in expected["prompts"]):
        raise SystemExit(f"{name}: cached and naive decoding differ, try another seed")


def make(folder, spec, seed=None):
    seed = spec["seed"] if seed is None else seed
    write = write_quantized if "bits" in spec else write_checkpoint
    write(folder, spec, seed)
    expected = expect(folder, spec, seed)
    check(expected)
    return expected


def specs():
    return [copy.deepcopy(s) for s in FLOAT + QUANTIZED]
