//! "The crane ate a fish." and "The crane lifted the steel.": one word in two sentences.
//!
//! The embedding gives a word the same vector everywhere; attention makes it depend on the
//! sentence. But only on the part *before* it: in a decoder no token sees what comes later. After
//! the same words "crane" has the same vector whatever follows. To see the difference the sentence
//! is then read twice: in the repetition the word has the whole sentence behind it.

pub mod show;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype};
use serde::{Deserialize, Serialize};
use shared::layers::to_f32;
use shared::tokenizer::Tokenizer;

use crate::candidates::Candidates;
use crate::embed::cosine;
use crate::pass::Pass;
use crate::pictures::{contributions, norms};
use crate::subject::Subject;
use crate::tokenize::{PICTURE_LIMIT, tokens};
use crate::trace::{Candidate, ModelFacts, Token, WhatIf};

/// Likeliest next tokens that are kept.
const NEXT: usize = 3;
/// Heads that are listed.
const HEADS: usize = 5;

/// `--compare`: one word in two sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The model that was watched.
    pub model: ModelFacts,
    /// The shared word, without blanks around it.
    pub word: String,
    /// The word where it first stands in each sentence.
    pub first: Drift,
    /// Whether the same tokens stand before it in both sentences. A causal model then cannot tell
    /// the two apart at that place: what comes later does not count.
    pub same_before: bool,
    /// If so, and unless the mask is off: the word once more, in a repetition of each sentence
    /// (Springer et al. 2024, arXiv 2402.15449): there it has seen the whole sentence.
    pub repeated: Option<Drift>,
    /// What was left out, if anything.
    pub what_if: Option<WhatIf>,
}

/// One place in each of two texts, followed through the layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The texts.
    pub sides: [Side; 2],
    /// After the embedding and after each layer: cosine between the two vectors.
    pub cosines: Vec<f32>,
    /// Length of the difference of the two vectors, likewise.
    pub distances: Vec<f32>,
    /// For each text, likewise: the likeliest tokens after the word, had this layer been the last one.
    pub next: [Vec<Vec<Candidate>>; 2],
    /// The heads whose contributions differ most between the texts, most first.
    pub heads: Vec<HeadShift>,
}

/// One of two texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Position of the word's last token: the one that has seen the whole word.
    pub position: usize,
}

/// What one head did to the shared word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadShift {
    /// Its layer.
    pub layer: usize,
    /// Its number.
    pub head: usize,
    /// Length of the difference of what it added in the two texts.
    pub shift: f32,
    /// The word's attention in each text, `[L]` of that text.
    pub attention: [Vec<f32>; 2],
}

/// Follows the word that both sentences share through the layers.
///
/// # Errors
/// If the sentences share no word (or not `word`), if one is empty or too long for the pictures, or
/// if an operation fails.
pub fn compare(
    subject: &Subject,
    texts: [&str; 2],
    word: Option<&str>,
    switch: Option<WhatIf>,
) -> Result<Comparison> {
    ensure!(
        texts[0] != texts[1],
        "both sentences are {:?}: give two that differ",
        texts[0]
    );
    let word = shared_word(texts, word)?;
    let sides = [0, 1].map(|i| side(&subject.tokenizer, texts[i], &word, 1));
    let first = drift(subject, both(sides)?, switch)?;
    let before = |side: &Side| -> Vec<u32> {
        side.tokens[..=side.position]
            .iter()
            .map(|token| token.id)
            .collect()
    };
    let same_before = before(&first.sides[0]) == before(&first.sides[1]);
    let blind = same_before && switch != Some(WhatIf::NoMask);
    let repeated = blind.then(|| {
        let twice = texts.map(|text| format!("{text} {text}"));
        let sides = [0, 1].map(|i| {
            let times = occurrences(texts[i], &word) + 1;
            side(&subject.tokenizer, &twice[i], &word, times)
        });
        drift(subject, both(sides)?, switch)
    });
    Ok(Comparison {
        model: subject.decoder.facts().clone(),
        word,
        first,
        same_before,
        repeated: repeated.transpose()?,
        what_if: switch,
    })
}

