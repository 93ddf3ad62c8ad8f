//! What was served is run again, and the same comes out.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod serving;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};
use serving::Server;
use tempfile::TempDir;

fn replay(file: &Path) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_part6-pipeline"));
    let mut command = Command::new(program);
    command.arg("replay").arg(file).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Requests of all kinds, some of them at the same time.
fn serve(file: &Path, args: &[&str]) {
    let record = ["--record", file.to_str().unwrap(), "--dtype", "f32"];
    let mut server = Server::start(&[&record, args].concat());
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let chats = [
        json!({"max_tokens": 12}),
        json!({"max_tokens": 9, "temperature": 0, "logprobs": true, "top_logprobs": 2}),
        json!({"max_tokens": 20, "seed": 3, "n": 3, "stop": [".", "the"]}),
        json!({"max_tokens": 40, "response_format": format}),
        json!({"max_tokens": 10, "presence_penalty": 1, "logit_bias": {"40": 5}, "top_p": 0.9}),
    ];
    thread::scope(|scope| {
        for chat in &chats {
            scope.spawn(|| assert_eq!(server.chat(chat.clone()).status, 200));
        }
    });
    let echo = json!({"prompt": ["Once upon a time", "The cat"], "echo": true, "logprobs": 1, "max_tokens": 1});
    assert_eq!(server.post("/v1/completions", &echo).status, 200);
    // Who leaves has no answer that could be recorded.
    drop(server.begin(
        "/v1/chat/completions",
        &serving::with_messages(json!({"stream": true, "max_tokens": 900})),
    ));
    server.wait_until_idle();
    server.signal("TERM");
    assert!(server.exit().success());
}

fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn what_was_served_comes_out_again_bit_for_bit_and_what_was_changed_does_not() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("record.jsonl");
    serve(&file, &[]);
    let all = records(&file);
    assert_eq!(all.len(), 7);
    assert!(
        all.iter()
            .any(|record| !record["beside"].as_array().unwrap().is_empty())
    );
    let output = replay(&file);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("all 7 answers are the same"));

    // Another seed, another token, another likelihood: each is found.
    let drawn = |record: &Value| {
        record["ask"]["sampling"]["temperature"] != 0.0 && record["ask"]["max_tokens"] == 12
    };
    let likely = |record: &Value| record["ask"]["logprobs"] == 2;
    let mut changed = all.clone();
    for record in &mut changed {
        if drawn(record) {
            let seed = record["ask"]["sampling"]["seed"].as_u64().unwrap();
            record["ask"]["sampling"]["seed"] = (seed ^ 1).into();
        } else if likely(record) {
            let logprob = &mut record["answers"][0]["tokens"][3][1];
            *logprob = (logprob.as_f64().unwrap() - 0.000_1).into();
        }
    }
    let lines: Vec<String> = changed.iter().map(Value::to_string).collect();
    let other = place.path().join("changed.jsonl");
    fs::write(&other, format!("{}\n{{\"half", lines.join("\n"))).unwrap();
    let output = replay(&other);
    assert_eq!(output.status.code(), Some(1));
    let told = told(&output);
    assert!(told.contains("2 of 7 answers are not the same"), "{told}");
    assert!(told.contains("differs from token"), "{told}");
    assert!(told.contains("not as likely as they were") && told.contains("1 lines were read past"));
}

#[test]
fn a_record_that_is_full_keeps_the_latest_and_a_disk_that_is_full_harms_nobody() {
    let full = Path::new("/dev/full");
    if full.exists() {
        let server = Server::start(&["--record", "/dev/full"]);
        for _ in 0..3 {
            server.assert_alive();
        }
        assert!(server.told_until("nothing more is recorded").len() < 20);
        server.assert_alive();
    }
    let nowhere = Path::new(env!("CARGO_BIN_EXE_part6-pipeline"));
    let args = ["serve", "--port", "0", "--record", "/no/such/folder/file"];
    let output = Command::new(nowhere).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("/no/such/folder/file"));
}

#[test]
fn a_file_without_records_says_so() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("empty");
    fs::write(&file, "no record\n").unwrap();
    let output = replay(&file);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("has no record"), "{}", told(&output));
}
