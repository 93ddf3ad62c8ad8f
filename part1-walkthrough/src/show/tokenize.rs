//! Step 1 on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::plural;

use super::{Screen, piece};
use crate::trace::{Token, Trace};

/// Bytes that have room in a cell.
const BYTES: usize = 10;

pub(super) fn show<W: Write>(screen: &mut Screen<'_, W>, trace: &Trace) -> Result<()> {
    screen.say(
        "A model computes with numbers. The tokenizer cuts the text into pieces that it has a number \
         for: ␣ is a space and belongs to the word that follows it, ↵ is a line break.",
    )?;
    screen.report.blank()?;
    let rows: Vec<Vec<String>> = trace.tokens.iter().enumerate().map(row).collect();
    let head = ["#", "piece", "id", "bytes", "in the vocabulary"];
    screen.picture(|report| report.text_table(&head, &rows, &[0, 1, 3, 4]))?;
    screen.say(&summary(&trace.tokens, trace.model.vocabulary))?;
    screen.report.blank()?;
    Ok(())
}

fn row((position, token): (usize, &Token)) -> Vec<String> {
    vec![
        position.to_string(),
        piece(&token.piece),
        token.id.to_string(),
        hex(&token.bytes),
        if token.special {
            "a mark, no text".to_owned()
        } else {
            piece(&token.spelling)
        },
    ]
}

fn hex(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes
        .iter()
        .take(BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let more = if bytes.len() > BYTES { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}

fn summary(tokens: &[Token], vocabulary: usize) -> String {
    let text = tokens.iter().filter(|token| !token.special);
    let bytes: usize = text.clone().map(|token| token.bytes.len()).sum();
    let pieces = text.count();
    let marks = tokens.len() - pieces;
    let marks = match marks {
        0 => String::new(),
        1 => " and one mark, which is one id wherever it comes from, typed or not".to_owned(),
        n => {
            format!(" and {n} marks, each of which is one id wherever it comes from, typed or not")
        }
    };
    format!(
        "{pieces} {} for {bytes} {} of text{marks}: ids [B, L] = [1, {}], each a row number \
         between 0 and {}. That one is larger than another means nothing.",
        plural(pieces, "piece"),
        plural(bytes, "byte"),
        tokens.len(),
        vocabulary - 1
    )
}
