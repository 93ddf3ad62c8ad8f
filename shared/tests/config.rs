//! `config.json` → `ModelConfig`: defaults, switches, and one clear line for what is wrong.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::config::{Foreign, GroupQuantization, Mode, ModelConfig, RopeScaling};

fn llama() -> Value {
    json!({
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "rms_norm_eps": 1e-5,
    })
}

/// Llama with some keys set; `null` removes a key.
fn with(changes: Value) -> Value {
    let mut config = llama();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn read(changes: Value) -> ModelConfig {
    ModelConfig::from_json(&with(changes).to_string(), None).unwrap()
}

/// The error's line, which must hold all of `words`.
fn refused(changes: Value, words: &[&str]) {
    line_of(
        ModelConfig::from_json(&with(changes).to_string(), None),
        words,
    );
}

fn line_of(result: anyhow::Result<ModelConfig>, words: &[&str]) {
    let line = format!("{:#}", result.unwrap_err());
    assert!(!line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

#[test]
fn keys_that_may_be_absent_have_the_defaults_of_llama() {
    let config = read(json!({}));
    assert_eq!(config.num_key_value_heads, 4);
    assert_eq!(config.head_dim, 16);
    assert_eq!(config.max_position_embeddings, 2048);
    assert_eq!(config.rope.theta, 10_000.0);
    assert_eq!(config.rope.scaling, RopeScaling::None);
    assert!(!config.rope.traditional && !config.qk_norm && !config.mlp_bias);
    assert!(!config.attention_bias && !config.attention_out_bias);
    assert_eq!(config.tie_word_embeddings, None);
    assert_eq!(config.sliding_window, [None; 3]);
    assert_eq!(config.quantization, None);
    assert_eq!((config.bos_token_id, config.eos_token_ids.len()), (None, 0));
}

#[test]
fn null_counts_as_absent() {
    let config = read(json!({
        "num_key_value_heads": null, "head_dim": null, "rope_scaling": null,
        "sliding_window": null, "eos_token_id": null, "quantization": null,
        "quantization_config": null,
    }));
    assert_eq!(config, read(json!({})));
}

#[test]
fn llama_has_biases_on_all_four_projections_or_on_none() {
    let config = read(json!({"attention_bias": true, "mlp_bias": true}));
    assert!(config.attention_bias && config.attention_out_bias && config.mlp_bias);
}

#[test]
fn qwen2_has_biases_on_q_k_and_v_only() {
    let config = read(json!({"model_type": "qwen2"}));
    assert!(config.attention_bias && !config.attention_out_bias);
    assert_eq!(config.rope.theta, 1e6);
    assert_eq!(config.max_position_embeddings, 32_768);
}

#[test]
fn qwen3_has_norms_on_q_and_k_and_heads_of_its_own_width() {
    let qwen3 = json!({"model_type": "qwen3", "head_dim": 32, "rope_theta": 1e6});
    let config = read(qwen3);
    assert!(config.qk_norm && !config.attention_bias);
    assert_eq!(config.head_dim, 32);
    refused(
        json!({"model_type": "qwen3", "rope_theta": 1e6}),
        &["head_dim is missing"],
    );
    refused(
        json!({"model_type": "qwen3", "head_dim": 32}),
        &["rope_theta is missing"],
    );
}

#[test]
fn every_kind_of_rope_scaling_is_read() {
    let scaling = |value: Value| read(json!({"rope_scaling": value})).rope.scaling;
    assert_eq!(
        scaling(json!({"type": "linear", "factor": 4})),
        RopeScaling::Linear { factor: 4.0 }
    );
    assert_eq!(scaling(json!({"rope_type": "default"})), RopeScaling::None);
    assert_eq!(
        scaling(json!({
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        })),
        RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }
    );
    assert_eq!(
        scaling(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768})),
        RopeScaling::Yarn {
            factor: 4.0,
            original_max_position_embeddings: 32768,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: 1.0,
            mscale_all_dim: 0.0,
        }
    );
}

