//! What people read: each step, the symptoms, the comparison, the help; all within 80 columns.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod common;

use assert_cmd::Command;
use common::{SENTENCE, plan, shown, tiny, walked};
use console::report::Report;
use part1_walkthrough::experiment::Args;
use part1_walkthrough::extras::{compare, what_if};
use part1_walkthrough::show::{Pace, Stop};
use part1_walkthrough::subject::Plan;
use part1_walkthrough::trace::{Trace, WhatIf};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

fn part1(args: &[&str]) -> String {
    let output = Command::cargo_bin("part1-walkthrough")
        .unwrap()
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn fits(text: &str) {
    for line in text.lines() {
        assert!(line.width() <= 80, "{} columns: {line}", line.width());
    }
}

#[test]
fn every_step_of_the_built_in_sentence() {
    let trace = walked(&tiny(), &plan(SENTENCE));
    for stop in Stop::all() {
        let text = shown(&trace, stop);
        fits(&text);
        assert_settled!(format!("step_{stop}"), text);
    }
}

#[test]
fn the_chat_template_is_part_of_what_the_model_sees() {
    let chat = Plan {
        raw: false,
        ..plan("Explain black holes")
    };
    let trace = walked(&tiny(), &chat);
    assert_settled!("chat_tokenize", shown(&trace, Stop::Tokenize));
    assert_settled!("chat_decode", shown(&trace, Stop::Decode));
}

#[test]
fn a_mark_is_one_id_even_if_it_is_typed() {
    let trace = walked(&tiny(), &plan("<|im_start|>user hi"));
    assert_eq!((trace.tokens[0].id, trace.tokens[0].special), (1, true));
    let text = shown(&trace, Stop::Tokenize);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("one mark, which is one id wherever it comes from, typed or not"),
        "{text}"
    );
    assert!(!text.contains("no text can spell"), "{text}");
}

#[test]
fn what_is_said_of_neighbours_is_true_of_the_table_below() {
    let trace = walked(&tiny(), &plan(SENTENCE));
    let nearest = trace
        .embedding
        .tokens
        .iter()
        .flat_map(|token| &token.neighbours);
    let highest = nearest.map(|near| near.cosine).fold(0.0, f32::max);
    assert!(highest < 0.7, "{highest}");
    let text = shown(&trace, Stop::Embed);
    assert!(!text.contains("near 1"), "{text}");
}

/// None of these words is in a direction: where they stand is what training has put into the table.
#[test]
fn animals_lie_apart_from_the_sky_and_verbs_above_both() {
    let trace = walked(&tiny(), &plan(SENTENCE));
    let found = trace.embedding.meanings.as_ref().unwrap();
    let place = |word: &str| {
        let point = found
            .points
            .iter()
            .find(|point| point.piece == format!("␣{word}"));
        point.map(|point| (point.x, point.y)).unwrap()
    };
    let named: Vec<&String> = found
        .axes
        .iter()
        .flat_map(|axis| axis.from.iter().chain(&axis.to))
        .collect();
    assert!(
        found
            .points
            .iter()
            .all(|point| !named.contains(&&point.piece))
    );
    for animal in ["bird", "rabbit", "bear", "elephant"] {
        for sky in ["sun", "moon", "star", "planet"] {
            assert!(place(animal).0 > place(sky).0 + 0.1, "{animal} {sky}");
            for verb in ["is", "are", "was", "were"] {
                assert!(
                    place(verb).1 > place(animal).1.max(place(sky).1) + 0.1,
                    "{verb}"
                );
            }
        }
    }
}

/// Both sides are computed: the same pass, with the rotation left out and with it.
#[test]
fn without_positions_nobody_can_tell_who_bit_whom() {
    let trace = walked(&tiny(), &plan(SENTENCE));
    let found = trace.embedding.order.as_ref().unwrap();
    assert_eq!(
        found.texts,
        ["The dog bit the man.", "The man bit the dog."]
    );
    assert!(found.sums < 1e-4, "{}", found.sums);
    let (without, with) = (&found.without, &found.with);
    assert!(without.difference < 1e-4 * without.length, "{without:?}");
    assert!(with.difference > 0.05 * with.length, "{with:?}");
    assert!(without.cosines[..2].iter().all(|cosine| *cosine > 0.9999));
    assert!(with.cosines[0] > 0.9999 && with.cosines[1] < without.cosines[1]);
    for (a, b) in without.attention[0].iter().zip(&without.attention[1]) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    for shares in without.attention.iter().chain(&with.attention) {
        assert!(
            (shares.iter().sum::<f32>() - 1.0).abs() < 1e-5,
            "{shares:?}"
        );
    }
}

