//! The series' own command, `--model mlx-community/Mistral-7B-v0.1-4bit-MLX`, from the download to
//! the text: one layer of Mistral-7B's shapes in 4 bits, sharded, served by a hub on loopback.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::collections::HashMap;
use std::path::Path;

use assert_cmd::Command;
use mlx_rs::{Array, Dtype, ops, random};
use serde_json::{Value, json};
use shared::hub::embedded;
use shared::testing::hub_server::HubServer;
use tempfile::TempDir;

const REPO: &str = "mlx-community/Mistral-7B-v0.1-4bit-MLX";

// E, F, Hkv·D and V of Mistral-7B (arXiv 2310.06825, table 1).
const WIDTH: i32 = 4096;
const INNER: i32 = 14336;
const KV_WIDTH: i32 = 1024;
const VOCAB: i32 = 32000;

type Tensors = HashMap<String, Array>;

/// A random matrix as MLX packs it: 4 bits in groups of 64, scales and biases in bf16.
fn add_matrix(tensors: &mut Tensors, module: &str, rows: i32, columns: i32) {
    let key = random::key(tensors.len() as u64).unwrap();
    let matrix = random::normal::<f32>(&[rows, columns], None, 0.02, &key).unwrap();
    let matrix = matrix.as_dtype(Dtype::Bfloat16).unwrap();
    let (weight, scales, biases) = ops::quantize(&matrix, 64, 4).unwrap();
    for (part, array) in [("weight", weight), ("scales", scales), ("biases", biases)] {
        array.eval().unwrap(); // or every float matrix stays in memory until it is saved
        tensors.insert(format!("{module}.{part}"), array);
    }
}

fn add_norm(tensors: &mut Tensors, module: &str) {
    let ones = Array::from_slice(&vec![1.0_f32; WIDTH as usize], &[WIDTH]);
    tensors.insert(
        format!("{module}.weight"),
        ones.as_dtype(Dtype::Bfloat16).unwrap(),
    );
}

fn layer() -> Tensors {
    let mut tensors = Tensors::new();
    for (module, rows, columns) in [
        ("self_attn.q_proj", WIDTH, WIDTH),
        ("self_attn.k_proj", KV_WIDTH, WIDTH),
        ("self_attn.v_proj", KV_WIDTH, WIDTH),
        ("self_attn.o_proj", WIDTH, WIDTH),
        ("mlp.gate_proj", INNER, WIDTH),
        ("mlp.up_proj", INNER, WIDTH),
        ("mlp.down_proj", WIDTH, INNER),
    ] {
        add_matrix(
            &mut tensors,
            &format!("model.layers.0.{module}"),
            rows,
            columns,
        );
    }
    add_norm(&mut tensors, "model.layers.0.input_layernorm");
    add_norm(&mut tensors, "model.layers.0.post_attention_layernorm");
    tensors
}

fn ends() -> Tensors {
    let mut tensors = Tensors::new();
    add_matrix(&mut tensors, "model.embed_tokens", VOCAB, WIDTH);
    add_matrix(&mut tensors, "lm_head", VOCAB, WIDTH);
    add_norm(&mut tensors, "model.norm");
    tensors
}

/// Writes the repository: two shards with their index, configuration and a tokenizer.
fn write_repository(dir: &Path) {
    let mut map = serde_json::Map::new();
    for (index, tensors) in [layer(), ends()].into_iter().enumerate() {
        let shard = format!("model-0000{}-of-00002.safetensors", index + 1);
        map.extend(
            tensors
                .keys()
                .map(|name| (name.clone(), Value::from(shard.clone()))),
        );
        Array::save_safetensors(&tensors, None, dir.join(&shard)).unwrap();
    }
    let config = json!({
        "model_type": "mistral", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": VOCAB, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 2, "quantization": {"group_size": 64, "bits": 4},
    });
    let index = json!({ "metadata": {}, "weight_map": map });
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("config.json", &config.to_string());
    write("model.safetensors.index.json", &index.to_string());
    write("tokenizer.json", embedded::TOKENIZER);
    write("tokenizer_config.json", "{}"); // a base model: no chat template
}

fn run(hub: &HubServer, home: &Path, max_tokens: &str) -> Value {
    let output = Command::cargo_bin("part2-first-inference")
        .unwrap()
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", hub.url())
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_HUB_OFFLINE")
        .args(["--model", REPO, "--prompt", "Explain black holes"])
        .args(["--max-tokens", max_tokens, "--json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn a_sharded_4_bit_mistral_is_downloaded_once_and_generates() {
    let (repository, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_repository(repository.path());
    let hub = HubServer::start(REPO, repository.path());

    let first = run(&hub, home.path(), "2");
    assert_eq!(first["model"], REPO);
    assert_eq!(first["runs"][0]["tokens"].as_array().unwrap().len(), 2);
    assert_eq!(first["runs"][0]["finish_reason"], "length");

    let requests = hub.requests().len();
    let second = run(&hub, home.path(), "1");
    assert_eq!(
        hub.requests().len(),
        requests,
        "a cached model asks the network for nothing"
    );
    assert_eq!(
        second["runs"][0]["tokens"][0],
        first["runs"][0]["tokens"][0]
    );
}
