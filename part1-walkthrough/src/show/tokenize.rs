//! Step 1 on a terminal.

use std::io::Write;

use anyhow::Result;
use console::numbers::{count, plural};

use super::{Screen, piece};
use crate::trace::{Merging, Token, Trace, Word};

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
    let merging = trace.merging.as_ref();
    match merging.and_then(|merging| Some((merging, cut_most(&merging.words)?))) {
        Some((merging, word)) => merges(screen, merging, word),
        None => Ok(()),
    }
}

/// The word that says most about merges: it has the most pieces, and took the most steps to them.
fn cut_most(words: &[Word]) -> Option<&Word> {
    let merged = words.iter().filter(|word| !word.steps.is_empty());
    merged
        .rev()
        .max_by_key(|word| (word.pieces().len(), word.steps.len()))
}

/// Steps that have room on a screen.
const STEPS: usize = 12;

fn merges<W: Write>(screen: &mut Screen<'_, W>, merging: &Merging, word: &Word) -> Result<()> {
    screen.say(&format!(
        "How “{}” came about (byte pair encoding): it begins as {} {}. Then the two neighbours are joined \
         that stand first in a list of {} pairs, which was made before training, and so on until no pair of \
         neighbours is in the list. The place in the list is the rank:",
        piece(&word.text),
        word.bytes.len(),
        plural(word.bytes.len(), "byte"),
        count(merging.merges as u64)
    ))?;
    screen.report.blank()?;
    let mut rows = vec![vec![String::new(), String::new(), pieces(&word.bytes)]];
    let skipped = word.steps.len().saturating_sub(STEPS);
    rows.extend(word.steps.iter().skip(skipped).map(|step| {
        let joined = step.pieces.get(step.at).map_or("", String::as_str);
        vec![count(step.rank as u64), piece(joined), pieces(&step.pieces)]
    }));
    if skipped > 0 {
        rows[0][2].push_str(&format!(
            " … and {skipped} more {}",
            plural(skipped, "merge")
        ));
    }
    screen.picture(|report| report.text_table(&["rank", "makes", "pieces"], &rows, &[1, 2]))
}

fn pieces(pieces: &[String]) -> String {
    let pieces: Vec<String> = pieces.iter().map(|text| piece(text)).collect();
    pieces.join(" ")
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