fn both(sides: [Result<Side>; 2]) -> Result<[Side; 2]> {
    let [a, b] = sides;
    Ok([a?, b?])
}

/// What stands between blanks and punctuation: an emoji is a word, too.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| {
        let punctuation = matches!(c, '¿' | '¡' | '«' | '»' | '\u{2010}'..='\u{205E}' | '\u{3001}'..='\u{301F}')
            || (c.is_ascii_punctuation() && c != '\'');
        c.is_whitespace() || punctuation
    };
    text.split(ends).filter(|word| !word.is_empty())
}

/// "The" and "the" are one word.
fn same(word: &str, other: &str) -> bool {
    word.to_lowercase() == other.to_lowercase()
}

/// The longest word of the first sentence that the second has, too; the first of equally long ones.
fn shared_word([a, b]: [&str; 2], wanted: Option<&str>) -> Result<String> {
    let common = |word: &&str| words(b).any(|other| same(other, word));
    if let Some(word) = wanted {
        ensure!(
            words(a).any(|other| same(other, word)) && common(&word),
            "the word {word:?} is not in both sentences"
        );
        return Ok(word.to_owned());
    }
    let mut shared: Vec<&str> = words(a).filter(common).collect();
    shared.sort_by_key(|word| std::cmp::Reverse(word.chars().count())); // stable
    let longest = shared.first().with_context(|| {
        format!("{a:?} and {b:?} have no word in common: give two sentences that share one")
    })?;
    Ok((*longest).to_owned())
}

fn occurrences(text: &str, word: &str) -> usize {
    words(text).filter(|other| same(other, word)).count()
}

/// The tokens of a text, and where the `nth` occurrence of the word ends.
fn side(tokenizer: &Tokenizer, text: &str, word: &str, nth: usize) -> Result<Side> {
    let ids = tokenizer.encode_prompt(text, true)?;
    ensure!(
        ids.len() <= PICTURE_LIMIT,
        "{text:?} has {} tokens, but the pictures have room for {PICTURE_LIMIT}",
        ids.len()
    );
    let tokens = tokens(tokenizer, &ids)?;
    let found = words(text).filter(|other| same(other, word)).nth(nth - 1);
    let found = found.with_context(|| format!("{word:?} is not in {text:?}"))?;
    let end = found.as_ptr() as usize - text.as_ptr() as usize + found.len();
    let position = token_at(&tokens, text, end)
        .with_context(|| format!("no token of {text:?} ends with {word:?}"))?;
    Ok(Side {
        text: text.to_owned(),
        tokens,
        position,
    })
}

/// The token that holds the byte of `text` before `end`. Marks such as BOS are no text, and
/// SentencePiece puts a blank in front that was not there.
fn token_at(tokens: &[Token], text: &str, end: usize) -> Option<usize> {
    let length = |token: &Token| if token.special { 0 } else { token.bytes.len() };
    let total: usize = tokens.iter().map(length).sum();
    let end = end + total.checked_sub(text.len())?;
    let mut seen = 0;
    tokens.iter().position(|token| {
        seen += length(token);
        seen >= end
    })
}

fn drift(subject: &Subject, sides: [Side; 2], switch: Option<WhatIf>) -> Result<Drift> {
    let decoder = &*subject.decoder;
    let ids = |side: &Side| -> Vec<u32> { side.tokens.iter().map(|token| token.id).collect() };
    let passes = [
        Pass::run(decoder, &ids(&sides[0]), switch)?,
        Pass::run(decoder, &ids(&sides[1]), switch)?,
    ];
    let (mut cosines, mut distances) = (Vec::new(), Vec::new());
    let mut next = [Vec::new(), Vec::new()];
    for blocks in 0..=decoder.facts().layers {
        let streams = [0, 1].map(|i| passes[i].stream_after(blocks));
        for (i, said) in next.iter_mut().enumerate() {
            said.push(after_word(subject, streams[i], sides[i].position)?);
        }
        let [a, b] = word_vectors(&sides, streams, 1)?;
        cosines.push(to_f32(&cosine(&a, &b)?)?[0]);
        distances.push(norms(&a.subtract(&b)?)?[0]);
    }
    Ok(Drift {
        heads: heads(subject, &sides, &passes)?,
        sides,
        cosines,
        distances,
        next,
    })
}

