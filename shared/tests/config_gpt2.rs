//! GPT-2's `config.json` → `ModelConfig`, and that only part 1 takes it.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use shared::checkpoint::Checkpoint;
use shared::config::{Family, ModelConfig};
use shared::hub;
use shared::testing::fixtures;

/// The keys of openai-community/gpt2 that say something; `changes` replace some of them.
fn config(changes: Value) -> String {
    let mut config = json!({
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": 50257,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

fn read(changes: Value) -> ModelConfig {
    ModelConfig::from_json(&config(changes), None).unwrap()
}

#[track_caller]
fn refused(changes: Value, words: &[&str]) {
    let error = ModelConfig::from_json(&config(changes), None).unwrap_err();
    let line = format!("{error:#}");
    assert!(!line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

#[test]
fn the_sizes_of_gpt2_are_read() {
    let config = read(json!({}));
    assert_eq!(config.family, Family::Gpt2);
    let sizes = [
        config.hidden_size,
        config.intermediate_size,
        config.head_dim,
    ];
    assert_eq!(sizes, [768, 3072, 64]);
    assert_eq!(
        (config.num_attention_heads, config.num_key_value_heads),
        (12, 12)
    );
    assert_eq!(config.max_position_embeddings, 1024);
    assert_eq!(config.tie_word_embeddings, Some(true));
    assert_eq!(config.eos_token_ids, [50256]);
    assert_eq!(read(json!({"n_inner": 100})).intermediate_size, 100);
    assert_eq!(read(json!({"n_head": 256})).head_dim, 3); // nothing is rotated in pairs
}

#[test]
fn variants_that_would_talk_nonsense_are_refused() {
    refused(
        json!({"activation_function": "relu"}),
        &["activation_function", "gelu_new"],
    );
    refused(
        json!({"scale_attn_by_inverse_layer_idx": true}),
        &["inverse_layer", "false"],
    );
    refused(
        json!({"tie_word_embeddings": false}),
        &["tie_word_embeddings", "true"],
    );
    refused(
        json!({"quantization": {"bits": 4}}),
        &["quantized", "original"],
    );
}

#[test]
fn impossible_sizes_are_named() {
    refused(json!({"n_head": 7}), &["n_embd 768", "n_head 7"]);
    refused(json!({"n_positions": null}), &["n_positions", "missing"]);
    refused(json!({"n_layer": 0}), &["n_layer", "from 1"]);
    refused(
        json!({"layer_norm_epsilon": null}),
        &["layer_norm_epsilon", "missing"],
    );
}

#[test]
fn the_other_parts_refuse_it_and_point_to_part_1() {
    let error = read(json!({})).require_llama().unwrap_err().to_string();
    for word in ["\"gpt2\"", "part 1", "llama, mistral"] {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
}

#[test]
fn masks_saved_with_the_weights_are_no_weights() {
    let path = fixtures::directory().join("gpt2/hub");
    let path = path.to_str().unwrap();
    let checkpoint = Checkpoint::open(path, hub::locate(path, None).unwrap()).unwrap();
    assert!(
        checkpoint
            .tensors
            .iter()
            .any(|tensor| tensor.dtype == "BOOL")
    );
    // V·E + N·E, two blocks of 12 E² + 13 E, and the last norm.
    assert_eq!(
        checkpoint.parameters(),
        48 * 16 + 168 * 16 + 2 * (12 * 256 + 13 * 16) + 2 * 16
    );
    let weights = checkpoint.load_weights().unwrap();
    assert!(!weights.contains("h.0.attn.bias") && weights.contains("h.0.attn.c_attn.bias"));
}
