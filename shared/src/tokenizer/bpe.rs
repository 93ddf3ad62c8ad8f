//! Byte pair encoding made visible: the merges of a vocabulary, and how a word is put together with them.
//!
//! The `tokenizers` crate cuts texts; this module does it again, slowly and step by step, for pictures.
//! Only for what GPT-2 began and most models have: words of a byte alphabet (`Ġ` is the space), cut at
//! blanks and digits before anything is merged. Whoever draws compares the ids with the crate's.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::Tokenizer;

/// The merges of a byte-level vocabulary.
#[derive(Debug)]
pub struct Bpe<'a> {
    tokenizer: &'a Tokenizer,
    merges: Vec<(String, String)>,
    ranks: HashMap<(String, String), usize>,
    ids: HashMap<String, u32>,
    digits: Option<bool>,
}

/// One merge on the way from bytes to pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Its place in the list of merges, from 0: of two that are possible the lower one comes first.
    pub rank: usize,
    /// Which of the ids after it is the joined one.
    pub at: usize,
    /// The pieces after it, as ids.
    pub ids: Vec<u32>,
}

impl Tokenizer {
    /// The merges, if the vocabulary is a byte-level one without exceptions of its own.
    ///
    /// # Cost
    /// Writes the vocabulary as JSON once: a tenth of a second for 100,000 merges.
    pub fn bpe(&self) -> Option<Bpe<'_>> {
        let inner = &*self.inner;
        let cuts = serde_json::to_value(inner.get_pre_tokenizer()?).ok()?;
        let digits = digits(&cuts)?;
        let model = serde_json::to_value(inner.get_model()).ok()?;
        let plain = |key: &str| match &model[key] {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        let exceptions = [
            "dropout",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "byte_fallback",
            "ignore_merges",
        ];
        if model["type"] != "BPE"
            || !exceptions.into_iter().all(plain)
            || inner.get_normalizer().is_some()
        {
            return None;
        }
        let merges: Vec<(String, String)> = serde_json::from_value(model["merges"].clone()).ok()?;
        let ranks = merges
            .iter()
            .cloned()
            .enumerate()
            .map(|(rank, pair)| (pair, rank));
        Some(Bpe {
            tokenizer: self,
            ranks: ranks.collect(),
            ids: serde_json::from_value(model["vocab"].clone()).ok()?,
            merges,
            digits,
        })
    }
}

/// What stands before the merges, if it is the byte alphabet with GPT-2's rule for words: `Some(None)`, or
/// with digits cut off before, each alone or not. None for any other rule.
fn digits(cuts: &Value) -> Option<Option<bool>> {
    let steps = match cuts["type"].as_str()? {
        "Sequence" => cuts["pretokenizers"].as_array()?.clone(),
        _ => vec![cuts.clone()],
    };
    let byte_level = |step: &Value| {
        step["type"] == "ByteLevel"
            && step["use_regex"] == true
            && step["add_prefix_space"] == false
    };
    match &steps[..] {
        [bytes] if byte_level(bytes) => Some(None),
        [first, bytes] if first["type"] == "Digits" && byte_level(bytes) => {
            Some(Some(first["individual_digits"].as_bool()?))
        }
        _ => None,
    }
}

