//! The `tokenizers` crate within limits: it panics on tables that do not fit each other, and a
//! normalizer that doubles its text forty times is a valid one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokenizers::AddedToken;

use super::GgufVocabulary;
use crate::watch::{self, Limits};

const AGAIN: &str = "; fetch the file again";

const BROKEN: &str = "; its tokenizer.json is broken, so fetch it again or take another model";

/// A vocabulary of 260,000 tokens takes 200 MB and some seconds while it is read.
const READING: Limits = Limits {
    memory: 2_000_000_000,
    time: Duration::from_secs(60),
};

/// Ten times what a text takes that makes the most work for each of its bytes.
fn encoding(bytes: usize) -> Limits {
    Limits {
        memory: 200_000_000 + bytes.saturating_mul(2_000),
        time: Duration::from_secs(20) + Duration::from_micros(10) * bytes as u32,
    }
}

/// Reads a `tokenizer.json`.
pub(crate) fn parse(text: &str) -> Result<tokenizers::Tokenizer> {
    let text = text.to_owned();
    let parsed = watch::run("reading it", AGAIN, READING, move || text.parse())?;
    parsed.map_err(|error: tokenizers::Error| anyhow!("{error}{AGAIN}"))
}

/// Adds tokens, whose texts go through the normalizer.
pub(crate) fn add_tokens(
    mut tokenizer: tokenizers::Tokenizer,
    tokens: Vec<AddedToken>,
) -> Result<tokenizers::Tokenizer> {
    let add = move || {
        tokenizer.add_tokens(tokens)?;
        Ok(tokenizer)
    };
    let added = watch::run("adding tokens to it", BROKEN, READING, add)?;
    added.map_err(|error: tokenizers::Error| anyhow!("{error}{BROKEN}"))
}

/// The ids of a text.
pub(crate) fn encode(
    tokenizer: &Arc<tokenizers::Tokenizer>,
    text: &str,
    add_special: bool,
) -> Result<Vec<u32>> {
    let limits = encoding(text.len());
    let (tokenizer, text) = (Arc::clone(tokenizer), text.to_owned());
    let encode = move || {
        let encoding = tokenizer.encode_fast(text, add_special)?;
        Ok(encoding.get_ids().to_vec())
    };
    let ids = watch::run("its tokenizer", BROKEN, limits, encode)?;
    ids.map_err(|error: tokenizers::Error| anyhow!("{error}{BROKEN}"))
}

/// How many ids each of some texts becomes. All of them are one program with one limit: a broken
/// tokenizer would else use up the limit once for each text.
pub(crate) fn lengths(
    tokenizer: &Arc<tokenizers::Tokenizer>,
    texts: Vec<String>,
) -> Result<Vec<usize>> {
    let limits = encoding(texts.iter().map(String::len).sum());
    let tokenizer = Arc::clone(tokenizer);
    let length = move |text: String| Ok(tokenizer.encode_fast(text, false)?.len());
    let encode = move || -> tokenizers::Result<_> { texts.into_iter().map(length).collect() };
    let lengths = watch::run("its tokenizer", BROKEN, limits, encode)?;
    lengths.map_err(|error| anyhow!("{error}{BROKEN}"))
}

/// Makes a tokenizer of what a GGUF file says.
pub(crate) fn build(vocabulary: &GgufVocabulary) -> Result<tokenizers::Tokenizer> {
    build_within(READING, vocabulary)
}