#[test]
fn rope_parameters_of_transformers_5_are_read_and_older_keys_win() {
    let nested = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5});
    let new = read(json!({"rope_parameters": nested})).rope;
    assert_eq!(
        (new.theta, new.scaling),
        (5e5, RopeScaling::Linear { factor: 2.0 })
    );
    let both = read(json!({
        "rope_parameters": nested, "rope_theta": 1e4,
        "rope_scaling": {"type": "linear", "factor": 3.0},
    }));
    assert_eq!(both.rope.theta, 1e4);
    assert_eq!(both.rope.scaling, RopeScaling::Linear { factor: 3.0 });
}

/// The remarks of a config, which must be one line with all of `words`, or none.
fn remarked(config: &ModelConfig, words: &[&str]) {
    let remarks = &config.remarks;
    assert_eq!(remarks.len(), usize::from(!words.is_empty()), "{remarks:?}");
    for word in words {
        assert!(remarks[0].contains(word), "no {word:?} in {remarks:?}");
    }
}

#[test]
fn the_base_of_rope_is_found_wherever_it_stands() {
    // Transformers 5 keeps it inside the RoPE object, under either of its names.
    let inside = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5});
    for model_type in ["llama", "mistral", "qwen2", "qwen3"] {
        for place in ["rope_scaling", "rope_parameters"] {
            let config = read(json!({"model_type": model_type, "head_dim": 16, place: inside}));
            assert_eq!(config.rope.theta, 5e5, "{model_type}, {place}");
            assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 2.0 });
            remarked(&config, &[]);
        }
    }
}

#[test]
fn two_bases_of_rope_that_differ_are_told_with_the_one_that_decides() {
    let base = |theta: f64| json!({"rope_theta": theta});
    for (changes, theta, words) in [
        (
            json!({"rope_theta": 1e4, "rope_scaling": base(5e5)}),
            1e4,
            &["10000", "500000 in rope_scaling", "its top level decides"][..],
        ),
        (
            json!({"rope_parameters": base(1e4), "rope_scaling": base(5e5)}),
            5e5,
            &["10000 in rope_parameters", "rope_scaling decides"],
        ),
        (
            json!({"rope_theta": 5e5, "rope_scaling": base(5e5), "rope_parameters": base(5e5)}),
            5e5,
            &[],
        ),
    ] {
        let config = read(changes);
        assert_eq!(config.rope.theta, theta);
        remarked(&config, words);
    }
    let config = read(json!({
        "rope_scaling": {"type": "linear", "factor": 3.0},
        "rope_parameters": {"rope_type": "longrope"},
    }));
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 3.0 });
    remarked(&config, &["rope_scaling and rope_parameters", "decides"]);
    let config = read(json!({
        "rope_scaling": {"type": "default", "rope_type": "linear", "factor": 3.0},
    }));
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 3.0 });
    remarked(&config, &["\"linear\"", "\"default\"", "the first decides"]);
}

#[test]
fn what_python_takes_for_json_is_read_and_told() {
    let python = |key: &str, value: &str| {
        let text = with(json!({key: "HERE"})).to_string();
        ModelConfig::from_json(&text.replace("\"HERE\"", value), None)
    };
    for value in ["[0.0, Infinity]", "-Infinity", "NaN", "1e400"] {
        let config = python("time_step_limit", value).unwrap();
        remarked(&config, &["config.json", "Infinity or NaN"]);
    }
    let config = read(json!({"time_step_limit": {"__float__": "Infinity"}}));
    remarked(&config, &[]);
    // Where such a value is used it is as wrong as any other text.
    for key in [
        "rms_norm_eps",
        "rope_theta",
        "rope_scaling",
        "quantization",
        "vocab_size",
    ] {
        line_of(python(key, "NaN"), &[key, "NaN", "expected"]);
    }
}

#[test]
fn a_generation_config_that_is_not_json_is_read_past_and_told() {
    let text = with(json!({"eos_token_id": 5})).to_string();
    let broken = "{\"eos_token_id\": 2,}";
    let config = ModelConfig::from_json(&text, Some(broken)).unwrap();
    assert_eq!(config.eos_token_ids, [5]);
    remarked(
        &config,
        &["generation_config.json", "line 1 column", "read past"],
    );
    let python = "{\"eos_token_id\": 2, \"temperature\": Infinity}";
    let config = ModelConfig::from_json(&text, Some(python)).unwrap();
    assert_eq!(config.eos_token_ids, [2, 5]);
    remarked(&config, &["generation_config.json", "Infinity"]);
}

