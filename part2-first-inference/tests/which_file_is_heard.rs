//! Several files, or several places in one, speak of the same thing. The answer of a model that is known
//! by construction shows which of them is heard.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};
use shared::testing::checkpoints::chain::Chain;
use shared::testing::checkpoints::edit;
use shared::testing::fixtures;
use tempfile::TempDir;

/// A chain through a mark at id 6, which goes on to the end of the text.
fn chain() -> Chain {
    let words = ["<|endoftext|>", "a", "H", "ello", "Ġworld", "!", "<|eot|>"];
    let mut chain = Chain::new(&words, &[1, 2, 3, 6, 4, 5, 0]);
    chain.special.push(6);
    chain
}

/// The run as the program reports it, and what it said on stderr.
fn run(model: &Path, more: &[&str]) -> (Value, String) {
    let output = Command::cargo_bin("part2-first-inference")
        .unwrap()
        .args(["--raw", "--prompt", "a", "--max-tokens", "8", "--json"])
        .arg("--model")
        .arg(model)
        .args(more)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let json: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    (json["runs"][0].clone(), stderr)
}

fn written(file: &shared::testing::checkpoints::gguf::GgufFile) -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    (dir, path)
}

#[test]
fn a_chain_says_what_it_was_built_to_say() {
    let dir = TempDir::new().unwrap();
    chain().write(dir.path()).unwrap();
    let (_keep, gguf) = written(&chain().gguf());
    for model in [dir.path(), &gguf] {
        let (run, _) = self::run(model, &[]);
        assert_eq!(run["tokens"], json!([2, 3, 6, 4, 5]));
        assert_eq!(run["text"], "Hello world!");
        assert_eq!(run["finish_reason"], "stop");
    }
}

#[test]
fn the_end_of_turn_of_a_gguf_file_ends_the_answer() {
    for key in ["eot_token_id", "eom_token_id"] {
        let mut file = chain().gguf();
        file.uint(&format!("tokenizer.ggml.{key}"), 6);
        let (_keep, path) = written(&file);
        let (run, _) = run(&path, &[]);
        assert_eq!(run["tokens"], json!([2, 3]), "{key}");
        assert_eq!(
            (&run["text"], &run["finish_reason"]),
            (&json!("Hello"), &json!("stop"))
        );
    }
}

#[test]
fn a_q4_0_file_as_it_is_published_loads_with_its_output_in_q6_k() {
    let chain = Chain {
        width: 256,
        ..chain()
    };
    let (_keep, path) = written(&chain.gguf_q4_0());
    let (run, _) = run(&path, &[]);
    assert_eq!(run["tokens"], json!([2, 3, 6, 4, 5]));
    // 256 × 256 weights of the output are two bytes each; those of the embedding have 4 bits and a
    // scale and a bias of 16 bits for 32 of them; the MLP has three matrices of 32 × 256.
    let (matrix, per_group) = (256 * 256, 16 + 4);
    let packed = (matrix * 5 + 3 * 32 * 256) / 32 * per_group;
    assert_eq!(run["weight_bytes"], 2 * matrix + packed + 3 * 256 * 4);
}

#[test]
fn a_fixture_of_mixed_bits_gives_the_tokens_of_mlx_lm_without_its_map() {
    let dir = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = fixtures::directory().join("qwen3-8bit-mixed").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    edit(
        dir.path(),
        "config.json",
        "quantization",
        json!({"group_size": 64, "bits": 8}),
    )
    .unwrap();
    let files = shared::hub::ModelFiles::Directory(dir.path().to_owned());
    let checkpoint = shared::checkpoint::Checkpoint::open("mixed", files).unwrap();
    let model = part2_first_inference::model::Model::load(&checkpoint).unwrap();
    for prompt in fixtures::expected("qwen3-8bit-mixed").unwrap().prompts {
        let ids = shared::layers::ids_array(&prompt.ids);
        // MLX's own sums: the random checkpoint is touchy in 16 bits.
        let logits = shared::kernels::with_mlx(|| {
            shared::layers::to_f32(&model.next_logits(&ids).unwrap()).unwrap()
        });
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        assert_eq!(best, Some(prompt.greedy[0] as usize));
        for (ours, theirs) in logits.iter().zip(&prompt.logits_last) {
            assert!(
                (ours - theirs).abs() < 0.02 * theirs.abs().max(1.0),
                "{ours} {theirs}"
            );
        }
    }
}

#[test]
fn what_was_read_past_is_a_line_on_stderr() {
    let dir = TempDir::new().unwrap();
    chain().write(dir.path()).unwrap();
    std::fs::write(
        dir.path().join("generation_config.json"),
        "{\"eos_token_id\": 2,}",
    )
    .unwrap();
    let index = json!({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}});
    std::fs::write(
        dir.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    let entry = json!({"6": {"content": "<|eot|>", "special": true, "normalized": true}});
    edit(
        dir.path(),
        "tokenizer_config.json",
        "added_tokens_decoder",
        entry,
    )
    .unwrap();
    let (run, stderr) = run(dir.path(), &[]);
    assert_eq!(run["text"], "Hello world!");
    let warnings: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .collect();
    assert_eq!(warnings.len(), 3, "{stderr}");
    for (warning, file) in
        warnings
            .iter()
            .zip(["generation_config.json", "index.json", "tokenizer_config"])
    {
        assert!(warning.contains(file), "{warning}");
    }
}
