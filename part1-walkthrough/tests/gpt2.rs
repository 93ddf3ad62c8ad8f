//! GPT-2 against mlx-lm, in every layout that its checkpoints have, and the walk through it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use part1_walkthrough::decoder::Decoder;
use part1_walkthrough::gpt2::Gpt2;
use part1_walkthrough::pass::Pass;
use part1_walkthrough::subject::{Plan, Subject};
use part1_walkthrough::trace::{Positions, Trace, WhatIf};
use part1_walkthrough::walk::walk;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use shared::checkpoint::Checkpoint;
use shared::hub;
use shared::layers::{ids_array, to_f32};
use shared::sampling::Sampling;
use shared::testing::fixtures::{self, Expected};
use tempfile::TempDir;

/// Sums in another order differ by a few units in the last place, relative to the largest logit.
const TOLERANCE: f32 = 2e-5;

fn fixture(layout: &str) -> PathBuf {
    fixtures::directory().join("gpt2").join(layout)
}

fn open(path: &Path) -> anyhow::Result<Checkpoint> {
    let path = path.to_str().unwrap();
    Checkpoint::open(path, hub::locate(path, None)?)
}

fn load(path: &Path) -> anyhow::Result<Gpt2> {
    Gpt2::load(&open(path)?)
}

#[track_caller]
fn fails(result: anyhow::Result<Gpt2>, words: &[&str]) {
    let line = format!("{:#}", result.unwrap_err());
    assert!(!line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |largest, value| largest.max(value.abs()))
}

fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len(), "other number of logits");
    largest(ours.iter().zip(theirs).map(|(a, b)| a - b)) / largest(theirs.iter().copied())
}

fn greedy(model: &Gpt2, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let pass = Pass::run(model, &ids, None).unwrap();
        let logits = to_f32(&pass.next_logits(model).unwrap()).unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        ids.push(best.unwrap() as u32);
    }
    ids.split_off(prompt.len())
}

fn is_the_model_of_mlx_lm(model: &Gpt2, tokens: usize) {
    let expected: Expected = fixtures::json("gpt2/expected.json").unwrap();
    assert_eq!(expected.prompts.len(), 3);
    for (index, prompt) in expected.prompts.iter().enumerate() {
        let pass = Pass::run(model, &prompt.ids, None).unwrap();
        let last = to_f32(&pass.next_logits(model).unwrap()).unwrap();
        let mut delta = difference(&last, &prompt.logits_last);
        if let Some(all) = &prompt.logits_all {
            let stream = pass.stream_after(pass.blocks.len());
            let logits = model.head(&model.final_norm(stream).unwrap()).unwrap();
            delta = delta.max(difference(&to_f32(&logits).unwrap(), &all.concat()));
        }
        println!("prompt {index}: relative logit difference {delta:.1e}");
        assert!(delta <= TOLERANCE, "prompt {index}: {delta}");
        let wanted = &prompt.greedy[..tokens.min(prompt.greedy.len())];
        let found = greedy(model, &prompt.ids, wanted.len());
        assert_eq!(found, wanted, "prompt {index}");
    }
}

#[test]
fn the_layout_of_the_hub_gives_the_logits_and_greedy_tokens_of_mlx_lm() {
    is_the_model_of_mlx_lm(&load(&fixture("hub")).unwrap(), 64);
}

#[test]
fn the_layout_of_a_conversion_is_the_same_model() {
    is_the_model_of_mlx_lm(&load(&fixture("converted")).unwrap(), 8);
}

/// Tensors by name: type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors() -> Tensors {
    let bytes = fs::read(fixture("hub").join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |(name, view): (&str, TensorView<'_>)| {
        let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), tensor)
    };
    file.iter().map(owned).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The fixture with other tensors.
fn checkpoint_of(tensors: &Tensors) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = fixture("hub").join("config.json");
    fs::copy(config, dir.path().join("config.json")).unwrap();
    write(&dir.path().join("model.safetensors"), tensors);
    dir
}