impl Bpe<'_> {
    /// The merges in their order, each a pair of pieces in the byte alphabet.
    pub fn merges(&self) -> &[(String, String)] {
        &self.merges
    }

    /// Whether digits are cut off before anything else, and if so, whether each stands alone.
    pub fn digits(&self) -> Option<bool> {
        self.digits
    }

    /// The id of a piece in the byte alphabet.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// The characters that stand for one byte each, with their ids.
    pub fn alphabet(&self) -> Vec<(char, u32)> {
        let one = |(piece, id): (&String, &u32)| {
            let mut characters = piece.chars();
            let first = characters.next()?;
            characters.next().is_none().then_some((first, *id))
        };
        let mut all: Vec<(char, u32)> = self.ids.iter().filter_map(one).collect();
        all.sort_unstable();
        all
    }

    /// Marks that are found before anything is cut, with their ids.
    pub fn marks(&self) -> Vec<(String, u32)> {
        let added = self.tokenizer.inner.get_added_vocabulary().get_vocab();
        let mut marks: Vec<(String, u32)> =
            added.iter().map(|(text, id)| (text.clone(), *id)).collect();
        marks.sort_unstable();
        marks
    }

    /// The words of a text, in the byte alphabet: no merge crosses from one to the next.
    pub fn words(&self, text: &str) -> Option<Vec<String>> {
        let mut cut = PreTokenizedString::from(text);
        let rule = self.tokenizer.inner.get_pre_tokenizer()?;
        rule.pre_tokenize(&mut cut).ok()?;
        let words = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Some(
            words
                .into_iter()
                .map(|(word, ..)| word.to_owned())
                .collect(),
        )
    }

    /// A word's bytes as ids, and every merge on the way to its pieces. None for a byte that the
    /// vocabulary does not have.
    pub fn steps(&self, word: &str) -> Option<(Vec<u32>, Vec<Merge>)> {
        let mut pieces: Vec<String> = word.chars().map(String::from).collect();
        let ids = |pieces: &[String]| pieces.iter().map(|piece| self.id(piece)).collect();
        let bytes: Vec<u32> = Option::from_iter::<Vec<Option<u32>>>(ids(&pieces))?;
        let mut steps = Vec::new();
        while let Some((rank, at)) = self.lowest(&pieces) {
            let joined = format!("{}{}", pieces[at], pieces[at + 1]);
            pieces.splice(at..at + 2, [joined]);
            let ids = Option::from_iter::<Vec<Option<u32>>>(ids(&pieces))?;
            steps.push(Merge { rank, at, ids });
        }
        Some((bytes, steps))
    }

    /// Rank and place of the pair that is merged next; of equal ones the first.
    fn lowest(&self, pieces: &[String]) -> Option<(usize, usize)> {
        let rank = |(at, pair): (usize, &[String])| {
            let rank = self.ranks.get(&(pair[0].clone(), pair[1].clone()))?;
            Some((*rank, at))
        };
        pieces.windows(2).enumerate().filter_map(rank).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fixtures;
    use proptest::prelude::*;

    fn ids(bpe: &Bpe<'_>, text: &str) -> Vec<u32> {
        let words = bpe.words(text).unwrap();
        let last = |word: &String| {
            let (bytes, steps) = bpe.steps(word).unwrap();
            steps.last().map_or(bytes, |step| step.ids.clone())
        };
        words.iter().flat_map(last).collect()
    }

    #[test]
    fn a_word_is_put_together_merge_by_merge() {
        let tokenizer = Tokenizer::open_alone("tiny").unwrap();
        let bpe = tokenizer.bpe().unwrap();
        let (bytes, steps) = bpe.steps("Penguins").unwrap();
        assert_eq!(bytes.len(), 8);
        let ranks: Vec<usize> = steps.iter().map(|step| step.rank).collect();
        assert_eq!(ranks, [3, 19, 765, 987, 2780]);
        assert_eq!(steps[0].at, 5);
        let last = &steps[4].ids;
        assert_eq!(*last, tokenizer.encode_plain("Penguins").unwrap());
        assert_eq!(bpe.digits(), Some(true));
        assert_eq!(bpe.alphabet().len(), 256);
    }

    #[test]
    fn a_tokenizer_of_another_kind_is_not_drawn() {
        let metaspace = serde_json::json!({"type": "Metaspace"});
        assert_eq!(digits(&metaspace), None);
        let split = serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split"}, {"type": "ByteLevel", "use_regex": false, "add_prefix_space": false}]});
        assert_eq!(digits(&split), None);
    }

    #[test]
    fn gpt2s_own_merges_give_its_ids() {
        let Some(path) = fixtures::gpt2_tokenizer() else {
            return;
        };
        let tokenizer = Tokenizer::open_alone(path.to_str().unwrap()).unwrap();
        let bpe = tokenizer.bpe().unwrap();
        for text in [
            "unbelievable",
            "ChatGPT",
            "Explain black holes to me",
            "12345  a\n\n b",
        ] {
            assert_eq!(
                ids(&bpe, text),
                tokenizer.encode_plain(text).unwrap(),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_cut_as_the_crate_cuts_it(text in "[a-zA-Zé字🦀 .,'\n0-9]{0,60}|\\PC{0,40}") {
            let tokenizer = Tokenizer::open_alone("tiny").unwrap();
            let bpe = tokenizer.bpe().unwrap();
            prop_assert_eq!(ids(&bpe, &text), tokenizer.encode_plain(&text).unwrap());
        }
    }
}