fn build_within(limits: Limits, vocabulary: &GgufVocabulary) -> Result<tokenizers::Tokenizer> {
    let vocabulary = vocabulary.clone();
    let built = watch::run("building it", AGAIN, limits, move || vocabulary.build())?;
    built.map_err(|error| anyhow!(error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::hostile::{Change, assert_told, changed, changes, search};
    use crate::tokenizer::{GgufVocabulary, Tokenizer, TokenizerFiles};
    use crate::watch::Limits;

    /// A few words, with a step of every kind that checkpoints have.
    fn tokenizer() -> Value {
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [
                {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true},
            ],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": "▁"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": " ?\\w+|\\s+"}, "behavior": "Isolated", "invert": false},
                {"type": "Digits", "individual_digits": true},
            ]},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
                "vocab": {"<s>": 0, "a": 1, "b": 2, "▁": 3, "aa": 4, "▁b": 5, "<0x0A>": 6, "<0xC3>": 7},
                "merges": [["a", "a"], ["▁", "b"]]},
        })
    }

    /// Steps that the document does not have.
    fn steps() -> Vec<Value> {
        let replace =
            |by: &str| json!({"type": "Replace", "pattern": {"String": "a"}, "content": by});
        let texts = [
            "ByteLevel",
            "Metaspace",
            "Whitespace",
            "WhitespaceSplit",
            "BertNormalizer",
            "BertPreTokenizer",
            "NFKD",
            "StripAccents",
            "Lowercase",
            "UnicodeScripts",
        ];
        let mut steps: Vec<Value> = texts.iter().map(|kind| json!({"type": kind})).collect();
        steps.extend([
            replace("aaaaaaaa"), replace(""),
            json!({"type": "Sequence", "normalizers": vec![replace("aa"); 9]}),
            json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            json!({"type": "FixedLength", "length": 0}),
            json!({"type": "Punctuation", "behavior": "MergedWithNext"}),
            json!({"type": "CharDelimiterSplit", "delimiter": "a"}),
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
            json!({"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": true, "add_prefix_space": true}),
            json!({"type": "BertProcessing", "sep": ["no", 77], "cls": ["<s>", 0]}),
            json!({"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": [["a", -1.0], ["", 0.0], ["aa", 1e308]]}),
            json!({"type": "WordPiece", "unk_token": "<s>", "continuing_subword_prefix": "", "max_input_chars_per_word": 3, "vocab": {"a": 1, "<s>": 0}}),
            json!({"type": "WordLevel", "unk_token": "no", "vocab": {"a": 4_000_000_000_u32}}),
            json!({"max_length": 0, "strategy": "LongestFirst", "direction": "Right", "stride": 5}),
        ]);
        steps
    }

    fn run(changes: &[Change], text: &str) -> anyhow::Result<()> {
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            name: "changed".to_owned(),
            tokenizer: Some(changed(tokenizer(), changes, &steps()).to_string()),
            vocab_size: 9,
            ..TokenizerFiles::default()
        })?;
        let ids = tokenizer.encode_raw(text)?;
        assert!(ids.iter().all(|id| *id < 9));
        tokenizer.decode(&ids, false)?;
        tokenizer.decode(&[0, 1, 2, 3, 4, 5, 6, 7, 8], true)?;
        Ok(())
    }

    /// To find added tokens in a text, `tokenizers` makes an automaton of some ten times their size.
    #[test]
    fn a_gguf_vocabulary_of_long_added_tokens_does_not_fill_the_memory() {
        let build = |length: usize| {
            let vocabulary = GgufVocabulary {
                model: "gpt2".to_owned(),
                tokens: (0..100).map(|id| format!("{id}").repeat(length)).collect(),
                token_type: vec![4; 100],
                ..GgufVocabulary::default()
            };
            let limits = Limits {
                memory: 20_000_000,
                ..super::READING
            };
            super::build_within(limits, &vocabulary).map(drop)
        };
        build(10).unwrap();
        let error = build(25_000).unwrap_err().to_string();
        assert_eq!(
            error,
            "building it takes more than 20 MB; fetch the file again"
        );
    }

    #[test]
    fn hostile_tokenizers_give_ids_or_one_line() {
        let text = prop_oneof!["[ab<s>▁ \n]{0,20}", any::<String>()];
        search(300, &(changes(), text), |(changes, text)| {
            if let Err(error) = run(&changes, &text) {
                assert_told(&error);
            }
        });
    }
}
