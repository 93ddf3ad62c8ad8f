//! The README shows what the program prints, and nothing else.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

mod common;

use common::{SENTENCE, agree, plan, shown, tiny, walked};
use console::report::Report;
use part1_walkthrough::extras::{compare, what_if};
use part1_walkthrough::show::{Pace, Stop};
use part1_walkthrough::subject::Plan;
use part1_walkthrough::trace::WhatIf;

/// Everything that the README may quote.
fn printed() -> String {
    let subject = tiny();
    let switched = Plan {
        what_if: Some(WhatIf::NoScaling),
        ..plan(SENTENCE)
    };
    let trace = walked(&subject, &switched);
    let mut text: String = Stop::all().map(|stop| shown(&trace, stop)).collect();
    let mut out = Vec::new();
    let mut report = Report::plain(&mut out);
    let outcome = trace.what_if.as_ref().unwrap();
    what_if::show::outcome(&mut report, Pace::new(None), &trace, outcome).unwrap();
    let stars = ["A movie has a famous star.", "The sun is a hot star."];
    let found = compare::compare(&subject, stars, None, None).unwrap();
    compare::show::comparison(&mut report, Pace::new(None), &found).unwrap();
    text.push_str(&String::from_utf8(out).unwrap());
    text
}

/// Blocks of program output: those marked `text`.
fn quotes(readme: &str) -> Vec<Vec<&str>> {
    let blocks = readme.split("```text\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().lines().collect())
        .collect()
}

/// The lines without the last column of a table that ends in milliseconds: no two runs have the same.
fn untimed(lines: &[&str]) -> String {
    if !lines[0].ends_with(" ms") {
        return lines.join("\n");
    }
    let cut = |line: &&str| {
        line.trim_end()
            .rsplit_once(' ')
            .map_or("", |(rest, _)| rest)
            .to_owned()
    };
    lines.iter().map(cut).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_quotes_the_program() {
    let readme = include_str!("../README.md").replace("\r\n", "\n");
    let printed = printed();
    let lines: Vec<&str> = printed.lines().collect();
    let quotes = quotes(&readme);
    assert!(quotes.len() > 10, "{}", quotes.len());
    for quote in quotes {
        let block = untimed(&quote);
        let found = lines
            .windows(quote.len())
            .any(|window| agree(&untimed(window), &block));
        assert!(found, "the program does not print this:\n{block}");
    }
}

#[test]
fn the_readme_is_short() {
    let readme = include_str!("../README.md");
    assert!(readme.lines().count() <= 330, "{}", readme.lines().count());
}