#[test]
fn rope_that_cannot_be_computed_is_refused() {
    let refused = |scaling: Value, words: &[&str]| {
        refused(json!({"rope_scaling": scaling}), words);
    };
    refused(
        json!({"rope_type": "longrope"}),
        &["longrope", "llama3", "yarn"],
    );
    refused(json!({"rope_type": "dynamic", "factor": 2.0}), &["dynamic"]);
    refused(json!({"type": "linear"}), &["factor is missing"]);
    refused(json!({"type": "linear", "factor": 0}), &["factor is 0"]);
    refused(
        json!({"type": "linear", "factor": "two"}),
        &["\"two\"", "number"],
    );
    let flat = json!({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4});
    refused(flat, &["low_freq_factor 4"]);
    refused(
        json!({"type": "yarn", "factor": 4, "attention_factor": 1.2}),
        &["attention_factor"],
    );
    refused(
        json!({"type": "yarn", "factor": 4, "truncate": false}),
        &["truncate"],
    );
    refused(
        json!({"type": "yarn", "factor": 4, "beta_fast": 1}),
        &["beta_fast 1"],
    );
    refused(
        json!({"full_attention": {"rope_type": "default"}}),
        &["full_attention"],
    );
    refused(
        json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
        &["0.5"],
    );
}

#[test]
fn rope_bases_without_wavelengths_are_refused() {
    for theta in [json!(1), json!(0), json!(-1e4), json!(1e30)] {
        refused(json!({"rope_theta": theta}), &["rope_theta"]);
    }
    refused(json!({"rope_theta": "ten"}), &["rope_theta", "\"ten\""]);
    refused(
        json!({"partial_rotary_factor": 0.25}),
        &["partial_rotary_factor"],
    );
}

#[test]
fn a_sliding_window_belongs_to_the_layers_that_say_so() {
    let types = ["full_attention", "sliding_attention", "full_attention"];
    let config = read(json!({"layer_types": types, "sliding_window": 8}));
    assert_eq!(config.sliding_window, [None, Some(8), None]);
    refused(
        json!({"layer_types": types}),
        &["sliding_window is missing"],
    );
    refused(
        json!({"layer_types": types[..2]}),
        &["2 entries", "3 layers"],
    );
    refused(
        json!({"layer_types": ["chunked_attention", 1, 2]}),
        &["chunked_attention"],
    );
}

#[test]
fn a_sliding_window_without_layer_types_depends_on_the_model() {
    let window = |changes: Value| read(changes).sliding_window;
    assert_eq!(window(json!({"sliding_window": 8})), [None; 3]);
    assert_eq!(
        window(json!({"model_type": "mistral", "sliding_window": 8})),
        [Some(8); 3]
    );
    assert_eq!(window(json!({"model_type": "mistral"})), [None; 3]);
    let qwen = json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 2});
    assert_eq!(window(qwen.clone()), [None; 3]);
    let mut used = qwen;
    used["use_sliding_window"] = json!(true);
    assert_eq!(window(used), [None, None, Some(8)]);
}

#[test]
fn quantization_has_overrides_by_module() {
    let config = read(json!({"quantization": {
        "group_size": 64, "bits": 4, "mode": "affine",
        "model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 8},
        "model.layers.1.mlp.down_proj": true,
        "lm_head": false,
    }}));
    let quantization = config.quantization.unwrap();
    let default = GroupQuantization::affine(64, 4);
    let other = GroupQuantization::affine(32, 8);
    assert_eq!(quantization.of("model.layers.0.mlp.down_proj"), Some(other));
    assert_eq!(
        quantization.of("model.layers.1.mlp.down_proj"),
        Some(default)
    );
    assert_eq!(
        quantization.of("model.layers.2.mlp.down_proj"),
        Some(default)
    );
    assert_eq!(quantization.of("lm_head"), None);
}

