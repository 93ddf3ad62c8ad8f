//! A model's name → its files: on disk, and from a hub on loopback that fails in every way that the
//! real one can. Each test has a cache directory of its own.
#![allow(clippy::unwrap_used)]
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::TensorView;
use shared::hub::{
    Embedded, HubLimits, HubSettings, ModelFiles, embedded, locate, locate_tokenizer_with,
    locate_with,
};
use shared::testing::hub_server::{Fault, HubServer};
use tempfile::TempDir;

const REPO: &str = "somebody/a-model";
const WEIGHTS: &str = "model.safetensors";
/// Large enough that a part of it is worth keeping.
const FLOATS: usize = 1_000_000;

/// A safetensors file with one tensor of `count` floats that begin at `seed`.
fn write_weights(path: &Path, count: usize, seed: u32) {
    let bytes: Vec<u8> = (0..count as u32)
        .flat_map(|i| (i ^ seed).to_le_bytes())
        .collect();
    let view = TensorView::new(safetensors::Dtype::F32, vec![count], &bytes).unwrap();
    let name = format!("tensor.{seed}");
    std::fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
}

/// A model as it lies on the hub, with some files that nobody needs.
fn model_with(weights: impl Fn(&Path)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    ] {
        std::fs::write(dir.path().join(name), format!("{{\"file\": \"{name}\"}}\n")).unwrap();
    }
    for name in [
        "pytorch_model.bin",
        "model.onnx",
        "original.pth",
        "picture.png",
    ] {
        std::fs::write(dir.path().join(name), "not needed").unwrap();
    }
    weights(dir.path());
    dir
}

fn model() -> TempDir {
    model_with(|dir| write_weights(&dir.join(WEIGHTS), FLOATS, 1))
}

const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

fn sharded_model() -> TempDir {
    model_with(|dir| {
        write_weights(&dir.join(SHARDS[0]), FLOATS, 1);
        write_weights(&dir.join(SHARDS[1]), FLOATS, 2);
        let map = serde_json::json!({"weight_map": {"tensor.1": SHARDS[0], "tensor.2": SHARDS[1]}});
        std::fs::write(dir.join("model.safetensors.index.json"), map.to_string()).unwrap();
    })
}

/// A hub that serves a model, and an empty cache.
struct Setup {
    model: TempDir,
    hub: HubServer,
    home: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self::serving(model())
    }

    fn serving(model: TempDir) -> Self {
        let hub = HubServer::start(REPO, model.path());
        Self {
            hub,
            model,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.hub.url(),
            cache: self.home.path().join("hub"),
            token: None,
            offline: false,
            limits: HubLimits::default(),
        }
    }

    fn offline(&self) -> HubSettings {
        HubSettings {
            offline: true,
            ..self.settings()
        }
    }

    fn locate(&self) -> anyhow::Result<PathBuf> {
        directory(locate_with(REPO, None, &self.settings()))
    }

    fn error(&self) -> String {
        one_line(self.locate().unwrap_err())
    }

    /// The bytes of every file that arrived are those that the hub has.
    fn assert_same(&self, snapshot: &Path) {
        for entry in std::fs::read_dir(snapshot).unwrap() {
            let name = entry.unwrap().file_name();
            let (here, there) = (snapshot.join(&name), self.model.path().join(&name));
            assert!(
                std::fs::read(here).unwrap() == std::fs::read(there).unwrap(),
                "{name:?}"
            );
        }
    }

    fn transfers_of(&self, file: &str) -> Vec<String> {
        let requests = self.hub.requests();
        requests
            .into_iter()
            .filter(|r| r.starts_with("GET /cdn/") && r.contains(file))
            .collect()
    }
}

fn directory(files: anyhow::Result<ModelFiles>) -> anyhow::Result<PathBuf> {
    match files? {
        ModelFiles::Directory(path) => Ok(path),
        other => panic!("expected a directory, got {other:?}"),
    }
}

