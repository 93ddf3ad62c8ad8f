//! The added tokens of a checkpoint in Hugging Face layout. Two files list them: `added_tokens` of
//! `tokenizer.json`, and `added_tokens_decoder` of `tokenizer_config.json`.
//!
//! As in Transformers, `tokenizer_config.json` decides: a token that only it has is added, and where
//! the flags differ its own count. Without that a mark like `<|im_start|>` is cut into pieces.

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
    let of_content = |content: &str| known.values().find(|token| token.content == content);
    let (mut lacking, mut differing, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for (_, token) in &listed {
        match of_content(&token.content) {
            Some(same) if same == token => continue,
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
    let mut names: Vec<&str> = configs.into_iter().flat_map(special).collect();
    names.retain(|name| {
        !known.contains_key(*name)
            && listed.iter().all(|(_, token)| token.content != *name)
            && inner.token_to_id(name).is_some()
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