/// As Transformers saves GPT-2 with its head, in two files, with the buffers of older versions.
fn sharded_with_head() -> TempDir {
    let mut all: Tensors = tensors()
        .into_iter()
        .map(|(name, tensor)| (format!("transformer.{name}"), tensor))
        .collect();
    let head = all["transformer.wte.weight"].clone();
    all.insert("lm_head.weight".to_owned(), head);
    for layer in 0..2 {
        let buffer = (Dtype::F32, vec![], (-1e4_f32).to_le_bytes().to_vec());
        all.insert(format!("transformer.h.{layer}.attn.masked_bias"), buffer);
    }
    let dir = checkpoint_of(&Tensors::new());
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let second = all.split_off("transformer.h.1");
    let mut map = serde_json::Map::new();
    for (part, shard) in [(1, &all), (2, &second)] {
        let file = format!("model-0000{part}-of-00002.safetensors");
        write(&dir.path().join(&file), shard);
        map.extend(shard.keys().map(|name| (name.clone(), json!(file))));
    }
    let index = json!({"weight_map": map}).to_string();
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    dir
}

#[test]
fn a_prefix_shards_buffers_and_a_saved_head_change_nothing() {
    let dir = sharded_with_head();
    is_the_model_of_mlx_lm(&load(dir.path()).unwrap(), 8);
}

#[test]
fn a_truncated_file_is_one_line() {
    let dir = checkpoint_of(&tensors());
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    fails(
        load(dir.path()),
        &["model.safetensors", "download it again"],
    );
}

#[test]
fn a_missing_tensor_is_named() {
    for name in ["h.1.mlp.c_fc.bias", "wpe.weight", "wte.weight"] {
        let mut all = tensors();
        all.remove(name).unwrap();
        fails(load(checkpoint_of(&all).path()), &[name, "missing"]);
    }
}

#[test]
fn an_extra_tensor_and_one_of_another_shape_are_named() {
    let mut all = tensors();
    let extra = all["ln_f.bias"].clone();
    all.insert("h.2.ln_1.bias".to_owned(), extra);
    fails(
        load(checkpoint_of(&all).path()),
        &["extra", "h.2.ln_1.bias"],
    );
    let mut all = tensors();
    let turned = &mut all.get_mut("h.0.attn.c_attn.weight").unwrap().1;
    turned.reverse();
    let words = ["h.0.attn.c_attn.weight", "[48, 16]", "[16, 48]"];
    fails(load(checkpoint_of(&all).path()), &words);
}

#[test]
fn there_is_no_vector_for_a_position_that_was_never_learned() {
    let model = load(&fixture("hub")).unwrap();
    assert!(model.embed(&ids_array(&[3; 168])).is_ok());
    let error = model.embed(&ids_array(&[3; 169])).unwrap_err().to_string();
    assert!(
        error.contains("169") && error.contains("168 positions"),
        "{error}"
    );
}

/// A tokenizer with no more tokens than the fixture has rows: letters, a blank, and some pairs.
fn tokenizer() -> Value {
    let pairs = ["he", "ck", "la", "ol", "Ġb", "Ġh", "Ġt"];
    let marks = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "Ġ", ".", "T"];
    let letters = ('a'..='z').map(String::from);
    let pieces: Vec<String> = marks
        .map(str::to_owned)
        .into_iter()
        .chain(letters)
        .collect();
    let pieces = pieces.into_iter().chain(pairs.map(str::to_owned));
    let ids = pieces.enumerate().map(|(id, piece)| (piece, json!(id)));
    let vocabulary: serde_json::Map<String, Value> = ids.collect();
    assert!(vocabulary.len() <= 48);
    let split = |pair: &str| pair.chars().map(String::from).collect::<Vec<_>>().join(" ");
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [], "post_processor": null,
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": pairs.map(split)},
    })
}

/// A whole checkpoint, which takes text.
fn whole() -> TempDir {
    let dir = checkpoint_of(&tensors());
    fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    dir
}

