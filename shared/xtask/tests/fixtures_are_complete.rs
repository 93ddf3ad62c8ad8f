//! The committed fixtures hold what the tests of the other crates rely on.

#![allow(clippy::unwrap_used)] // a test is where a panic is the report
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Bytes of all fixtures: they are in every clone.
const LIMIT: u64 = 2_000_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/fixtures")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every small checkpoint: the name of the folder with its expected.json, and that. Two layouts of
/// the same weights lie in folders of their own beside one expected.json.
fn checkpoints() -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for path in files(&fixtures()) {
        let file = path.file_name().unwrap();
        if file == "config.json" || file == "model.gguf" {
            let mut above = path.ancestors().skip(1).take(2);
            let folder = above.find(|folder| folder.join("expected.json").exists());
            let folder = folder.unwrap_or_else(|| panic!("{} has no results", path.display()));
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            found.insert(name, json(&folder.join("expected.json")));
        }
    }
    found
}

#[test]
fn there_is_a_checkpoint_for_each_switch() {
    let names: Vec<String> = checkpoints().into_keys().collect();
    let wanted = "gguf-k gguf-llama gguf-qwen2 gpt2 llama llama-4bit-tied llama-awq llama-bf16 llama-bias llama-gptq llama-head-dim \
        llama-mxfp4 llama-nvfp4-mixed llama-nvfp4-packed llama-rope-linear llama-rope-llama3 llama-rope-yarn llama-sharded llama-tied \
        mistral-layer-types mistral-sliding-window qwen2 qwen2-sliding-window qwen3 \
        qwen3-8bit-mixed qwen3-mxfp8";
    assert_eq!(names.join(" "), wanted);
}

#[test]
fn each_expects_three_prompts_of_64_tokens_that_the_reference_is_sure_of() {
    for (name, expected) in checkpoints() {
        let prompts = expected["prompts"].as_array().unwrap();
        let lengths: Vec<_> = prompts
            .iter()
            .map(|p| p["ids"].as_array().unwrap().len())
            .collect();
        assert_eq!(lengths, [12, 30, 100], "{name}");
        for prompt in prompts {
            assert_eq!(prompt["greedy"].as_array().unwrap().len(), 64, "{name}");
            assert_eq!(prompt["greedy"], prompt["greedy_naive"], "{name}");
            assert!(
                prompt["min_margin"].as_f64().unwrap() > 0.03,
                "{name}: a near tie"
            );
        }
        assert_eq!(expected["model"], *name);
    }
}

#[test]
fn the_fixtures_stay_small() {
    let bytes: u64 = files(&fixtures())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(
        bytes < LIMIT,
        "{bytes} bytes of fixtures, at most {LIMIT} belong into every clone"
    );
}
