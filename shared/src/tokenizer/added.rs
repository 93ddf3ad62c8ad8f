//! The added tokens of a checkpoint in Hugging Face layout. Two files list them: `added_tokens` of
//! `tokenizer.json`, and `added_tokens_decoder` of `tokenizer_config.json`.
//!
//! As in Transformers, `tokenizer_config.json` decides: a token that only it has is added, and where
//! the flags differ its own count. Without that a mark like `<|im_start|>` is cut into pieces.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use super::guarded;
use crate::remarks::few;

/// The keys that name one special token each.
pub(super) const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
];

/// The keys that name further special tokens: a list, or an object with names of the author's own.
const FURTHER: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// One entry of `added_tokens_decoder`; the defaults are those of Python's `AddedToken`.
#[derive(Deserialize)]
struct Entry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default = "yes")]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

fn yes() -> bool {
    true
}

impl Entry {
    fn token(self) -> AddedToken {
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized)
    }
}

/// Adds to `inner` what `configs`, the values of `tokenizer_config.json` and `special_tokens_map.json`,
/// say of added tokens. Returns a line for each kind of difference, too.
///
/// # Errors
/// If `added_tokens_decoder` is not an object of tokens by id.
pub(super) fn merge(
    mut inner: tokenizers::Tokenizer,
    configs: [&Value; 2],
) -> Result<(tokenizers::Tokenizer, Vec<String>)> {
    let listed = listed(configs[0])?;
    let mut remarks = Vec::new();
    let known = inner.get_added_tokens_decoder();
    let known: HashMap<&str, &AddedToken> = known
        .values()
        .map(|token| (token.content.as_str(), token))
        .collect();
    let (mut lacking, mut differing, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for (_, token) in &listed {
        match known.get(token.content.as_str()) {
            Some(same) if *same == token => continue,
            Some(_) => differing.push(token.content.as_str()),
            None => lacking.push(token.content.as_str()),
        }
        tokens.push(token.clone());
    }
    tokens.extend(unlisted(&inner, configs, &listed));
    if !lacking.is_empty() {
        remarks.push(format!(
            "tokenizer_config.json has added tokens that tokenizer.json lacks, and decides: {}",
            few(&lacking)
        ));
    }
    if !differing.is_empty() {
        remarks.push(format!(
            "tokenizer_config.json and tokenizer.json differ in the flags of added tokens, and the \
             first decides: {}",
            few(&differing)
        ));
    }
    if !tokens.is_empty() {
        inner = guarded::add_tokens(inner, tokens)?;
    }
    let moved: Vec<&str> = listed
        .iter()
        .filter(|(id, token)| inner.token_to_id(&token.content) != Some(*id))
        .map(|(_, token)| token.content.as_str())
        .collect();
    if !moved.is_empty() {
        remarks.push(format!(
            "tokenizer_config.json gives added tokens other ids than tokenizer.json, which decides: {}",
            few(&moved)
        ));
    }
    Ok((inner, remarks))
}

/// `added_tokens_decoder`, by rising id.
fn listed(config: &Value) -> Result<Vec<(u32, AddedToken)>> {
    let key = "added_tokens_decoder";
    let entries = match &config[key] {
        Value::Null => return Ok(vec![]),
        entries => entries.as_object(),
    };
    let entries = entries.with_context(|| format!("its {key} is not an object"))?;
    let mut tokens = Vec::new();
    for (id, value) in entries {
        let number = id.parse().ok();
        let entry = Entry::deserialize(value).ok();
        let (number, entry) = number
            .zip(entry)
            .with_context(|| format!("the entry {id:?} of its {key} is not a token with an id"))?;
        tokens.push((number, entry.token()));
    }
    tokens.sort_by_key(|&(id, _)| id);
    Ok(tokens)
}

/// Tokens that are called special, stand in the vocabulary and are in neither list.
fn unlisted(
    inner: &tokenizers::Tokenizer,
    configs: [&Value; 2],
    listed: &[(u32, AddedToken)],
) -> Vec<AddedToken> {
    let known = inner.get_added_vocabulary().get_vocab();
    let listed: HashSet<&str> = listed
        .iter()
        .map(|(_, token)| token.content.as_str())
        .collect();
    let mut names: Vec<&str> = configs.into_iter().flat_map(special).collect();
    names.retain(|name| {
        !known.contains_key(*name) && !listed.contains(name) && inner.token_to_id(name).is_some()
    });
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| AddedToken::from(name, true))
        .collect()
}

/// All that one file calls special tokens.
fn special(config: &Value) -> impl Iterator<Item = &str> {
    let named = NAMED.iter().map(|key| &config[key]);
    let further = FURTHER.iter().flat_map(|key| match &config[key] {
        Value::Array(values) => values.iter().collect::<Vec<_>>(),
        Value::Object(values) => values.values().collect(),
        _ => vec![],
    });
    named.chain(further).filter_map(text)
}

/// A token as the files write it: a text, or an object with the text as `content`.
pub(super) fn text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_hundred_thousand_added_tokens_in_both_files_are_merged_in_seconds() {
        let tokens = 0..100_000;
        let entry = |id: usize| {
            let token =
                json!({"content": format!("<{id:06}>"), "special": true, "normalized": false});
            (id.to_string(), token)
        };
        let decoder: serde_json::Map<String, Value> = tokens.clone().map(entry).collect();
        let names: Vec<String> = tokens.map(|id| format!("<{id:06}>")).collect();
        let mut inner = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        let added = names
            .iter()
            .map(|name| AddedToken::from(name.as_str(), true));
        inner.add_special_tokens(added).unwrap();
        let config = json!({"added_tokens_decoder": decoder, "extra_special_tokens": names});
        let started = Instant::now();
        let (inner, remarks) = merge(inner, [&config, &Value::Null]).unwrap();
        // Each name compared with each other one is ten thousand million comparisons.
        assert!(
            started.elapsed() < Duration::from_secs(8),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(inner.get_vocab_size(true), 100_000);
        assert_eq!(remarks, [""; 0]);
    }
}