fn one_line(error: anyhow::Error) -> String {
    let message = format!("{error:#}");
    assert!(!message.contains('\n'), "{message}");
    message
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn names(snapshot: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(snapshot).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn cut(file: &str, byte: u64) -> Fault {
    Fault::CutAt {
        file: file.into(),
        byte,
    }
}

fn status(file: &str, code: u16) -> Fault {
    Fault::Status {
        file: file.into(),
        code,
    }
}

// ---- on disk

#[test]
fn the_draft_model_is_built_in_as_it_lies_in_its_folder() {
    let files = locate("tiny-draft", None).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/tiny-draft");
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ] {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(files.read_text(name).unwrap(), Some(text), "{name}");
    }
    let weights = fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights == Embedded::Draft.weights());
}

#[test]
fn tiny_is_built_in_and_consistent() {
    let files = locate("tiny", None).unwrap();
    assert_eq!(files, ModelFiles::Embedded(Embedded::Tiny));
    let config = files.read_text("config.json").unwrap().unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["hidden_size"], 256);
    let text = files.read_text("tokenizer.json").unwrap().unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["model"].is_object());
    assert_eq!(files.read_text("chat_template.jinja").unwrap(), None);
    assert!(files.shards().is_err());
    let tensors = safetensors::SafeTensors::deserialize(embedded::WEIGHTS).unwrap();
    let count: usize = tensors
        .tensors()
        .iter()
        .map(|(_, t)| t.shape().iter().product::<usize>())
        .sum();
    assert_eq!(count, 7_344_384);
}

#[test]
fn a_directory_is_taken_as_it_is() {
    let model = sharded_model();
    let files = locate(model.path().to_str().unwrap(), None).unwrap();
    assert_eq!(files, ModelFiles::Directory(model.path().into()));
    assert_eq!(
        files.shards().unwrap(),
        SHARDS.map(|name| model.path().join(name))
    );
    assert_eq!(files.read_text("generation_config.json").unwrap(), None);
    assert!(
        files
            .read_text("config.json")
            .unwrap()
            .unwrap()
            .contains("config.json")
    );
}

#[test]
fn a_single_file_is_found_without_an_index() {
    let model = model();
    let files = ModelFiles::Directory(model.path().into());
    assert_eq!(files.shards().unwrap(), [model.path().join(WEIGHTS)]);
}

#[test]
fn a_gguf_file_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.Q4_0.gguf");
    std::fs::write(&path, "GGUF").unwrap();
    let files = locate(path.to_str().unwrap(), None).unwrap();
    assert_eq!(files, ModelFiles::Gguf(path));
    assert_eq!(files.read_text("config.json").unwrap(), None);
}

#[test]
fn a_missing_directory_is_named_with_its_near_miss_and_never_asked_for_online() {
    let setup = Setup::new();
    let parent = tempfile::tempdir().unwrap();
    std::fs::create_dir(parent.path().join("smollm2")).unwrap();
    std::fs::write(parent.path().join("smollm2/config.json"), "{}").unwrap();
    for wrong in ["smolm2", "smollm2-4bit.gguf", "deeper/smollm2/"] {
        let wrong = parent.path().join(wrong).display().to_string();
        let message = one_line(locate_with(&wrong, None, &setup.settings()).unwrap_err());
        assert_says(&message, &[&wrong, "no such file or directory"]);
    }
    let wrong = parent.path().join("smolm2");
    let message =
        one_line(locate_with(wrong.to_str().unwrap(), None, &setup.settings()).unwrap_err());
    assert_says(&message, &["did you mean", "/smollm2?"]);
    let relative = one_line(locate_with("./no/such", None, &setup.settings()).unwrap_err());
    assert_says(&relative, &["./no/such", "no such file or directory"]);
    assert!(setup.hub.requests().is_empty());
}

#[test]
fn a_directory_without_config_is_refused_with_what_it_holds_instead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    assert_says(
        &one_line(locate(path, None).unwrap_err()),
        &[path, "config.json"],
    );
    std::fs::write(dir.path().join("m.gguf"), "GGUF").unwrap();
    assert_says(
        &one_line(locate(path, None).unwrap_err()),
        &["did you mean", "m.gguf?"],
    );
}

#[test]
fn something_that_is_neither_is_told_what_is_accepted() {
    let setup = Setup::new();
    for wrong in [
        "",
        "smollm",
        "a/b/c",
        "a b/c",
        "owner/",
        "https://huggingface.co/a/b",
    ] {
        let message = one_line(locate_with(wrong, None, &setup.settings()).unwrap_err());
        assert_says(&message, &["--model"]);
        if !wrong.ends_with('/') {
            assert_says(&message, &["tiny", "directory", ".gguf", "owner/name"]);
        }
    }
    assert!(setup.hub.requests().is_empty());
}