#[test]
fn weights_quantized_by_others_are_refused_by_the_name_of_the_method() {
    for method in ["fp8", "bitnet", "bitsandbytes"] {
        refused(
            json!({"quantization_config": {"quant_method": method}}),
            &[method, "MLX"],
        );
    }
    let packed = json!({"quant_method": "compressed-tensors", "format": "pack-quantized"});
    refused(
        json!({"quantization_config": packed}),
        &["compressed-tensors (pack-quantized)", "MLX"],
    );
    let mlx = json!({"group_size": 64, "bits": 4});
    assert!(
        read(json!({"quantization": mlx, "quantization_config": mlx}))
            .quantization
            .is_some()
    );
}

#[test]
fn quantization_that_mlx_does_not_have_is_refused() {
    let refused = |value: Value, words: &[&str]| refused(json!({"quantization": value}), words);
    refused(
        json!({"group_size": 16, "bits": 4}),
        &["group_size 16", "32, 64 or 128"],
    );
    refused(json!({"group_size": 64, "bits": 7}), &["bits 7"]);
    refused(json!({"bits": 4}), &["group_size is missing"]);
    refused(
        json!({"group_size": 32, "bits": 4, "mode": "int4"}),
        &["int4", "affine, mxfp4, mxfp8, nvfp4"],
    );
    refused(
        json!({"group_size": 64, "bits": 4, "mode": "mxfp4"}),
        &["group_size 64", "mxfp4: 4 bits in groups of 32"],
    );
    let nested = json!({"group_size": 64, "bits": 4, "lm_head": {"group_size": 64, "bits": 1}});
    refused(nested, &["lm_head", "bits 1"]);
}

#[test]
fn awq_and_gptq_are_taken_in_4_bits_and_in_the_layouts_that_are_known() {
    let foreign = |value: Value| read(json!({"quantization_config": value})).foreign;
    let awq = json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "GEMM"});
    assert_eq!(foreign(awq), Some(Foreign::Awq));
    for (format, add) in [("gptq", 1), ("gptq_v2", 0)] {
        let gptq = json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": format});
        assert_eq!(foreign(gptq), Some(Foreign::Gptq { add }));
    }
    let refused =
        |value: Value, words: &[&str]| refused(json!({"quantization_config": value}), words);
    refused(
        json!({"quant_method": "awq", "version": "gemv"}),
        &["AWQ", "gemv", "gemm"],
    );
    refused(
        json!({"quant_method": "awq", "w_bit": 3}),
        &["AWQ", "3 bits"],
    );
    refused(
        json!({"quant_method": "gptq", "bits": 8}),
        &["GPTQ", "8 bits"],
    );
    let marlin = json!({"quant_method": "gptq", "checkpoint_format": "marlin"});
    refused(marlin, &["GPTQ", "marlin"]);
}

#[test]
fn float_modes_have_one_packing_each() {
    for (mode, group_size, bits) in [
        (Mode::Mxfp4, 32, 4),
        (Mode::Mxfp8, 32, 8),
        (Mode::Nvfp4, 16, 4),
    ] {
        let expected = GroupQuantization {
            group_size,
            bits,
            mode,
        };
        let of = |value: Value| read(json!({"quantization": value})).quantization.unwrap();
        let full = json!({"group_size": group_size, "bits": bits, "mode": mode.name()});
        assert_eq!(of(full).default, expected);
        assert_eq!(of(json!({"mode": mode.name()})).default, expected);
        let inner = json!({"group_size": 64, "bits": 4, "lm_head": {"mode": mode.name()}});
        assert_eq!(of(inner).of("lm_head"), Some(expected));
    }
}

#[test]
fn other_programs_names_of_mlxs_modes_are_understood() {
    for mode in [Mode::Mxfp4, Mode::Mxfp8] {
        let config = read(json!({"quantization_config": {"quant_method": mode.name()}}));
        assert_eq!(
            Some(config.quantization.unwrap().default),
            mode.only_packing()
        );
    }
}

