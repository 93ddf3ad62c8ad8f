//! The chat in the terminal, on the built-in model, with lines from a pipe.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// A chat whose conversations are kept in `folder`.
fn chat(folder: &Path, flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_part6-pipeline"));
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    pipes
        .arg("--chats")
        .arg(folder)
        .args(flags)
        .spawn()
        .unwrap()
}

/// Types all of the lines. What it shows, what it says beside, and whether it ended well.
fn typed(folder: &Path, flags: &[&str], lines: &str) -> (String, String, bool) {
    let mut child = chat(folder, flags);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.success(),
    )
}

fn kept(folder: &TempDir) -> Vec<Value> {
    let files = std::fs::read_dir(folder.path()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let json = paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    json.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect()
}

#[test]
fn a_conversation_is_answered_and_kept_and_goes_on_another_day() {
    let folder = tempdir().unwrap();
    let flags = ["--max-tokens", "12", "--ignore-eos"];
    let (shown, said, well) = typed(
        folder.path(),
        &flags,
        "Tell me a story.\n/save first\nAnd then?\n/stats\n",
    );
    assert!(well, "{said}");
    assert!(shown.contains("first token after"), "{shown}");
    let all = kept(&folder);
    let conversation = all
        .iter()
        .find(|file| file["messages"].as_array().unwrap().len() == 4);
    let messages = &conversation.unwrap()["messages"];
    let roles: Vec<&str> = (0..4)
        .map(|at| messages[at]["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(messages[2]["content"], "And then?");
    for answer in [&messages[1], &messages[3]] {
        let text = answer["content"].as_str().unwrap();
        assert!(
            !text.is_empty() && shown.contains(text.trim()),
            "{text:?} in {shown}"
        );
    }
    let (again, said, well) = typed(folder.path(), &flags, "/load first\nGo on.\n");
    assert!(well, "{said}");
    assert!(
        again.contains("> Tell me a story.\n") && again.contains("> And then?\n"),
        "{again}"
    );
}

#[test]
fn the_second_question_runs_only_what_is_new_of_the_conversation() {
    let folder = tempdir().unwrap();
    let story =
        "Once upon a time there was a little girl named Lily who loved to play outside. ".repeat(4);
    let lines = format!("{story}\nAnd then?\n/stats\n");
    let (shown, said, well) = typed(
        folder.path(),
        &["--max-tokens", "40", "--ignore-eos"],
        &lines,
    );
    assert!(well, "{said}");
    let line = shown.lines().find(|line| line.starts_with(" prompt"));
    let numbers: Vec<usize> = line
        .unwrap()
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    assert!(numbers[1] * 2 > numbers[0], "{shown}");
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let folder = tempdir().unwrap();
    let mut child = chat(folder.path(), &["--max-tokens", "2000", "--ignore-eos"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    input.write_all(b"Tell me a story.\n").unwrap();
    let mut first = [0; 1];
    output.read_exact(&mut first).unwrap(); // it has begun
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(killed.unwrap().success());
    input.write_all(b"/stats\n/quit\n").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let told = BufReader::new(child.stderr.take().unwrap()).lines();
    let told: Vec<String> = told.map(Result::unwrap).collect();
    assert!(told.iter().any(|line| line == "[stopped]"), "{told:?}");
    assert!(rest.contains("(TPOT)"), "{rest}");
    assert!(child.wait().unwrap().success());
    // What came before is part of the conversation.
    assert_eq!(kept(&folder)[0]["messages"][1]["role"], "assistant");
}

#[test]
fn a_mistake_in_a_line_does_not_end_the_conversation() {
    let folder = tempdir().unwrap();
    let lines = "/stat\n/load nothing\n/retry\n/model no/such/dir\n/stats\nHello\n/retry\n";
    let (shown, said, well) = typed(folder.path(), &["--max-tokens", "3", "--ignore-eos"], lines);
    assert!(well, "{said}");
    for part in [
        "there is no /stat",
        "nothing.json",
        "no answer to try again",
        "no/such/dir",
        "no answer yet",
        "temperature 0",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!shown.is_empty());
    assert_eq!(kept(&folder)[0]["messages"].as_array().unwrap().len(), 2);
}

#[test]
fn a_conversation_that_is_too_long_is_refused_before_it_runs() {
    let folder = tempdir().unwrap();
    let lines = format!("{}\n/new\nHello\n", "story ".repeat(5000));
    let (shown, said, well) = typed(
        folder.path(),
        &["--max-tokens", "3", "--ignore-eos"],
        &lines,
    );
    assert!(well, "{said}");
    assert!(said.contains("/new begins another one"), "{said}");
    assert!(!shown.is_empty());
}