#[test]
fn a_plain_file_and_a_revision_of_a_local_model_are_refused() {
    let model = model();
    let file = model.path().join(WEIGHTS);
    let message = one_line(locate(file.to_str().unwrap(), None).unwrap_err());
    assert_says(&message, &["not a .gguf file", "directory"]);
    assert_says(
        &one_line(locate("tiny", Some("v2")).unwrap_err()),
        &["--revision v2", "tiny"],
    );
}

#[test]
fn a_gguf_file_without_its_ending_is_known_by_its_first_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sha256-abc");
    std::fs::write(&path, b"GGUF\x03\0\0\0").unwrap();
    let message = one_line(locate(path.to_str().unwrap(), None).unwrap_err());
    assert_says(
        &message,
        &["sha256-abc is a GGUF file", "ln -s", "model.gguf"],
    );
    std::fs::write(&path, b"GG").unwrap();
    let message = one_line(locate(path.to_str().unwrap(), None).unwrap_err());
    assert_says(&message, &["not a .gguf file"]);
}

#[test]
fn an_index_that_names_a_missing_or_outside_file_is_refused() {
    let model = sharded_model();
    let files = ModelFiles::Directory(model.path().into());
    std::fs::remove_file(model.path().join(SHARDS[1])).unwrap();
    assert_says(
        &one_line(files.shards().unwrap_err()),
        &[SHARDS[1], "incomplete"],
    );
    let index = model.path().join("model.safetensors.index.json");
    for (text, says) in [
        (
            r#"{"weight_map": {"a": "../../secret.safetensors"}}"#,
            "outside",
        ),
        (r#"{"weight_map": {}}"#, "empty"),
        (r#"{"weight_map": "#, "EOF"),
    ] {
        std::fs::write(&index, text).unwrap();
        assert_says(
            &one_line(files.shards().unwrap_err()),
            &["index.json", says],
        );
    }
}

// ---- from the hub

#[test]
fn a_hub_model_is_downloaded_with_the_needed_files_only() {
    let setup = Setup::new();
    let snapshot = setup.locate().unwrap();
    let expected = [
        "config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&snapshot), expected);
    setup.assert_same(&snapshot);
    let files = ModelFiles::Directory(snapshot.clone());
    assert_eq!(files.shards().unwrap(), [snapshot.join(WEIGHTS)]);
    for unneeded in ["pytorch_model.bin", "onnx", "pth", "png", "README"] {
        assert!(
            !setup.hub.requests().iter().any(|r| r.contains(unneeded)),
            "{unneeded}"
        );
    }
}

#[test]
fn the_shards_are_those_that_the_index_names() {
    let model = sharded_model();
    write_weights(&model.path().join("consolidated.safetensors"), 10, 9);
    let setup = Setup::serving(model);
    let snapshot = setup.locate().unwrap();
    setup.assert_same(&snapshot);
    let shards = ModelFiles::Directory(snapshot.clone()).shards().unwrap();
    assert_eq!(shards, SHARDS.map(|name| snapshot.join(name)));
    assert!(!snapshot.join("consolidated.safetensors").exists());
}

#[test]
fn an_index_of_another_build_does_not_hide_weights_that_are_whole() {
    let names = |set: &[&str]| -> serde_json::Value {
        set.iter()
            .map(|name| (name.to_string(), (*name).into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let other = names(&[
        "model-00001-of-00004.safetensors",
        "model-00004-of-00004.safetensors",
    ]);
    for (model, whole) in [(model(), &[WEIGHTS][..]), (sharded_model(), &SHARDS)] {
        let index = serde_json::json!({ "weight_map": other }).to_string();
        std::fs::write(model.path().join("model.safetensors.index.json"), index).unwrap();
        let setup = Setup::serving(model);
        let snapshot = setup.locate().unwrap();
        setup.assert_same(&snapshot);
        let offline = directory(locate_with(REPO, None, &setup.offline())).unwrap();
        let shards = ModelFiles::Directory(offline).shards().unwrap();
        let whole: Vec<PathBuf> = whole.iter().map(|name| snapshot.join(name)).collect();
        assert_eq!(shards, whole);
        // Whole is what has all of its numbers.
        std::fs::remove_file(&whole[0]).unwrap();
        assert!(ModelFiles::Directory(snapshot).shards().is_err());
    }
}

#[test]
fn a_cached_model_starts_without_a_request() {
    let setup = Setup::new();
    let first = setup.locate().unwrap();
    let asked = setup.hub.requests().len();
    assert_eq!(setup.locate().unwrap(), first);
    assert_eq!(setup.hub.requests().len(), asked);
    assert_eq!(
        directory(locate_with(REPO, None, &setup.offline())).unwrap(),
        first
    );
    let commit = first.file_name().unwrap().to_str().unwrap();
    let pinned = locate_with(REPO, Some(commit), &setup.offline());
    assert_eq!(directory(pinned).unwrap(), first);
}

#[test]
fn a_snapshot_made_by_another_program_is_used_and_asked_about_once() {
    let setup = Setup::new();
    let snapshot = setup.locate().unwrap();
    // huggingface_hub leaves no notes about files that do not exist.
    std::fs::remove_dir_all(snapshot.parent().unwrap().with_file_name(".no_exist")).unwrap();
    assert_eq!(
        directory(locate_with(REPO, None, &setup.offline())).unwrap(),
        snapshot
    );
    let transfers = setup.transfers_of(WEIGHTS).len();
    setup.locate().unwrap();
    let asked = setup.hub.requests().len();
    setup.locate().unwrap();
    assert_eq!(setup.hub.requests().len(), asked);
    assert_eq!(setup.transfers_of(WEIGHTS).len(), transfers);
}

#[test]
fn a_usable_snapshot_is_used_when_the_hub_cannot_be_reached() {
    let setup = Setup::new();
    let snapshot = setup.locate().unwrap();
    std::fs::remove_dir_all(snapshot.parent().unwrap().with_file_name(".no_exist")).unwrap();
    let settings = HubSettings {
        endpoint: nobody(),
        ..setup.settings()
    };
    assert_eq!(
        directory(locate_with(REPO, None, &settings)).unwrap(),
        snapshot
    );
}

#[test]
fn a_cached_snapshot_with_a_file_missing_is_completed() {
    for file in [
        "tokenizer_config.json",
        SHARDS[1],
        "model.safetensors.index.json",
    ] {
        let setup = Setup::serving(sharded_model());
        let snapshot = setup.locate().unwrap();
        let before = setup.transfers_of(SHARDS[0]).len();
        let blob = snapshot.join(file).canonicalize().unwrap();
        std::fs::remove_file(snapshot.join(file)).unwrap();
        std::fs::remove_file(blob).unwrap();
        assert_eq!(setup.locate().unwrap(), snapshot);
        assert!(snapshot.join(file).is_file(), "{file}");
        setup.assert_same(&snapshot);
        assert_eq!(
            setup.transfers_of(SHARDS[0]).len(),
            before,
            "only {file} was missing"
        );
    }
}

#[test]
fn a_blob_that_was_deleted_behind_its_link_is_fetched_again() {
    let setup = Setup::new();
    let snapshot = setup.locate().unwrap();
    std::fs::remove_file(snapshot.join("tokenizer.json").canonicalize().unwrap()).unwrap();
    assert_eq!(setup.locate().unwrap(), snapshot);
    setup.assert_same(&snapshot);
}

#[test]
fn a_file_truncated_in_the_cache_is_noticed_and_downloaded_again() {
    for file in [WEIGHTS, "config.json", "tokenizer.json"] {
        let setup = Setup::new();
        let snapshot = setup.locate().unwrap();
        for length in [0, 7] {
            let blob = snapshot.join(file).canonicalize().unwrap();
            std::fs::OpenOptions::new()
                .write(true)
                .open(blob)
                .unwrap()
                .set_len(length)
                .unwrap();
            let offline = one_line(locate_with(REPO, None, &setup.offline()).unwrap_err());
            assert_says(&offline, &["HF_HUB_OFFLINE", file]);
            setup.locate().unwrap();
            setup.assert_same(&snapshot);
        }
    }
}

#[test]
fn a_shard_that_is_one_byte_short_is_noticed() {
    let setup = Setup::serving(sharded_model());
    let snapshot = setup.locate().unwrap();
    let blob = snapshot.join(SHARDS[0]).canonicalize().unwrap();
    let length = blob.metadata().unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(blob)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    setup.locate().unwrap();
    setup.assert_same(&snapshot);
    assert_eq!(
        setup.transfers_of(SHARDS[1]).len(),
        1,
        "the other one was whole"
    );
}

#[test]
fn a_cut_connection_is_taken_up_where_it_stopped() {
    let setup = Setup::new();
    setup.hub.fault(cut(WEIGHTS, 3_000_000));
    let snapshot = setup.locate().unwrap();
    setup.assert_same(&snapshot);
    let transfers = setup.transfers_of(WEIGHTS);
    let resumed = |r: &&String| r.contains(" bytes=") && !r.contains(" bytes=0-");
    assert_eq!(transfers.iter().filter(resumed).count(), 1, "{transfers:?}");
    assert_eq!(
        transfers.iter().filter(|r| !r.contains("bytes=")).count(),
        1,
        "{transfers:?}"
    );
}

#[test]
fn an_interrupted_download_is_reported_and_completed_by_the_next_run() {
    let setup = Setup::serving(sharded_model());
    for byte in [1_500_000, 2_000_000, 2_500_000] {
        setup.hub.fault(cut(SHARDS[1], byte));
    }
    assert_says(&setup.error(), &[REPO, "broke off", "again"]);
    assert_says(
        &one_line(locate_with(REPO, None, &setup.offline()).unwrap_err()),
        &["HF_HUB_OFFLINE", REPO],
    );
    setup.hub.clear_faults();
    let before = setup.transfers_of(SHARDS[1]).len();
    setup.assert_same(&setup.locate().unwrap());
    let after = setup.transfers_of(SHARDS[1]).split_off(before);
    assert!(
        after
            .iter()
            .all(|request| request.contains("bytes=2500000-")),
        "what came in the first run is not asked for again: {after:?}"
    );
}

#[test]
fn a_server_without_ranges_only_costs_a_new_start() {
    let setup = Setup::new();
    setup.hub.fault(Fault::NoRanges);
    setup.hub.fault(cut(WEIGHTS, 3_000_000));
    setup.assert_same(&setup.locate().unwrap());
}

#[test]
fn a_part_that_was_damaged_is_not_built_upon() {
    let setup = Setup::new();
    for _ in 0..3 {
        setup.hub.fault(cut(WEIGHTS, 2_000_000));
    }
    setup.locate().unwrap_err();
    setup.hub.clear_faults();
    let part = incomplete(setup.home.path()).unwrap();
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    setup.assert_same(&setup.locate().unwrap());
}

#[test]
fn a_wrong_length_is_noticed_and_downloaded_again() {
    let setup = Setup::new();
    setup.hub.fault(Fault::WrongLength {
        file: WEIGHTS.into(),
    });
    setup.hub.fault(Fault::WrongLength {
        file: "config.json".into(),
    });
    setup.assert_same(&setup.locate().unwrap());
}

#[test]
fn a_length_that_stays_wrong_is_reported() {
    let setup = Setup::new();
    for _ in 0..9 {
        setup.hub.fault(Fault::WrongLength {
            file: WEIGHTS.into(),
        });
    }
    assert_says(
        &setup.error(),
        &[WEIGHTS, "another length", "try again later"],
    );
    assert!(locate_with(REPO, None, &setup.offline()).is_err());
}

#[test]
fn a_revision_is_fetched_and_kept_beside_main() {
    let setup = Setup::new();
    let other = model_with(|dir| write_weights(&dir.join(WEIGHTS), 1000, 7));
    setup.hub.add_revision("v2", other.path());
    let main = setup.locate().unwrap();
    let v2 = directory(locate_with(REPO, Some("v2"), &setup.settings())).unwrap();
    assert_ne!(main, v2);
    let same = std::fs::read(v2.join(WEIGHTS)).unwrap()
        == std::fs::read(other.path().join(WEIGHTS)).unwrap();
    assert!(same);
    assert_eq!(
        directory(locate_with(REPO, Some("v2"), &setup.offline())).unwrap(),
        v2
    );
    assert_eq!(setup.locate().unwrap(), main);
}

// ---- refusals

#[test]
fn an_unknown_model_is_said_to_be_unknown_and_leaves_no_folder() {
    let setup = Setup::new();
    for token in [None, Some("a-token".to_string())] {
        let settings = HubSettings {
            token,
            ..setup.settings()
        };
        let error = locate_with("somebody/else", None, &settings).unwrap_err();
        assert_says(&one_line(error), &["no model somebody/else", "spelling"]);
        assert!(!settings.cache.join("models--somebody--else").exists());
    }
}

#[test]
fn an_unknown_revision_is_said_to_be_unknown() {
    let setup = Setup::new();
    let error = locate_with(REPO, Some("v9"), &setup.settings()).unwrap_err();
    assert_says(&one_line(error), &[REPO, "no revision v9", "main"]);
    for outside in ["../x", "/etc", "a//b", ""] {
        let error = locate_with(REPO, Some(outside), &setup.settings()).unwrap_err();
        assert_says(&one_line(error), &["--revision"]);
    }
}

#[test]
fn a_gated_model_says_how_to_get_in_and_opens_with_the_token() {
    let setup = Setup::new();
    setup.hub.fault(Fault::Gated {
        token: "good".into(),
    });
    let page = format!("{}/{REPO}", setup.hub.url());
    assert_says(&setup.error(), &["gated", "licence", "HF_TOKEN", &page]);
    let with = |token: &str| HubSettings {
        token: Some(token.into()),
        ..setup.settings()
    };
    let error = one_line(locate_with(REPO, None, &with("bad")).unwrap_err());
    assert_says(&error, &["gated", "licence", "HF_TOKEN"]);
    let snapshot = directory(locate_with(REPO, None, &with("good"))).unwrap();
    setup.assert_same(&snapshot);
}

#[test]
fn every_status_is_one_clear_line() {
    for (code, says) in [
        (401, "HF_TOKEN"),
        (403, "HF_TOKEN"),
        (404, "no model"),
        (429, "wait"),
    ] {
        let setup = Setup::new();
        setup.hub.fault(status("", code));
        assert_says(&setup.error(), &[says]);
    }
    let setup = Setup::new();
    setup.hub.fault(status(WEIGHTS, 503));
    assert_says(&setup.error(), &["503", "try again later"]);
    setup.hub.clear_faults();
    setup.assert_same(&setup.locate().unwrap());
}

/// The address of nobody: a port that was free a moment ago.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn no_network_is_one_clear_line() {
    let setup = Setup::new();
    let settings = HubSettings {
        endpoint: nobody(),
        ..setup.settings()
    };
    let message = one_line(locate_with(REPO, None, &settings).unwrap_err());
    assert_says(
        &message,
        &["cannot reach", &settings.endpoint, "--model tiny"],
    );
    let settings = HubSettings {
        endpoint: "not an address".into(),
        ..setup.settings()
    };
    let message = one_line(locate_with(REPO, None, &settings).unwrap_err());
    assert_says(&message, &["HF_ENDPOINT", "not an address"]);
}

#[test]
fn offline_makes_no_request_and_says_what_is_lacking() {
    let setup = Setup::new();
    let message = one_line(locate_with(REPO, None, &setup.offline()).unwrap_err());
    assert_says(&message, &["HF_HUB_OFFLINE", REPO, "unset"]);
    assert!(setup.hub.requests().is_empty());
}

#[test]
fn a_model_without_safetensors_is_refused_before_anything_is_downloaded() {
    for (file, says) in [
        ("weights.npz", "NumPy"),
        ("m.Q4_0.gguf", "GGUF"),
        ("x.bin", "PyTorch"),
    ] {
        let model = model_with(|dir| std::fs::write(dir.join(file), "x").unwrap());
        for unneeded in ["pytorch_model.bin", "original.pth"] {
            std::fs::remove_file(model.path().join(unneeded)).unwrap();
        }
        let setup = Setup::serving(model);
        assert_says(&setup.error(), &[REPO, "no safetensors", file, says]);
        assert!(!setup.hub.requests().iter().any(|r| r.contains("resolve")));
    }
}

#[test]
fn an_index_that_names_a_shard_the_hub_lacks_is_refused() {
    let model = sharded_model();
    std::fs::remove_file(model.path().join(SHARDS[1])).unwrap();
    assert_says(
        &Setup::serving(model).error(),
        &[REPO, SHARDS[1], "does not have"],
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_one_clear_line() {
    let setup = Setup::new();
    // Not even root may make a directory here.
    let read_only = ["/sys", "/System"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .unwrap();
    let file = setup.home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for cache in [Path::new(read_only).join("hub"), file.join("hub")] {
        let settings = HubSettings {
            cache: cache.clone(),
            ..setup.settings()
        };
        let message = one_line(locate_with(REPO, None, &settings).unwrap_err());
        assert_says(
            &message,
            &["cannot write", cache.to_str().unwrap(), "HF_HOME"],
        );
    }
    assert!(setup.hub.requests().is_empty());
}

#[test]
fn a_disk_that_takes_no_more_is_one_clear_line_and_costs_nothing_that_came() {
    let setup = Setup::new();
    // No file of the process may have more than 2,048 blocks, of 512 or 1,024 bytes by the shell.
    let limited = r#"trap "" XFSZ; ulimit -f 2048; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap());
    let (out, _) = output(start(command, &setup, &HashMap::new()));
    assert_says(&out, &["FAILED", "cannot write", REPO, "HF_HOME"]);
    setup.assert_same(&setup.locate().unwrap());
    let transfers = setup.transfers_of(WEIGHTS);
    assert!(
        !transfers.last().unwrap().contains(" bytes=0-"),
        "{transfers:?}"
    );
    assert!(
        transfers.last().unwrap().contains(" bytes="),
        "{transfers:?}"
    );
}

#[test]
fn a_file_where_the_model_should_be_in_the_cache_is_one_clear_line() {
    let setup = Setup::new();
    let cache = setup.settings().cache;
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(cache.join("models--somebody--a-model"), "").unwrap();
    assert_says(&setup.error(), &["cannot write", cache.to_str().unwrap()]);
}

// ---- whole processes: the environment, a kill, two at once

/// What the tests below run in a process of its own.
#[test]
#[ignore = "started by other tests, in a process of its own"]
fn child() {
    match locate(&std::env::var("CHILD_MODEL").unwrap(), None) {
        Ok(ModelFiles::Directory(path)) => println!("FOUND {}", path.display()),
        other => println!("FAILED {other:?}"),
    }
}

/// A process that locates the model by the environment alone.
fn spawn(setup: &Setup, more: &HashMap<&str, String>) -> Child {
    start(Command::new(std::env::current_exe().unwrap()), setup, more)
}

fn start(mut program: Command, setup: &Setup, more: &HashMap<&str, String>) -> Child {
    program
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .env("CHILD_MODEL", REPO)
        .env("HF_HOME", setup.home.path())
        .env("HF_ENDPOINT", setup.hub.url())
        .envs(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Its stdout and stderr.
fn output(child: Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn the_environment_is_obeyed() {
    let setup = Setup::new();
    setup.hub.fault(Fault::Gated {
        token: "good".into(),
    });
    let (out, _) = output(spawn(&setup, &HashMap::new()));
    assert_says(&out, &["FAILED", "gated"]);
    let token = HashMap::from([("HF_TOKEN", "good".to_string())]);
    let (out, err) = output(spawn(&setup, &token));
    let snapshots = setup
        .home
        .path()
        .join("hub/models--somebody--a-model/snapshots");
    assert_says(&out, &["FOUND", snapshots.to_str().unwrap()]);
    assert_says(
        &err,
        &[
            "Downloading somebody/a-model: 4 files, 4.00 MB",
            "Downloaded",
        ],
    );
    assert!(
        !err.contains('\r') && !err.contains('\u{1b}'),
        "no bar where there is no terminal"
    );

    let elsewhere = setup.home.path().join("elsewhere");
    let offline = HashMap::from([
        ("HF_HUB_OFFLINE", "1".to_string()),
        ("HF_HUB_CACHE", elsewhere.display().to_string()),
    ]);
    let asked = setup.hub.requests().len();
    let (out, _) = output(spawn(&setup, &offline));
    assert_says(&out, &["FAILED", "HF_HUB_OFFLINE", "elsewhere"]);
    assert_eq!(setup.hub.requests().len(), asked);
}

fn incomplete(home: &Path) -> Option<PathBuf> {
    let blobs = home.join("hub/models--somebody--a-model/blobs");
    let paths = std::fs::read_dir(blobs)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    paths
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "incomplete"))
}

/// Waits for something that another process does. The limit only ends a test that has failed.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn hold(setup: &Setup, byte: u64) {
    setup.hub.fault(Fault::HoldAt {
        file: WEIGHTS.into(),
        byte,
    });
}

fn wait_for_half(setup: &Setup, byte: u64) {
    wait_until("half of the weights", || {
        let part = incomplete(setup.home.path()).and_then(|path| path.metadata().ok());
        part.is_some_and(|metadata| metadata.len() >= byte)
    });
}

#[test]
fn a_killed_download_is_completed_from_where_it_was() {
    let setup = Setup::new();
    hold(&setup, 2_500_000);
    let mut child = spawn(&setup, &HashMap::new());
    wait_for_half(&setup, 2_500_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_says(
        &one_line(locate_with(REPO, None, &setup.offline()).unwrap_err()),
        &["HF_HUB_OFFLINE"],
    );
    setup.assert_same(&setup.locate().unwrap());
    let transfers = setup.transfers_of(WEIGHTS);
    assert!(
        transfers.last().unwrap().contains(" bytes=2500000-"),
        "{transfers:?}"
    );
}

#[test]
fn two_processes_at_once_download_once_and_both_get_the_model() {
    let setup = Setup::new();
    hold(&setup, 2_500_000);
    let first = spawn(&setup, &HashMap::new());
    wait_for_half(&setup, 2_500_000);
    let mut second = spawn(&setup, &HashMap::new());
    let mut line = String::new();
    let mut stderr = BufReader::new(second.stderr.take().unwrap());
    while !line.starts_with("Waiting for another process") {
        line.clear();
        assert_ne!(
            stderr.read_line(&mut line).unwrap(),
            0,
            "the second one did not wait"
        );
    }
    setup.hub.release();
    for child in [first, second] {
        assert_says(&output(child).0, &["FOUND"]);
    }
    assert_eq!(setup.transfers_of(WEIGHTS).len(), 1);
    setup.assert_same(&setup.locate().unwrap());
}

// ---- a tokenizer alone

fn tokenizer_of(setup: &Setup, settings: &HubSettings) -> anyhow::Result<PathBuf> {
    let found = directory(locate_tokenizer_with(REPO, settings))?;
    setup.assert_same(&found);
    Ok(found)
}

#[test]
fn of_a_tokenizer_no_weights_are_fetched_and_it_then_works_offline() {
    let setup = Setup::new();
    let found = tokenizer_of(&setup, &setup.settings()).unwrap();
    assert_eq!(names(&found), ["tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(setup.transfers_of(WEIGHTS), Vec::<String>::new());
    assert_eq!(tokenizer_of(&setup, &setup.offline()).unwrap(), found);
}

#[test]
fn a_model_is_completed_after_its_tokenizer() {
    let setup = Setup::new();
    let tokenizer = tokenizer_of(&setup, &setup.settings()).unwrap();
    assert_eq!(setup.locate().unwrap(), tokenizer);
    assert!(names(&tokenizer).contains(&WEIGHTS.to_owned()));
    let requests = setup.hub.requests().len();
    assert_eq!(tokenizer_of(&setup, &setup.settings()).unwrap(), tokenizer);
    assert_eq!(setup.hub.requests().len(), requests); // all of it is there
}

#[test]
fn a_tokenizer_that_cannot_be_had_is_one_line() {
    let setup = Setup::new();
    let error = tokenizer_of(&setup, &setup.offline()).unwrap_err();
    assert_says(&one_line(error), &[REPO, "HF_HUB_OFFLINE"]);
    std::fs::remove_file(setup.model.path().join("tokenizer.json")).unwrap();
    let setup = Setup::serving(setup.model);
    let error = tokenizer_of(&setup, &setup.settings()).unwrap_err();
    assert_says(&one_line(error), &[REPO, "no tokenizer.json"]);
}
