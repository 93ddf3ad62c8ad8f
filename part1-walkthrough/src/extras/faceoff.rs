//! Several tokenizers cut the same text: who needs how many tokens, and where do they disagree?
//!
//! Each token costs one pass through all layers when it is written, and room in the context when it
//! is read. A vocabulary that was trained on English has long pieces for English and single bytes
//! for what it rarely saw, so the same question costs a Hindi reader several times as much.

pub mod show;

use std::ops::Range;

use anyhow::{Result, ensure};
use serde::Serialize;
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

/// Words of the series' first text, each alone: one piece, several, one with its space.
pub const WORDS: [&str; 4] = ["cat", "unbelievable", "ChatGPT", " hello"];

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
    /// The text, divided before a blank wherever all of them divide it; one span, if the tokens of
    /// a tokenizer are not the text.
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

/// A stretch of the text that no token of any of them crosses: usually a word.
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
        spans: spans(&ends, text).unwrap_or_else(|| vec![whole(text, &cuts)]),
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
        pieces.push(printable(&stands_for));
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

/// Divides the text where a token of every tokenizer ends and a blank follows; `None` if the ends
/// of one are not known.
fn spans(ends: &[Option<Vec<usize>>], text: &str) -> Option<Vec<Span>> {
    let ends: Vec<&Vec<usize>> = ends.iter().map(Option::as_ref).collect::<Option<_>>()?;
    let before_blank = |at: usize| {
        let rest = text.get(at..); // none within a character
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let mut cuts: Vec<usize> = ends.first()?.to_vec();
    cuts.retain(|at| *at > 0 && before_blank(*at) && ends.iter().all(|ends| ends.contains(at)));
    cuts.dedup();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    // A token belongs to the span that it ends in; one that ends at byte 0 to the first.
    let first = |ends: &Vec<usize>, start: usize| match start {
        0 => 0,
        start => ends.partition_point(|end| *end <= start),
    };
    let span = |(from, to): (usize, &usize)| Span {
        bytes: from..*to,
        tokens: ends
            .iter()
            .map(|ends| first(ends, from)..first(ends, *to))
            .collect(),
    };
    Some(starts.zip(&cuts).map(span).collect())
}

fn whole(text: &str, cuts: &[Cut]) -> Span {
    Span {
        bytes: 0..text.len(),
        tokens: cuts.iter().map(|cut| 0..cut.ids.len()).collect(),
    }
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
    fn a_text_is_divided_before_a_blank_where_all_agree() {
        let text = "Explain black";
        let a = ends(&["Expl", "ain", " black"], text);
        let b = ends(&["Explain", " bl", "ack"], text);
        let found = spans(&[a.clone(), b], text).unwrap();
        let bytes: Vec<Range<usize>> = found.iter().map(|span| span.bytes.clone()).collect();
        assert_eq!(bytes, [0..7, 7..13]);
        assert_eq!(found[0].tokens, [0..2, 0..1]);
        assert_eq!(found[1].tokens, [2..3, 1..3]);
        let across = ends(&["Expl", "ain b", "lack"], text);
        assert_eq!(spans(&[a, across], text).unwrap().len(), 1);
    }

    #[test]
    fn the_blank_of_sentencepiece_is_not_of_the_text() {
        let with_blank = ends(&[" ", "a", " b"], "a b");
        assert_eq!(with_blank, Some(vec![0, 1, 3]));
        let found = spans(&[with_blank, ends(&["a", " b"], "a b")], "a b").unwrap();
        assert_eq!(found[0].tokens, [0..2, 0..1]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_tokenizer_that_changes_the_text_has_no_places_in_it() {
        assert_eq!(ends(&["a", "b"], "AB"), None);
        assert_eq!(ends(&["a"], "ab"), None);
        assert_eq!(spans(&[Some(vec![2]), None], "ab"), None);
    }

    #[test]
    fn no_span_ends_within_a_character() {
        let text = "é é";
        let bytes: Vec<Vec<u8>> = text.bytes().map(|byte| vec![byte]).collect();
        let found = spans(&[token_ends(&bytes, text)], text).unwrap();
        let bytes: Vec<Range<usize>> = found.iter().map(|span| span.bytes.clone()).collect();
        assert_eq!(bytes, [0..2, 2..5]);
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
