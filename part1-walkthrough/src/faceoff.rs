//! Several tokenizers cut the same text: who needs how many tokens, and where do they disagree?
//!
//! Each token costs one pass through all layers when it is written, and room in the context when it is
//! read. A vocabulary that was trained on English has long pieces for English and single bytes for what
//! it rarely saw, so the same question costs a Hindi reader several times as much.

use std::io::Write;
use std::ops::Range;

use anyhow::{Result, ensure};
use serde::Serialize;
use shared::report::{Report, count, fixed};
use shared::tokenizer::Tokenizer;

use crate::tokenize::printable;

/// Columns that have room beside each other.
pub const MOST: usize = 4;

/// One question in three ways, if the viewer has none.
pub const EXAMPLES: [&str; 3] = [
    "Explain black holes to me",
    "मुझे ब्लैक होल के बारे में बताओ",
    "👩‍🚀 🚀 🕳️ ❤️ 🤷🏽",
];

/// What all tokenizers make of one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaceOff {
    /// The text.
    pub text: String,
    /// Its size in UTF-8.
    pub bytes: usize,
    /// Its size in Unicode code points.
    pub characters: usize,
    /// One per tokenizer.
    pub cuts: Vec<Cut>,
    /// The text, divided wherever all of them divide it.
    pub spans: Vec<Span>,
}

/// What one tokenizer makes of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cut {
    /// The tokenizer, in short.
    pub tokenizer: String,
    /// How many tokens it has to choose from.
    pub vocabulary: usize,
    /// The ids, without any special token around them.
    pub ids: Vec<u32>,
    /// What each stands for, made visible as in [`crate::trace::Token::piece`].
    pub pieces: Vec<String>,
    /// Bytes of text per token: the longer the pieces, the cheaper the text.
    pub bytes_per_token: f64,
}

/// A stretch of the text within which no two of the tokenizers agree on a boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Its bytes.
    pub bytes: Range<usize>,
    /// Per tokenizer: which of its tokens.
    pub tokens: Vec<Range<usize>>,
}

/// A tokenizer and what to call it.
pub struct Contender {
    name: String,
    tokenizer: Tokenizer,
}

impl Contender {
    /// Opens what `--tokenizer` names.
    ///
    /// # Errors
    /// If there is no such tokenizer, or if it cannot be read.
    pub fn open(name: &str) -> Result<Self> {
        Ok(Self {
            tokenizer: Tokenizer::open_alone(name)?,
            name: short(name),
        })
    }
}

/// A path's last part that says something.
fn short(name: &str) -> String {
    let name = name.trim_end_matches('/');
    let name = name.strip_suffix("/tokenizer.json").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.strip_suffix(".gguf").unwrap_or(last).to_owned()
}

/// Lets every tokenizer cut every text.
///
/// # Errors
/// If a text is empty, if there are too many tokenizers, or if one of them fails.
pub fn face_off<S: AsRef<str>>(contenders: &[Contender], texts: &[S]) -> Result<Vec<FaceOff>> {
    let most = MOST;
    ensure!(
        (1..=most).contains(&contenders.len()),
        "{} tokenizers, but there is room for {most} beside each other: leave some --tokenizer out",
        contenders.len()
    );
    texts
        .iter()
        .map(|text| one(contenders, text.as_ref()))
        .collect()
}

fn one(contenders: &[Contender], text: &str) -> Result<FaceOff> {
    ensure!(
        !text.is_empty(),
        "the text is empty; give it with --prompt \"…\""
    );
    let (mut cuts, mut ends) = (Vec::new(), Vec::new());
    for contender in contenders {
        let (cut, bytes) = cut(contender, text)?;
        ends.push(token_ends(&bytes, text));
        cuts.push(cut);
    }
    Ok(FaceOff {
        text: text.to_owned(),
        bytes: text.len(),
        characters: text.chars().count(),
        spans: spans(&ends, text.len()),
        cuts,
    })
}

/// With the bytes of each token.
fn cut(contender: &Contender, text: &str) -> Result<(Cut, Vec<Vec<u8>>)> {
    let tokenizer = &contender.tokenizer;
    let ids = tokenizer.encode_bare(text)?;
    let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
    for id in &ids {
        let piece = tokenizer.piece(*id)?;
        let stands_for = piece.map(|piece| piece.bytes).unwrap_or_default();
        pieces.push(ordered(printable(&stands_for)));
        bytes.push(stands_for);
    }
    let cut = Cut {
        tokenizer: contender.name.clone(),
        vocabulary: tokenizer.vocab_size(),
        bytes_per_token: text.len() as f64 / ids.len().max(1) as f64,
        ids,
        pieces,
    };
    Ok((cut, bytes))
}

/// A piece in a script that runs from right to left, with a mark behind it that ends the run: without
/// it a terminal that knows such scripts would put neighbouring pieces, and columns, in reverse order.
fn ordered(piece: String) -> String {
    const LEFT_TO_RIGHT_MARK: char = '\u{200E}';
    let right_to_left = |c: char| {
        matches!(c, '\u{590}'..='\u{8FF}' | '\u{FB1D}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFE}'
            | '\u{10800}'..='\u{10FFF}' | '\u{1E800}'..='\u{1EFFF}')
    };
    match piece.contains(right_to_left) {
        true => piece + &LEFT_TO_RIGHT_MARK.to_string(),
        false => piece,
    }
}

