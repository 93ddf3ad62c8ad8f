//! The tokenizer of a checkpoint in Hugging Face layout: several files, read together.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::template::template_of;
use super::{Parts, Tokenizer, added, guarded};
use crate::checkpoint::Checkpoint;
use crate::lenient_json;

/// The files of a checkpoint that speak of tokens, as text, and what its config says of them.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles {
    /// The checkpoint's name, for error messages.
    pub name: String,
    /// `tokenizer.json`
    pub tokenizer: Option<String>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<String>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<String>,
    /// `chat_template.jinja`
    pub chat_template_jinja: Option<String>,
    /// `chat_template.json`
    pub chat_template_json: Option<String>,
    /// End-of-text ids of `config.json` and `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Rows of the embedding. May be more than the tokenizer has tokens: models pad.
    pub vocab_size: usize,
}

impl TokenizerFiles {
    /// Reads the files that are there.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let text = |name: &str| checkpoint.files.read_text(name);
        Ok(Self {
            name: checkpoint.name.clone(),
            tokenizer: text("tokenizer.json")?,
            tokenizer_config: text("tokenizer_config.json")?,
            special_tokens_map: text("special_tokens_map.json")?,
            chat_template_jinja: text("chat_template.jinja")?,
            chat_template_json: text("chat_template.json")?,
            eos_token_ids: checkpoint.config.eos_token_ids.clone(),
            vocab_size: checkpoint.config.vocab_size,
        })
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint in Hugging Face layout.
    ///
    /// # Errors
    /// If there is no `tokenizer.json`, or a file that is there cannot be read.
    pub fn from_files(files: &TokenizerFiles) -> Result<Self> {
        Self::read(files, chat_template)
    }

    /// `template` finds the chat template, given the value of `tokenizer_config.json`.
    pub(super) fn read(
        files: &TokenizerFiles,
        template: fn(&TokenizerFiles, &Value) -> Result<Option<String>>,
    ) -> Result<Self> {
        let name = &files.name;
        let text = files
            .tokenizer
            .as_deref()
            .with_context(|| no_tokenizer(name))?;
        let mut remarks = Vec::new();
        let mut read = |file, text: &Option<String>| {
            let (value, remark) = parse(name, file, text.as_deref())?;
            remarks.extend(remark);
            anyhow::Ok(value)
        };
        let config = read("tokenizer_config.json", &files.tokenizer_config)?;
        let map = read("special_tokens_map.json", &files.special_tokens_map)?;
        let inner =
            guarded::parse(text).with_context(|| format!("reading tokenizer.json of {name}"))?;
        let (inner, merged) = added::merge(inner, [&config, &map])
            .with_context(|| format!("reading tokenizer_config.json of {name}"))?;
        remarks.extend(merged);
        Self::from_parts(Parts {
            name: name.clone(),
            inner,
            template: template(files, &config)?,
            special_tokens: special_tokens(&config, &map),
            stop_tokens: stop_tokens(&config, &map),
            eos_token_ids: files.eos_token_ids.clone(),
            rows: files.vocab_size,
            remarks,
        })
    }
}

fn no_tokenizer(name: &str) -> String {
    format!(
        "{name} has no tokenizer.json; a SentencePiece tokenizer.model alone is not supported: \
         convert it once with Python, transformers.AutoTokenizer.from_pretrained(DIR)\
         .save_pretrained(DIR)"
    )
}

/// The value of a file, `null` if it is not there, and a remark if it is not strictly JSON.
fn parse(name: &str, file: &str, text: Option<&str>) -> Result<(Value, Option<String>)> {
    let Some(text) = text else {
        return Ok((Value::Null, None));
    };
    lenient_json::parse(file, text)
        .map_err(|error| anyhow!("reading {file} of {name}: {error}; fetch the file again"))
}

/// `chat_template.jinja`, else `chat_template.json`, else `tokenizer_config.json`.
fn chat_template(files: &TokenizerFiles, config: &Value) -> Result<Option<String>> {
    if let Some(source) = &files.chat_template_jinja {
        return Ok(Some(source.clone()));
    }
    let file = "chat_template.json";
    let (json, _) = parse(&files.name, file, files.chat_template_json.as_deref())?;
    for (file, json) in [(file, &json), ("tokenizer_config.json", config)] {
        let template = template_of(&json["chat_template"])
            .map_err(|error| anyhow!("reading {file} of {}: {error}", files.name))?;
        if template.is_some() {
            return Ok(template);
        }
    }
    Ok(None)
}

/// `bos_token` and its like, for templates.
fn special_tokens(config: &Value, map: &Value) -> BTreeMap<String, String> {
    named(
        ["bos_token", "eos_token", "unk_token", "pad_token"],
        config,
        map,
    )
    .map(|(key, token)| (key.to_owned(), token.to_owned()))
    .collect()
}

/// The ends of turn and message that a file names; the end of text is a special token.
fn stop_tokens(config: &Value, map: &Value) -> Vec<String> {
    named(["eot_token", "eom_token"], config, map)
        .map(|(_, token)| token.to_owned())
        .collect()
}

/// The tokens under these keys of `tokenizer_config.json`, or else of `special_tokens_map.json`.
fn named<'a, const N: usize>(
    keys: [&'static str; N],
    config: &'a Value,
    map: &'a Value,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    keys.into_iter().filter_map(|key| {
        let token = added::text(&config[key]).or_else(|| added::text(&map[key]))?;
        Some((key, token))
    })
}