/// What the head makes of a stream `[1, L, E]` at one position.
fn after_word(subject: &Subject, stream: &Array, position: usize) -> Result<Vec<Candidate>> {
    let decoder = &*subject.decoder;
    let place = Array::from_slice(&[position as i32], &[1]);
    let normed = decoder.final_norm(&stream.take_axis(place, 1)?)?; // [1, 1, E]
    Candidates::of(&decoder.head(&normed)?)?.top(&subject.tokenizer, 0, NEXT)
}

/// The word's vector on each side: x `[N, L, E]` → `[N, E]`.
fn word_vectors(sides: &[Side; 2], x: [&Array; 2], axis: i32) -> Result<[Array; 2]> {
    let at = |i: usize| -> Result<Array> {
        let position = Array::from_int(sides[i].position as i32);
        Ok(x[i].take_axis(position, axis)?.as_dtype(Dtype::Float32)?)
    };
    Ok([at(0)?, at(1)?])
}

fn heads(subject: &Subject, sides: &[Side; 2], passes: &[Pass; 2]) -> Result<Vec<HeadShift>> {
    let decoder = &*subject.decoder;
    let mut found = Vec::new();
    for layer in 0..decoder.facts().layers {
        let blocks = [0, 1].map(|i| &passes[i].blocks[layer]);
        let added = [
            contributions(decoder, layer, blocks[0])?,
            contributions(decoder, layer, blocks[1])?,
        ];
        let [a, b] = word_vectors(sides, [&added[0], &added[1]], 1)?; // [H, E]
        for (head, shift) in norms(&a.subtract(b)?)?.into_iter().enumerate() {
            found.push((layer, head, shift));
        }
    }
    found.sort_by(|a, b| b.2.total_cmp(&a.2));
    found.truncate(HEADS);
    let shift = |(layer, head, shift): (usize, usize, f32)| {
        let attention = |i: usize| {
            let weights = &passes[i].blocks[layer].scores.weights; // [1, H, L, L]
            let row = weights.take_axis(Array::from_int(head as i32), 1)?;
            to_f32(&row.take_axis(Array::from_int(sides[i].position as i32), 1)?)
        };
        Ok(HeadShift {
            layer,
            head,
            shift,
            attention: [attention(0)?, attention(1)?],
        })
    };
    found.into_iter().map(shift).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_common_word_is_followed() {
        let cranes = ["The crane ate a fish.", "The crane lifted the steel."];
        assert_eq!(shared_word(cranes, None).unwrap(), "crane");
        assert_eq!(shared_word(cranes, Some("The")).unwrap(), "The");
        assert_eq!(shared_word(["one two", "two one"], None).unwrap(), "one");
    }

    #[test]
    fn without_a_common_word_the_error_says_so() {
        let error = shared_word(["A cat.", "The dog."], None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no word in common"), "{error}");
        let error = shared_word(["A cat.", "A dog."], Some("cat"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not in both"), "{error}");
    }

    #[test]
    fn case_does_not_tell_words_apart_and_an_emoji_is_one() {
        assert_eq!(shared_word(["Crane!", "the crane"], None).unwrap(), "Crane");
        assert_eq!(
            shared_word(["I love 🍕.", "we hate 🍕…"], None).unwrap(),
            "🍕"
        );
        let tokenizer = Tokenizer::open_alone("tiny").unwrap();
        let found = side(&tokenizer, "A CRANE.", "crane", 1).unwrap();
        let before: usize = found.tokens[..=found.position]
            .iter()
            .map(|token| token.bytes.len())
            .sum();
        assert_eq!(before, "A CRANE".len());
    }
}
