//! Any answer can be explained: one that was served, by its id, and the last one of a chat.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod serving;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use serving::Server;
use tempfile::TempDir;

fn part6(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_part6-pipeline"));
    command.args(args).output().unwrap()
}

/// What it shows; every line fits.
fn explained(args: &[&str]) -> String {
    let output = part6(&[&["explain"], args].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    text
}

/// The one error line.
fn refusal(args: &[&str]) -> String {
    let output = part6(&[&["explain"], args].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let line = stderr.trim_end().lines().next_back().unwrap();
    assert!(
        line.starts_with("error: ") && !stderr.contains("panicked"),
        "{stderr}"
    );
    line.to_owned()
}

/// Two answers that were served and recorded: the second prompt begins as the first one. Their ids, and their texts.
fn serve(file: &Path) -> [(String, String); 2] {
    let mut server = Server::start(&["--record", file.to_str().unwrap()]);
    let question = "What is the sun, and what are the stars that we see in the sky at night?";
    let ask = |body: Value| {
        let reply = server.chat(body).json();
        let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
        (reply["id"].as_str().unwrap().to_owned(), text.to_owned())
    };
    let messages = json!([{"role": "user", "content": question}]);
    let first = ask(json!({"messages": messages, "max_tokens": 8, "temperature": 0}));
    let drawn = json!({
        "messages": messages, "max_tokens": 8, "temperature": 0.8, "top_p": 0.9, "min_p": 0.01, "seed": 4,
    });
    let second = ask(drawn);
    server.wait_until_idle();
    server.signal("TERM");
    assert!(server.exit().success());
    [first, second]
}

#[test]
fn an_answer_that_was_served_is_explained_by_its_id() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("record.jsonl");
    let name = file.to_str().unwrap();
    let [(first, text), (second, _)] = serve(&file);

    let shown = explained(&[&first, "--record", name]);
    let word = text.split(' ').next().unwrap();
    assert!(
        shown.contains(&format!("Token 1 of the answer to {first} is “{word}”.")),
        "{shown}"
    );
    assert!(
        shown.contains("<|im_start|>") && shown.contains("the logit lens"),
        "{shown}"
    );
    assert!(shown.contains("the likeliest one."), "{shown}");
    assert!(
        shown.contains("Nothing of the prompt was cached"),
        "{shown}"
    );

    let shown = explained(&[&second, "--record", name, "--token", "3"]);
    let filters = "Sampling with top-p 0.9, then min-p 0.01, then temperature 0.8";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&shown).contains(filters), "{shown}");
    assert!(shown.contains("top-p removes "), "{shown}");
    assert!(words(&shown).contains("16 of the "), "{shown}");
    assert!(
        words(&shown).contains("the model ran 1 position"),
        "{shown}"
    );

    // The last one is meant where no other is named; by its number, too.
    assert!(explained(&[name]).contains(&second));
    assert!(explained(&["0", "--record", name]).contains(&first));
}

#[test]
fn the_walk_is_a_page_where_it_has_room() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("record.jsonl");
    let name = file.to_str().unwrap();
    let [(first, _), _] = serve(&file);
    let page = place.path().join("page.html");
    let html = page.to_str().unwrap();
    explained(&[
        &first, "--record", name, "--token", "2", "--html", html, "--whole",
    ]);
    let written = fs::read_to_string(&page).unwrap();
    assert!(written.starts_with("<!") && written.contains("im_start"));

    // Longer ones are shown without the wide pictures.
    let long = edited(&file, |record| {
        let ids: Vec<u64> = (0..100).map(|i| 300 + i).collect();
        record["ask"]["ids"] = json!(ids);
    });
    let long = long.to_str().unwrap();
    let shown = explained(&[long]);
    assert!(
        shown.contains("the logit lens") && !shown.contains("1 tokenize"),
        "{shown}"
    );
    let line = refusal(&[long, "--html", html]);
    assert!(
        line.contains(
            "have 100 tokens up to there, and the pictures of all steps have room for 64"
        ),
        "{line}"
    );
}

/// A copy of the record whose last line was changed.
fn edited(file: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let text = fs::read_to_string(file).unwrap();
    let mut record: Value = serde_json::from_str(text.lines().next_back().unwrap()).unwrap();
    change(&mut record);
    let path = file.with_file_name("edited.jsonl");
    fs::write(&path, record.to_string() + "\n").unwrap();
    path
}

#[test]
fn what_cannot_be_explained_is_told_in_one_line() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("record.jsonl");
    let name = file.to_str().unwrap();
    let [(first, _), _] = serve(&file);
    let nobody = refusal(&["chatcmpl-0", "--record", name]);
    assert!(nobody.contains("has no answer \"chatcmpl-0\""), "{nobody}");
    let no_record = refusal(&[&first]);
    assert!(
        no_record.contains("for an id, name the record with --record"),
        "{no_record}"
    );
    let beyond = refusal(&[name, "--token", "99"]);
    assert_eq!(beyond, "error: the answer has 8 tokens, and no number 99");
    let choice = refusal(&[name, "--choice", "2"]);
    assert_eq!(choice, "error: the ask has 1 answer, and no number 2");
    let tell = |change: fn(&mut Value)| refusal(&[edited(&file, change).to_str().unwrap()]);
    let long = tell(|record| record["ask"]["ids"] = json!(vec![5; 300]));
    assert!(
        long.contains("have 300 tokens up to there, and the walk has room for 256"),
        "{long}"
    );
    let foreign = tell(|record| record["ask"]["ids"] = json!([4_000_000_000_u32]));
    assert!(
        foreign.contains("beyond the vocabulary of tiny"),
        "{foreign}"
    );
    let model = tell(|record| record["engine"]["model"] = json!("/no/such/model"));
    assert!(
        model.contains("part 1 cannot walk through /no/such/model"),
        "{model}"
    );
}

#[test]
fn the_chat_explains_its_last_answer() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_part6-pipeline"));
    command
        .args(["--max-tokens", "8", "--chats"])
        .arg(folder.path());
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let lines = "/explain\nWhat is rain?\n/explain 2\n/explain 99\nAnd snow?\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("error: there was no answer yet"),
        "{stderr}"
    );
    assert!(
        stdout.contains("Token 2 of the answer to ask 0 is “"),
        "{stdout}"
    );
    assert!(
        stderr.contains("error: the answer has 8 tokens, and no number 99"),
        "{stderr}"
    );
}
