//! Bad input: one clear line that says what to try next, exit code 1 (2 for flags), never a panic.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::path::Path;
use std::process::Stdio;

use assert_cmd::Command;
use shared::testing::checkpoints::{Defect, broken};
use shared::testing::fixtures;
use shared::testing::hub_server::{Fault, HubServer};
use tempfile::TempDir;

/// The binary, cut off from the user's own hub cache.
fn part2(home: &Path) -> Command {
    let mut command = Command::cargo_bin("part2-first-inference").unwrap();
    command
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", "http://127.0.0.1:9") // nothing listens there
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_HUB_OFFLINE")
        .args(["--max-tokens", "2"]);
    command
}

/// Runs it and returns the one line of its error, which must hold all of `words`.
fn fails(command: &mut Command, words: &[&str]) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert_eq!(
        stderr.lines().last(),
        Some(lines[0]),
        "the error is not the last line: {stderr}"
    );
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {}", lines[0]);
    }
    println!("{}", lines[0]);
    lines[0].to_owned()
}

fn fails_with_defect(defect: Defect, words: &[&str]) {
    let dir = TempDir::new().unwrap();
    let model = broken(defect, dir.path()).unwrap();
    fails(part2(dir.path()).arg("--model").arg(model), words);
}

#[test]
fn a_missing_directory_is_named() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("no-such-model");
    fails(
        part2(dir.path()).arg("--model").arg(&missing),
        &["no-such-model"],
    );
}

#[test]
fn a_name_that_is_no_model_lists_what_is_accepted() {
    let dir = TempDir::new().unwrap();
    fails(
        part2(dir.path()).args(["--model", "tinny"]),
        &["tinny", "tiny", ".gguf"],
    );
}

#[test]
fn gpt2_is_left_to_part_1() {
    let dir = TempDir::new().unwrap();
    let gpt2 = fixtures::directory().join("gpt2/hub");
    fails(
        part2(dir.path()).arg("--model").arg(gpt2),
        &["\"gpt2\"", "part 1", "llama, mistral"],
    );
}

#[test]
fn no_network_is_said() {
    let dir = TempDir::new().unwrap();
    fails(
        part2(dir.path()).args(["--model", "someone/something"]),
        &["someone/something"],
    );
}

#[test]
fn offline_without_a_cached_copy_is_said() {
    let dir = TempDir::new().unwrap();
    let mut command = part2(dir.path());
    command
        .env("HF_HUB_OFFLINE", "1")
        .args(["--model", "someone/something"]);
    fails(&mut command, &["someone/something", "HF_HUB_OFFLINE"]);
}

#[test]
fn an_unknown_hub_id_is_said() {
    let dir = TempDir::new().unwrap();
    let hub = HubServer::start("owner/name", dir.path());
    let mut command = part2(dir.path());
    command
        .env("HF_ENDPOINT", hub.url())
        .args(["--model", "owner/other"]);
    fails(&mut command, &["owner/other"]);
}

#[test]
fn a_gated_repository_asks_for_a_token() {
    let dir = TempDir::new().unwrap();
    let hub = HubServer::start("owner/name", dir.path());
    hub.fault(Fault::Status {
        file: String::new(),
        code: 401,
    });
    let mut command = part2(dir.path());
    command
        .env("HF_ENDPOINT", hub.url())
        .args(["--model", "owner/name"]);
    fails(&mut command, &["owner/name", "HF_TOKEN"]);
}

#[test]
fn a_read_only_cache_directory_is_named() {
    let dir = TempDir::new().unwrap();
    let blocked = dir.path().join("cache");
    std::fs::write(&blocked, "a file where a directory should be").unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), "{}").unwrap();
    std::fs::write(model.join("model.safetensors"), "x").unwrap();
    let hub = HubServer::start("owner/name", &model);
    let mut command = part2(&blocked);
    command
        .env("HF_ENDPOINT", hub.url())
        .args(["--model", "owner/name"]);
    fails(&mut command, &["owner/name", "cache"]);
}

#[test]
fn a_truncated_shard_is_named() {
    fails_with_defect(Defect::TruncatedShard, &["model.safetensors"]);
}