/// As part 3 counts: 12 tokens and 64 new ones leave 75 positions in a cache.
#[test]
fn a_cache_has_no_place_for_the_last_token_of_an_answer() {
    let trace = walked(&tiny(), &plan(SENTENCE));
    let found = &trace.recompute;
    let prompt = trace.tokens.len() as u64;
    let first_time: u64 = found.computed.iter().sum::<u64>() - found.repeated.iter().sum::<u64>();
    assert_eq!(first_time, prompt + 8 - 1);
    assert_eq!(found.kv_bytes, found.kv_bytes_per_token * first_time);
    for answer in &found.answers {
        let positions = prompt + answer.tokens - 1;
        assert_eq!(answer.kv_bytes, found.kv_bytes_per_token * positions);
    }
}

#[test]
fn flags_of_the_sampler_are_drawn_as_they_are() {
    let (_, sampling) = common::flags(&[
        "--temperature=1.5",
        "--top-k=4",
        "--min-p=0.02",
        "--repetition-penalty=1.3",
        "--seed=7",
    ]);
    let flagged = Plan {
        sampling,
        ..plan(SENTENCE)
    };
    let text = shown(&walked(&tiny(), &flagged), Stop::Predict);
    let bars = text
        .split("\n\n")
        .skip_while(|block| !block.contains("Sampling with"))
        .take(3);
    assert_settled!("predict_with_flags", bars.collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn what_breaks_without_a_piece() {
    let subject = tiny();
    for (name, switch) in [
        ("no_mask", WhatIf::NoMask),
        ("no_positions", WhatIf::NoPositions),
        ("no_scaling", WhatIf::NoScaling),
        ("zero_head", WhatIf::ZeroHead { layer: 7, head: 3 }),
    ] {
        let switched = Plan {
            what_if: Some(switch),
            ..plan(SENTENCE)
        };
        let trace = walked(&subject, &switched);
        let mut out = Vec::new();
        what_if::show::outcome(
            &mut Report::plain(&mut out),
            Pace::new(None),
            &trace,
            trace.what_if.as_ref().unwrap(),
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        fits(&text);
        assert_settled!(format!("what_if_{name}"), text);
    }
}

#[test]
fn one_word_in_two_sentences() {
    let subject = tiny();
    for (name, sentences) in [
        (
            "crane",
            ["The crane ate a fish.", "The crane lifted the steel."],
        ),
        (
            "bird",
            [
                "The fish looked at the bird.",
                "In the cage there was a small bird.",
            ],
        ),
    ] {
        let found = compare::compare(&subject, sentences, None, None).unwrap();
        let mut out = Vec::new();
        compare::show::comparison(&mut Report::plain(&mut out), Pace::new(None), &found).unwrap();
        let text = String::from_utf8(out).unwrap();
        fits(&text);
        assert_settled!(format!("compare_{name}"), text);
    }
}

#[test]
fn the_longest_prompt_that_is_drawn_fits_the_terminal() {
    let text = "a b c d e f g h ".repeat(8);
    let trace = walked(&tiny(), &plan(text.trim_end()));
    assert!(trace.tokens.len() > 60, "{}", trace.tokens.len());
    for stop in Stop::all() {
        fits(&shown(&trace, stop));
    }
}

#[test]
fn help_fits_the_terminal() {
    let help = console::cli::command::<Args>()
        .render_long_help()
        .to_string();
    insta::assert_snapshot!(help);
}

#[test]
fn the_json_line_is_the_trace() {
    let text = part1(&["--max-tokens=2", "--step=tokenize", "--json"]);
    let (report, json) = text.trim_end().rsplit_once('\n').unwrap();
    fits(report);
    let line: Value = serde_json::from_str(json).unwrap();
    assert_eq!(line["part"], "part1-walkthrough");
    let trace: Trace = serde_json::from_value(line["trace"].clone()).unwrap();
    assert_eq!(trace.text, SENTENCE);
    assert_eq!(trace.prediction.logits.0.len(), 4096);
    let again = serde_json::to_value(&trace).unwrap();
    assert!(same(&again, &line["trace"]), "{again}");
}

/// The same but for how many digits a number is written with.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-6 * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.len() == b.len();
            keys && a
                .iter()
                .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn steps_can_be_picked() {
    let text = part1(&["--from=decode", "--to=recompute", "--max-tokens=2"]);
    assert!(
        text.contains("5 of 6 · decode") && text.contains("6 of 6 · recompute"),
        "{text}"
    );
    assert!(!text.contains("4 of 6"), "{text}");
    let text = part1(&["--step=embed", "--pace=0.01", "--max-tokens=1"]);
    assert!(
        text.contains("2 of 6 · embed") && !text.contains("3 of 6"),
        "{text}"
    );
}

#[test]
fn each_picture_waits_for_a_key_and_the_end_of_stdin_is_one() {
    let run = |pace: &[&str], keys: &str| {
        let mut command = Command::cargo_bin("part1-walkthrough").unwrap();
        command
            .args(["--step", "embed"])
            .args(pace)
            .write_stdin(keys.to_owned());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let all = run(&[], "");
    assert_eq!(run(&["--pace", "enter"], "\n\n\n\n\n\n\n\n"), all);
    assert_eq!(run(&["--pace", "enter"], ""), all);
}