/// Where in the text each token ends; none if the tokens are not the text, because the tokenizer
/// changes it (to lower case, or to one spelling of an accent) or does not know a character.
fn token_ends(tokens: &[Vec<u8>], text: &str) -> Option<Vec<usize>> {
    // A SentencePiece tokenizer puts a blank before the first word.
    let added = tokens.concat().len().checked_sub(text.len())?;
    if tokens.concat().get(added..) != Some(text.as_bytes()) {
        return None;
    }
    let mut end = 0;
    let ends = tokens.iter().map(|token| {
        end += token.len();
        end.saturating_sub(added)
    });
    Some(ends.collect())
}

/// Divides the text at each byte where a token of every tokenizer ends.
fn spans(ends: &[Option<Vec<usize>>], length: usize) -> Vec<Span> {
    let known: Option<Vec<&Vec<usize>>> = ends.iter().map(Option::as_ref).collect();
    let Some(known) = known else {
        return Vec::new();
    };
    let Some((first, others)) = known.split_first() else {
        return Vec::new();
    };
    let mut shared: Vec<usize> = first.iter().copied().filter(|end| *end > 0).collect();
    shared.retain(|end| others.iter().all(|ends| ends.contains(end)));
    shared.dedup();
    let mut from = 0;
    let mut span = |to: usize| {
        // Tokens that end behind `from`, up to `to`; what ends at byte 0 belongs to the first span.
        let place = |ends: &&Vec<usize>, byte: usize| match byte {
            0 => 0,
            byte => ends.partition_point(|end| *end <= byte),
        };
        let tokens = known.iter().map(|ends| place(ends, from)..place(ends, to));
        let span = Span {
            bytes: from..to,
            tokens: tokens.collect(),
        };
        from = to;
        span
    };
    let all: Vec<Span> = shared.iter().map(|to| span(*to)).collect();
    debug_assert_eq!(shared.last(), Some(&length));
    all
}

/// Prints every face-off, each as a table of counts and the pieces beside each other.
///
/// # Errors
/// If it cannot be written.
pub fn show<W: Write>(report: &mut Report<W>, rounds: &[FaceOff]) -> Result<()> {
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
    Ok(())
}

fn row(cut: &Cut) -> Vec<String> {
    vec![
        cut.tokenizer.clone(),
        count(cut.vocabulary as u64),
        count(cut.ids.len() as u64),
        fixed(cut.bytes_per_token, 2),
    ]
}

/// A row for each span; the whole text is one if the tokens of some tokenizer are not the text.
fn pieces<W: Write>(report: &mut Report<W>, round: &FaceOff) -> Result<()> {
    let mut head = vec!["bytes"];
    head.extend(round.cuts.iter().map(|cut| cut.tokenizer.as_str()));
    let cell = |(cut, tokens): (&Cut, &Range<usize>)| cut.pieces[tokens.clone()].join(" ");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for span in &round.spans {
        let mut row = vec![format!("{}–{}", span.bytes.start, span.bytes.end)];
        row.extend(round.cuts.iter().zip(&span.tokens).map(cell));
        rows.push(row);
    }
    if rows.is_empty() {
        let mut row = vec!["all".to_owned()];
        row.extend(round.cuts.iter().map(|cut| cut.pieces.join(" ")));
        rows.push(row);
    }
    let all: Vec<usize> = (0..head.len()).collect();
    report.text_table(&head, &rows, &all)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(tokens: &[&str], text: &str) -> Option<Vec<usize>> {
        let tokens: Vec<Vec<u8>> = tokens
            .iter()
            .map(|token| token.as_bytes().to_vec())
            .collect();
        token_ends(&tokens, text)
    }

    #[test]
    fn a_text_is_divided_where_all_agree() {
        let a = ends(&["Expl", "ain", " black"], "Explain black");
        let b = ends(&["Explain", " bl", "ack"], "Explain black");
        let found = spans(&[a, b], 13);
        let bytes: Vec<Range<usize>> = found.iter().map(|span| span.bytes.clone()).collect();
        assert_eq!(bytes, [0..7, 7..13]);
        assert_eq!(found[0].tokens, [0..2, 0..1]);
        assert_eq!(found[1].tokens, [2..3, 1..3]);
    }

    #[test]
    fn the_blank_of_sentencepiece_is_not_of_the_text() {
        assert_eq!(ends(&[" ", "a", " b"], "a b"), Some(vec![0, 1, 3]));
        let found = spans(
            &[ends(&[" ", "a", " b"], "a b"), ends(&["a", " b"], "a b")],
            3,
        );
        assert_eq!(found[0].tokens, [0..2, 0..1]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_tokenizer_that_changes_the_text_has_no_places_in_it() {
        assert_eq!(ends(&["a", "b"], "AB"), None);
        assert_eq!(ends(&["a"], "ab"), None);
        assert!(spans(&[Some(vec![2]), None], 2).is_empty());
    }

    #[test]
    fn a_path_is_called_by_its_last_part() {
        let names = [
            "tiny",
            "a/b/",
            "x/gpt2-tokenizer/tokenizer.json",
            "m/smol.gguf",
            "openai/gpt2",
        ];
        let called = names.map(short);
        assert_eq!(called, ["tiny", "b", "gpt2-tokenizer", "smol", "gpt2"]);
    }
}
