//! What is known of prompts, from one run of an engine to the next.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod engines;

use std::fs;
use std::path::{Path, PathBuf};

use engines::{Heard, ids, listen, model, runtime, settings, spawn};
use part6_pipeline::ask::Ask;
use part6_pipeline::engine::Engine;
use part6_pipeline::handle::State;
use part6_pipeline::kinds::CacheKind;
use part6_pipeline::quantized_cache::KvBits;
use part6_pipeline::thread::{Running, Settings};

fn keeping(folder: &Path) -> Settings {
    Settings {
        prefix_bytes: 1 << 30,
        prefix_folder: Some(folder.to_owned()),
        ..settings()
    }
}

/// Without a folder.
fn settings_of(prefix_bytes: u64) -> Settings {
    Settings {
        prefix_bytes,
        ..settings()
    }
}

fn get(running: &Running, ids: &[u32]) -> Heard {
    let ask = Ask {
        ids: ids.to_vec(),
        max_tokens: 12,
        ignore_eos: true,
        ..Ask::default()
    };
    let heard = listen(&mut running.handle.submit(ask).unwrap());
    assert_eq!(heard.fault, None);
    heard
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Two prompts with the first 64 tokens in common, and a short one.
fn prompts() -> [Vec<u32>; 3] {
    let fork = [&ids(64, 1)[..], &ids(40, 7)].concat();
    [ids(100, 1), fork, ids(20, 3)]
}

#[test]
fn an_engine_goes_on_from_what_the_last_one_knew_with_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let running = spawn(keeping(folder.path()));
    let cold = prompts().map(|ids| get(&running, &ids).ids(0));
    running.end().unwrap();
    assert_eq!(files(folder.path()).len(), 3, "a file for each branch");
    for _ in 0..2 {
        let running = spawn(keeping(folder.path()));
        let warm = prompts().map(|ids| get(&running, &ids));
        let cached = warm.each_ref().map(|heard| heard.cached.unwrap());
        assert_eq!(cached, [96, 96, 16]);
        assert_eq!(warm.map(|heard| heard.ids(0)), cold);
        running.end().unwrap();
        assert_eq!(files(folder.path()).len(), 3, "the same ones again");
    }
}

#[test]
fn a_file_that_is_damaged_or_cut_short_is_read_past_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let running = spawn(keeping(folder.path()));
    let cold = prompts().map(|ids| get(&running, &ids).ids(0));
    running.end().unwrap();
    let there = files(folder.path());
    let mut bytes = fs::read(&there[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&there[0], &bytes).unwrap();
    let whole = fs::read(&there[2]).unwrap();
    fs::write(&there[2], &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.path().join("prefix-of-mine"), "kept").unwrap();
    let running = spawn(keeping(folder.path()));
    let warm = prompts().map(|ids| get(&running, &ids));
    // The first file has the branch that was used longest ago, the third the short prompt. The second one has the
    // 64 tokens that both long ones begin with.
    assert_eq!(
        warm.each_ref().map(|heard| heard.cached),
        [Some(64), Some(96), Some(0)]
    );
    assert_eq!(warm.map(|heard| heard.ids(0)), cold);
    running.end().unwrap();
    assert_eq!(files(folder.path()).len(), 4, "what is not its own stays");
    let running = spawn(keeping(folder.path()));
    assert_eq!(get(&running, &prompts()[0]).cached, Some(96));
    running.end().unwrap();
}

#[test]
fn another_model_has_files_of_its_own_in_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = keeping(folder.path());
    draft.model.model = "tiny-draft".to_owned();
    for (settings, files_then) in [(keeping(folder.path()), 1), (draft, 2)] {
        let running = spawn(settings);
        assert_eq!(
            get(&running, &ids(40, 1)).cached,
            Some(0),
            "nothing of another model"
        );
        running.end().unwrap();
        assert_eq!(files(folder.path()).len(), files_then);
    }
    let mut rounded = keeping(folder.path());
    rounded.model = console::cli::ModelArgs {
        dtype: None,
        ..model()
    };
    let running = spawn(rounded);
    assert_eq!(
        get(&running, &ids(40, 1)).cached,
        Some(0),
        "nor of another type"
    );
    running.end().unwrap();
}

#[test]
fn what_was_used_latest_is_written_as_long_as_it_fits() {
    let folder = tempfile::tempdir().unwrap();
    let running = spawn(settings_of(1 << 30));
    get(&running, &ids(100, 0));
    let one = running.handle.status().prefix_bytes;
    running.end().unwrap();
    let running = spawn(Settings {
        prefix_bytes: one * 3,
        ..keeping(folder.path())
    });
    for seed in 0..6 {
        get(&running, &ids(100, seed));
    }
    running.end().unwrap();
    assert_eq!(files(folder.path()).len(), 3);
    let running = spawn(keeping(folder.path()));
    let cached = [0, 3, 5].map(|seed| get(&running, &ids(100, seed)).cached);
    assert_eq!(cached, [Some(0), Some(96), Some(96)]);
    running.end().unwrap();
}

#[test]
fn what_cannot_be_kept_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let packed = Settings {
        kind: CacheKind::Quantized(KvBits { keys: 8, values: 8 }),
        ..keeping(folder.path())
    };
    let nothing = Settings {
        prefix_bytes: 0,
        ..keeping(folder.path())
    };
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for (settings, why) in [
        (packed, "--kv-8bit"),
        (nothing, "--prefix-mb 0"),
        (keeping(&file), "making "),
    ] {
        let mut running = Engine::spawn(settings).unwrap();
        let state = runtime().block_on(running.handle.loaded());
        let State::Dead(said) = state else {
            panic!("{state:?}")
        };
        assert!(said.contains(why) && !said.contains('\n'), "{said}");
    }
}
