//! Several tokenizers on one text, as the terminal shows them.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::fs;

use assert_cmd::Command;
use console::text::WIDTH;
use serde_json::Value;
use shared::testing::fixtures;
use unicode_width::UnicodeWidthStr;

fn program(tokenizers: &[&str]) -> Command {
    let mut command = Command::cargo_bin("part1-walkthrough").unwrap();
    for tokenizer in tokenizers {
        command.args(["--tokenizer", tokenizer]);
    }
    command
}

/// What is printed, which fits the frame.
fn stdout(command: &mut Command) -> String {
    let run = command.assert().success();
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('{')) {
        assert!(line.width() <= WIDTH, "{} columns: {line}", line.width());
    }
    text
}

#[track_caller]
fn fails(command: &mut Command, words: &[&str]) {
    let run = command.assert().code(1);
    let line = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert_eq!(line.trim().lines().count(), 1, "{line}");
    for word in words {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
}

/// The two real tokenizers, if they have been fetched.
fn real() -> Option<[String; 2]> {
    let paths = [fixtures::gpt2_tokenizer()?, fixtures::smollm2()?];
    Some(paths.map(|path| path.to_str().unwrap().to_owned()))
}

#[test]
fn english_hindi_and_emoji_are_the_examples() {
    let Some([gpt2, smollm2]) = real() else {
        return;
    };
    insta::assert_snapshot!(stdout(&mut program(&["tiny", &gpt2, &smollm2])));
}

#[test]
fn wide_and_right_to_left_characters_fit_the_frame() {
    let Some([gpt2, smollm2]) = real() else {
        return;
    };
    let text = "שלום עולם, 猫が魚を食べた。 مرحبا بالعالم";
    let mut command = program(&["tiny", &gpt2, &smollm2, "tiny"]);
    insta::assert_snapshot!(stdout(command.args(["--prompt", text])));
}

#[test]
fn the_viewers_sentence_is_cut_by_the_built_in_tokenizer() {
    insta::assert_snapshot!(stdout(
        program(&["tiny"]).args(["--prompt", "The crane ate a fish."])
    ));
}

#[test]
fn the_json_line_has_ids_pieces_and_spans() {
    let text = stdout(program(&["tiny", "tiny"]).args(["--prompt", "The crane", "--json"]));
    let json: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let round = &json["face_offs"][0];
    let cuts = round["cuts"].as_array().unwrap();
    assert_eq!((cuts.len(), &cuts[0]), (2, &cuts[1]));
    assert_eq!(
        round["spans"][0]["bytes"],
        serde_json::json!({"start": 0, "end": 3})
    );
    assert_eq!(cuts[0]["pieces"][0], "The");
    assert_eq!(
        cuts[0]["ids"].as_array().unwrap().len(),
        cuts[0]["pieces"].as_array().unwrap().len()
    );
}

#[test]
fn what_is_no_tokenizer_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    fails(
        &mut program(&["tiny", "nobody"]),
        &["--tokenizer \"nobody\"", "owner/name"],
    );
    fails(
        &mut program(&["tiny", "./no/such.gguf"]),
        &["such.gguf", "tokenizer.json"],
    );
    fails(&mut program(&[path]), &[path, "no tokenizer.json"]);
    let broken = dir.path().join("tokenizer.json");
    fs::write(&broken, "{\"model\": ").unwrap();
    fails(&mut program(&[path]), &[path, "tokenizer.json"]);
    fails(
        &mut program(&[broken.to_str().unwrap()]),
        &[path, "tokenizer.json"],
    );
}

#[test]
fn too_many_tokenizers_and_an_empty_text_are_one_line() {
    fails(&mut program(&["tiny"; 5]), &["5 tokenizers", "room for 4"]);
    fails(
        program(&["tiny"]).args(["--prompt", ""]),
        &["empty", "--prompt"],
    );
}
