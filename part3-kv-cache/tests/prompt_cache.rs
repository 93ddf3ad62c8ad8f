//! A cache in a file: the same answer without the prefill, and never a wrong one.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use safetensors::SafeTensors;
use tempfile::TempDir;

/// 300 tokens and more.
const PROMPT: &str = "A black hole is a place in space where gravity is so strong that nothing can \
    escape, not even light. ";

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("prompt"), PROMPT.repeat(12)).unwrap();
        Self { directory }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache.safetensors")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("part3-kv-cache"));
        command.current_dir(self.directory.path());
        command
            .args(args)
            .args(["--raw", "--max-tokens", "12", "--json"]);
        command
    }

    /// The generated tokens and the milliseconds to the first.
    fn answer(&self, args: &[&str]) -> (serde_json::Value, f64) {
        let output = self.command(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let report: serde_json::Value =
            serde_json::from_str(stdout.lines().next_back().unwrap()).unwrap();
        let run = &report["runs"][0];
        (run["tokens"].clone(), run["ttft_ms"].as_f64().unwrap())
    }

    /// The one line of a refusal.
    fn refusal(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = error.lines().filter(|l| l.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{error}");
        lines[0].to_owned()
    }
}

const SAVE: [&str; 4] = ["save", "cache.safetensors", "--prompt-file", "prompt"];
const LOAD: [&str; 4] = ["load", "cache.safetensors", "--prompt-file", "prompt"];

#[test]
fn a_second_run_over_the_same_prompt_gives_the_same_tokens_at_once() {
    for kind in [
        &["--cache", "concat"][..],
        &["--cache", "prealloc"],
        &["--cache", "rotating:64"],
    ] {
        let place = Place::new();
        let (whole, first) = place.answer(&[&["--prompt-file", "prompt"], kind].concat());
        let (saving, _) = place.answer(&[&SAVE, kind].concat());
        let (loaded, second) = place.answer(&[&LOAD, kind].concat());
        assert_eq!((&saving, &loaded), (&whole, &whole), "{kind:?}");
        // One position instead of several hundred: no clock is that noisy.
        assert!(
            second < first / 2.0,
            "{kind:?}: {second} ms after {first} ms"
        );
    }
}

#[test]
fn the_time_to_the_first_token_has_the_prompt_in_it_and_both_are_told_in_one_line() {
    let place = Place::new();
    let output = place.command(&SAVE).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (report, json) = stdout.trim_end().rsplit_once('\n').unwrap();
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let runs = json["runs"].as_array().unwrap();
    let [computed, loaded] = [0, 1].map(|run| runs[run]["ttft_ms"].as_f64().unwrap());
    assert_eq!(runs[0]["tokens"], runs[1]["tokens"]);
    // Several hundred positions beside a file and one position.
    assert!(computed > 2.0 * loaded, "{computed} ms and {loaded} ms");
    let prompt = runs[0]["prompt_tokens"].as_u64().unwrap();
    let stored = format!("with {} of them from the file.", prompt - 1);
    assert!(
        report.contains("First token after ") && report.contains(&stored),
        "{report}"
    );
    assert!(
        report.contains("from file gives the same tokens as computed."),
        "{report}"
    );

    let longer = format!("{}The edge of a black hole is", PROMPT.repeat(12));
    std::fs::write(place.directory.path().join("prompt"), longer).unwrap();
    let output = place.command(&LOAD).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    let stored = format!("{} of the prompt's", prompt - 1);
    assert!(report.contains(&stored), "{report}");
}

#[test]
fn a_longer_prompt_goes_on_where_the_file_ends() {
    let place = Place::new();
    place.answer(&SAVE);
    let longer = format!("{}The edge of a black hole is called", PROMPT.repeat(12));
    std::fs::write(place.directory.path().join("prompt"), longer).unwrap();
    let (loaded, _) = place.answer(&LOAD);
    let (whole, _) = place.answer(&["--prompt-file", "prompt", "--cache", "concat"]);
    assert_eq!(loaded, whole);
}

#[test]
fn a_file_of_something_else_is_refused_with_the_reason() {
    let place = Place::new();
    place.answer(&SAVE);
    let with = |args: &[&str]| place.refusal(&[&LOAD, args].concat());
    let other_prompt = ["load", "cache.safetensors", "--prompt", "The sun"];
    let missing = ["load", "none.safetensors"];
    let reasons = [
        with(&["--dtype", "f32"]),
        with(&["--cache", "rotating"]),
        with(&["--cache", "off"]),
        place.refusal(&other_prompt),
        place.refusal(&missing),
        place.refusal(&["save", "no/such/place/cache"]),
    ];
    insta::assert_snapshot!(reasons.join("\n"));
}

#[test]
fn damage_in_each_part_of_the_file_is_refused() {
    let place = Place::new();
    place.answer(&SAVE);
    let whole = std::fs::read(place.cache()).unwrap();
    let (header, _) = SafeTensors::read_metadata(&whole).unwrap();
    let file = SafeTensors::deserialize(&whole).unwrap();
    let at = |name: &str| {
        let start = file.tensor(name).unwrap().data().as_ptr() as usize;
        start - whole.as_ptr() as usize
    };
    let places = [
        ("length of the header", 0),
        ("header", 8 + header / 2),
        ("end of the header", 8 + header - 1),
        ("ids", at("ids")),
        ("keys", at("layers.0.keys") + 100),
        ("values", at("layers.7.values") + 100),
        ("last byte", whole.len() - 1),
    ];
    for (name, index) in places {
        let mut damaged = whole.clone();
        damaged[index] ^= 0x10;
        std::fs::write(place.cache(), &damaged).unwrap();
        let reason = place.refusal(&LOAD);
        assert!(reason.contains("damaged"), "{name}: {reason}");
    }
    for length in [0, 7, 8 + header, whole.len() / 2, whole.len() - 1] {
        std::fs::write(place.cache(), &whole[..length]).unwrap();
        let reason = place.refusal(&LOAD);
        assert!(reason.contains("cut short"), "{length} bytes: {reason}");
    }
}

/// Files of an unfinished save.
fn unfinished(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let prefix = ".cache.safetensors.part-";
    names.filter(|name| name.starts_with(prefix)).count()
}

/// Ends a save of a longer cache as soon as it writes.
fn kill_while_it_saves(place: &Place) {
    let mut command = place.command(&["save", "cache.safetensors", "--prompt-file", "longer"]);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().unwrap();
    while unfinished(place.directory.path()) == 0 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_save_that_is_killed_leaves_the_old_file_whole_and_the_next_one_cleans_up() {
    let place = Place::new();
    place.answer(&SAVE);
    let old = std::fs::read(place.cache()).unwrap();
    std::fs::write(place.directory.path().join("longer"), PROMPT.repeat(35)).unwrap();
    for _ in 0..20 {
        kill_while_it_saves(&place);
        if unfinished(place.directory.path()) > 0 {
            break;
        }
        // It was quicker than this test: then the new file is whole.
        place.answer(&["load", "cache.safetensors", "--prompt-file", "longer"]);
        std::fs::write(place.cache(), &old).unwrap();
    }
    assert_eq!(unfinished(place.directory.path()), 1, "killed while saving");
    assert_eq!(std::fs::read(place.cache()).unwrap(), old);
    place.answer(&LOAD);
    place.answer(&SAVE);
    assert_eq!(unfinished(place.directory.path()), 0);
}