#[test]
fn a_header_longer_than_the_file_is_named() {
    fails_with_defect(
        Defect::HeaderLongerThanFile,
        &["model.safetensors", "header"],
    );
}

#[test]
fn overlapping_tensors_are_named() {
    fails_with_defect(Defect::OverlappingOffsets, &["model.safetensors"]);
}

#[test]
fn tensors_outside_the_file_are_named() {
    fails_with_defect(Defect::OffsetsOutOfRange, &["model.safetensors"]);
}

#[test]
fn a_missing_tensor_is_named() {
    fails_with_defect(Defect::MissingTensor, &["missing", "model.layers."]);
}

#[test]
fn an_extra_tensor_is_named() {
    fails_with_defect(Defect::ExtraTensor, &["extra"]);
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    fails_with_defect(Defect::WrongShape, &["model.", "[", "]"]);
}

#[test]
fn logits_that_are_not_numbers_end_the_answer() {
    fails_with_defect(
        Defect::NotANumber,
        &["not numbers", "token 1", "download the model again"],
    );
}

#[test]
fn a_penalty_that_overflows_is_named() {
    let dir = TempDir::new().unwrap();
    for temperature in ["0", "0.7"] {
        let mut command = part2(dir.path());
        command.args(["--repetition-penalty", "1e-38"]);
        command.args(["--temperature", temperature]);
        fails(&mut command, &["repetition penalty of 1e-38", "token 1"]);
    }
}

#[test]
fn an_unknown_model_type_lists_the_known_ones() {
    fails_with_defect(Defect::UnknownModelType, &["model_type", "llama", "qwen3"]);
}

#[test]
fn an_awq_checkpoint_is_refused_by_its_name() {
    fails_with_defect(Defect::Awq, &["awq"]);
}

#[test]
fn a_k_quant_gguf_is_refused_by_its_type() {
    fails_with_defect(Defect::IQuantGguf, &["IQ2_XXS", "Q4_K"]);
}

#[test]
fn broken_json_is_located() {
    fails_with_defect(Defect::BrokenJson, &["config.json", "line"]);
}

#[test]
fn a_directory_without_a_config_is_named() {
    fails_with_defect(Defect::NoConfig, &["config.json"]);
}

#[test]
fn a_missing_tokenizer_is_named() {
    fails_with_defect(Defect::NoTokenizer, &["tokenizer.json"]);
}

#[test]
fn a_template_that_raises_says_what_it_said() {
    fails_with_defect(Defect::RaisingTemplate, &["template"]);
}

#[test]
fn an_empty_prompt_is_refused() {
    let dir = TempDir::new().unwrap();
    fails(
        part2(dir.path()).args(["--prompt", ""]),
        &["prompt", "empty"],
    );
    fails(
        part2(dir.path()).args(["--raw", "--prompt", ""]),
        &["prompt", "empty"],
    );
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_lengths() {
    let dir = TempDir::new().unwrap();
    let long = "black holes ".repeat(2000);
    fails(
        part2(dir.path()).args(["--prompt", &long]),
        &["1,024", "shorten"],
    );
}

#[test]
fn wrong_flags_exit_with_2_and_name_the_range() {
    let dir = TempDir::new().unwrap();
    for (flag, value) in [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--top-p", "2"),
        ("--top-p", "0"),
        ("--min-p", "1.5"),
        ("--max-tokens", "0"),
        ("--repetition-penalty", "0"),
        ("--seed", "x"),
    ] {
        let output = part2(dir.path())
            .arg(format!("{flag}={value}"))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {stderr}");
        assert!(
            stderr.contains(flag) || stderr.contains("cannot be used"),
            "{stderr}"
        );
    }
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let dir = TempDir::new().unwrap();
    let binary = assert_cmd::cargo::cargo_bin("part2-first-inference");
    let mut child = std::process::Command::new(binary)
        .env("HF_HOME", dir.path())
        .args(["--max-tokens", "64"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take()); // the reader goes away before the first token
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    assert!(
        !stderr.contains("error") && !stderr.contains("panicked"),
        "{stderr}"
    );
}