fn trace(what_if: Option<WhatIf>) -> Trace {
    let dir = whole();
    let subject = Subject::load(&open(dir.path()).unwrap()).unwrap();
    let plan = Plan {
        text: "The black hole".to_owned(),
        raw: true,
        max_tokens: 4,
        stops: true,
        sampling: Sampling::default(),
        layer: None,
        head: None,
        what_if,
    };
    walk(&subject, &plan).unwrap()
}

#[test]
fn single_steps_are_the_fused_operations() {
    let trace = trace(None);
    let fused: Vec<&str> = trace
        .checks
        .iter()
        .map(|check| check.fused.as_str())
        .collect();
    for wanted in [
        "fast::layer_norm",
        "fast::scaled_dot_product_attention",
        "ops::addmm",
    ] {
        assert!(fused.contains(&wanted), "no {wanted} in {fused:?}");
    }
    for check in &trace.checks {
        assert!(check.holds() && check.largest > 0.0, "{check:?}");
    }
}

#[test]
fn the_trace_says_how_gpt2_knows_the_order() {
    let trace = trace(None);
    let model = &trace.model;
    assert_eq!(model.position_encoding, "learned, 168 vectors added");
    assert_eq!(
        (model.norm.as_str(), model.activation.as_str()),
        ("LayerNorm", "GELU (tanh)")
    );
    assert!(model.tied && model.heads == model.kv_heads);
    assert_eq!(trace.embedding.added_positions.len(), trace.tokens.len());
    let Positions::Learned {
        rows,
        cosines,
        shown,
    } = &trace.positions
    else {
        panic!("{:?}", trace.positions);
    };
    assert_eq!((*rows, *shown, cosines.0.len()), (168, 32, 32 * 32));
    for position in 0..32 {
        assert!((cosines.0[position * 33] - 1.0).abs() < 1e-5); // each is like itself
    }
}

#[test]
fn the_budget_counts_every_weight_once() {
    let trace = trace(None);
    let parameters: u64 = trace.budget.iter().map(|cost| cost.parameters).sum();
    assert_eq!(parameters, trace.model.parameters);
    let mlp = trace.budget.iter().find(|cost| cost.part == "MLP").unwrap();
    assert_eq!(mlp.parameters, 2 * (8 * 16 * 16 + 5 * 16));
}

#[test]
fn without_its_positions_gpt2_sees_other_vectors() {
    let outcome = trace(Some(WhatIf::NoPositions)).what_if.unwrap();
    assert!(outcome.cosines[0] < 0.99, "{:?}", outcome.cosines);
}

fn program(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("part1-walkthrough").unwrap();
    command.arg("--model").arg(dir).args(["--raw", "--prompt"]);
    command
}

#[test]
fn the_terminal_says_how_positions_enter() {
    let dir = whole();
    let model = dir.path().join("gpt2-fixture"); // a name of one length, whatever the system
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::rename(dir.path().join(file), model.join(file)).unwrap();
    }
    let mut run = program("./gpt2-fixture".as_ref());
    let run = run
        .current_dir(dir.path())
        .args(["The black hole", "--step", "embed"])
        .assert()
        .success();
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let (card, rest) = text.split_once("\n\n").unwrap();
    let (_, positions) = rest.split_once("The table does not know").unwrap();
    insta::assert_snapshot!(format!("{card}\n…\n{positions}"));
}

#[test]
fn a_prompt_longer_than_the_positions_is_one_line() {
    let dir = whole();
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["n_positions"] = json!(8);
    fs::write(path, config.to_string()).unwrap();
    let mut all = tensors();
    let positions = all.get_mut("wpe.weight").unwrap();
    positions.1[0] = 8;
    positions.2.truncate(8 * 16 * 4);
    write(&dir.path().join("model.safetensors"), &all);
    let run = program(dir.path())
        .arg("The black hole is here")
        .assert()
        .code(1);
    let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    let line = text.trim().lines().last().unwrap(); // behind the one that says what is loaded
    assert!(line.starts_with("error: "), "{text}");
    assert!(
        line.contains("room for 8") && line.contains("shorten"),
        "{line}"
    );
}
