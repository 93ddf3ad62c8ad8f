//! Several tokenizers beside each other.

use std::borrow::Cow;
use std::io::Write;
use std::ops::Range;

use anyhow::Result;
use console::numbers::{count, fixed};
use console::report::Report;

use super::{Cut, FaceOff, Span};
use crate::show::picture::is_right_to_left;

/// Rows of pieces that are shown of a text.
const MOST_ROWS: usize = 200;

/// Prints every face-off, each as a table of counts and the pieces beside each other.
pub fn face_off<W: Write>(report: &mut Report<W>, rounds: &[FaceOff]) -> Result<()> {
    for round in rounds {
        report.card(&[
            ("text", round.text.as_str()),
            (
                "size",
                &format!(
                    "{} characters, {} bytes in UTF-8",
                    round.characters, round.bytes
                ),
            ),
        ])?;
        report.blank()?;
        let rows: Vec<Vec<String>> = round.cuts.iter().map(row).collect();
        report.table(
            &["tokenizer", "vocabulary", "tokens", "bytes per token"],
            &rows,
        )?;
        report.blank()?;
        pieces(report, round)?;
        report.blank()?;
    }
    totals(report, rounds)
}

/// Prints how each tokenizer cuts single words: a row per word, a bar between two pieces.
pub fn words<W: Write>(report: &mut Report<W>, words: &[FaceOff]) -> Result<()> {
    let Some(first) = words.first() else {
        return Ok(());
    };
    let mut head = vec!["alone"];
    head.extend(first.cuts.iter().map(|cut| cut.tokenizer.as_str()));
    let cell = |cut: &Cut| {
        let pieces: Vec<_> = cut.pieces.iter().map(|piece| ordered(piece)).collect();
        pieces.join("|")
    };
    let row = |word: &FaceOff| {
        let mut row = vec![format!("{:?}", word.text)];
        row.extend(word.cuts.iter().map(cell));
        row
    };
    let rows: Vec<Vec<String>> = words.iter().map(row).collect();
    let all: Vec<usize> = (0..head.len()).collect();
    report.blank()?;
    Ok(report.text_table(&head, &rows, &all)?)
}

fn row(cut: &Cut) -> Vec<String> {
    vec![
        cut.tokenizer.clone(),
        count(cut.vocabulary as u64),
        count(cut.ids.len() as u64),
        fixed(cut.bytes_per_token, 2),
    ]
}

fn pieces<W: Write>(report: &mut Report<W>, round: &FaceOff) -> Result<()> {
    let mut head = vec!["bytes"];
    head.extend(round.cuts.iter().map(|cut| cut.tokenizer.as_str()));
    let cell = |(cut, tokens): (&Cut, &Range<usize>)| {
        let pieces = cut.pieces[tokens.clone()]
            .iter()
            .map(|piece| ordered(piece));
        pieces.collect::<Vec<_>>().join(" ")
    };
    // One tokenizer alone leaves room for them.
    let with_ids = round.cuts.len() == 1;
    if with_ids {
        head.push("ids");
    }
    let row = |span: &Span| {
        let mut row = vec![format!("{}–{}", span.bytes.start, span.bytes.end)];
        row.extend(round.cuts.iter().zip(&span.tokens).map(cell));
        row.extend(with_ids.then(|| ids(&round.cuts[0].ids[span.tokens[0].clone()])));
        row
    };
    let rows: Vec<Vec<String>> = round.spans.iter().take(MOST_ROWS).map(row).collect();
    let all: Vec<usize> = (0..head.len()).collect();
    report.text_table(&head, &rows, &all)?;
    if let more @ 1.. = round.spans.len().saturating_sub(MOST_ROWS) {
        report.note(&format!("… and {} more", count(more as u64)))?;
    }
    Ok(())
}

fn ids(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" ")
}

/// A piece in a script that runs from right to left, with a mark behind it that ends the run:
/// without it a terminal that knows such scripts would put neighbouring pieces, and columns, in
/// reverse order.
fn ordered(piece: &str) -> Cow<'_, str> {
    const LEFT_TO_RIGHT_MARK: char = '\u{200E}';
    if piece.contains(is_right_to_left) {
        format!("{piece}{LEFT_TO_RIGHT_MARK}").into()
    } else {
        piece.into()
    }
}

/// The tokens of all texts in one table.
fn totals<W: Write>(report: &mut Report<W>, rounds: &[FaceOff]) -> Result<()> {
    let Some(first) = rounds.first().filter(|_| rounds.len() > 1) else {
        return Ok(());
    };
    let names: Vec<String> = (1..=rounds.len())
        .map(|text| format!("text {text}"))
        .collect();
    let mut head = vec!["tokens"];
    head.extend(names.iter().map(String::as_str));
    let row = |(index, cut): (usize, &Cut)| {
        let mut row = vec![cut.tokenizer.clone()];
        row.extend(
            rounds
                .iter()
                .map(|round| count(round.cuts[index].ids.len() as u64)),
        );
        row
    };
    let rows: Vec<Vec<String>> = first.cuts.iter().enumerate().map(row).collect();
    report.table(&head, &rows)?;
    report.blank()?;
    report.note(
        "Each token is one pass through the model when it is written, and one place in the context when \
         it is read.",
    )?;
    Ok(())
}