#[test]
fn stop_ids_are_the_union_of_both_files() {
    let config = with(json!({"eos_token_id": 5, "bos_token_id": 1})).to_string();
    let generation = json!({"eos_token_id": [2, 5, 7]}).to_string();
    let config = ModelConfig::from_json(&config, Some(&generation)).unwrap();
    assert_eq!(config.eos_token_ids, [2, 5, 7]);
    assert_eq!(config.bos_token_id, Some(1));
    refused(json!({"eos_token_id": -1}), &["eos_token_id", "-1"]);
    refused(json!({"eos_token_id": [1, "x"]}), &["eos_token_id"]);
    line_of(
        ModelConfig::from_json(&llama().to_string(), Some("[]")),
        &["generation_config.json"],
    );
}

#[test]
fn every_required_key_is_missed_by_its_name() {
    for key in llama().as_object().unwrap().keys() {
        let missing = format!("{key} is missing in config.json");
        refused(json!({key: null}), &[&missing]);
    }
}

#[test]
fn impossible_sizes_are_refused_with_key_and_value() {
    let sizes = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "head_dim",
    ];
    for key in sizes {
        for value in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!(u64::MAX),
            json!("many"),
            json!([]),
        ] {
            refused(json!({key: value}), &[key, &value.to_string()]);
        }
    }
    refused(
        json!({"num_key_value_heads": 3}),
        &["4", "not a multiple", "3"],
    );
    refused(
        json!({"num_attention_heads": 5}),
        &["64", "not a multiple", "5"],
    );
    refused(json!({"head_dim": 15}), &["head_dim is 15", "even"]);
    refused(json!({"rms_norm_eps": -1}), &["rms_norm_eps is -1"]);
    refused(json!({"rms_norm_eps": 1e300}), &["rms_norm_eps"]);
    refused(
        json!({"tie_word_embeddings": "yes"}),
        &["tie_word_embeddings", "true or false"],
    );
}

#[test]
fn unknown_models_and_activations_are_refused() {
    refused(
        json!({"model_type": "gemma"}),
        &["\"gemma\"", "llama, mistral, qwen2, qwen3"],
    );
    refused(json!({"model_type": 3}), &["model_type", "string"]);
    refused(
        json!({"hidden_act": "gelu"}),
        &["hidden_act", "gelu", "silu"],
    );
}

#[test]
fn broken_json_is_located() {
    let text = "{\n  \"model_type\": \"llama\",\n  \"hidden_size\": ,\n}";
    line_of(
        ModelConfig::from_json(text, None),
        &["config.json", "line 3", "column"],
    );
    line_of(
        ModelConfig::from_json("", None),
        &["config.json", "not valid JSON"],
    );
    line_of(
        ModelConfig::from_json("[1]", None),
        &["config.json", "not a JSON object"],
    );
}

#[test]
fn a_long_value_is_cut_in_the_message() {
    let result = ModelConfig::from_json(
        &with(json!({"vocab_size": "x".repeat(9999)})).to_string(),
        None,
    );
    assert!(format!("{:#}", result.unwrap_err()).len() < 300);
}

#[test]
fn the_kv_cache_grows_by_key_value_heads_not_by_query_heads() {
    let config = read(json!({"num_key_value_heads": 2}));
    assert_eq!(config.kv_bytes_per_token(2), 2 * 3 * 2 * 16 * 2);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_\n\"é]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,12}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

const KEYS: [&str; 21] = [
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "quantization",
    "quantization_config",
    "eos_token_id",
    "hidden_act",
    "attention_bias",
    "tie_word_embeddings",
];

proptest! {
    #[test]
    fn no_value_of_any_key_panics(key in prop::sample::select(&KEYS[..]), value in any_json()) {
        match ModelConfig::from_json(&with(json!({key: value})).to_string(), None) {
            Ok(config) => { config.kv_bytes_per_token(4); }
            Err(error) => {
                let line = format!("{error:#}");
                prop_assert!(!line.contains(char::is_control), "{}", line);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        prop_assert!(ModelConfig::from_json(&text, None).is_err());
    }
}
