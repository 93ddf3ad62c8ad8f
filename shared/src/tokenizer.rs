//! Text → ids, ids → text.
//!
//! A model's tokenizer is a file of its own, `tokenizer.json`, which the `tokenizers` crate runs.
//! This module does what lies around it: which template a chat prompt goes through, who puts the
//! one BOS token, which ids end the answer, and text that streams in whole characters.
//!
//! **Exactly one BOS.** A chat template writes BOS itself (or its model wants none), so the
//! rendered text is encoded without adding anything. Raw text is encoded with whatever the
//! tokenizer adds, unless it begins with the text of BOS already. `transformers` and mlx-lm do the
//! same.

mod added;
mod alone;
mod bpe;
mod files;
mod gguf;
mod guarded;
mod marks;
mod merges;
mod python_json;
mod stream;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

pub use bpe::{Bpe, Merge};
pub use files::TokenizerFiles;
pub use gguf::GgufVocabulary;
pub use stream::Detokenizer;

use stream::Spelling;
use template::ChatTemplate;

use crate::checkpoint::Checkpoint;
use crate::remarks::tell_all;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self {
            role: "user".to_owned(),
            content: content.into(),
        }
    }
}

/// Tokens that end a turn. Only one that the model's chat template writes, and that is a special
/// token of its vocabulary, stops the answer: base configs often name only the end of the
/// *document*, and the answer would run on into a conversation that the model makes up.
const END_OF_TURN: [&str; 6] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
];

/// A checkpoint's tokenizer, chat template and stop ids. The tables, which are large, are shared by all clones.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    name: String,
    inner: Arc<tokenizers::Tokenizer>,
    spelling: Spelling,
    template: Option<ChatTemplate>,
    bos: Option<String>,
    eos: Option<String>,
    stop_ids: BTreeSet<u32>,
    /// Rows of the embedding: no id at or beyond it may reach the model.
    rows: usize,
    remarks: Vec<String>,
}

/// What a vocabulary says of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// As the vocabulary spells it: `Ġblack`, `▁black`, `<0x0A>`.
    pub spelling: String,
    /// The bytes of text that it stands for; not always whole characters.
    pub bytes: Vec<u8>,
    /// Whether it is a mark like `<|im_start|>` and no text.
    pub special: bool,
}

/// What either kind of checkpoint gives.
struct Parts {
    name: String,
    inner: tokenizers::Tokenizer,
    template: Option<String>,
    /// `bos_token`, `eos_token`, `unk_token`, `pad_token`: those there are.
    special_tokens: BTreeMap<String, String>,
    /// Tokens that end an answer, beside `eos_token`.
    stop_tokens: Vec<String>,
    eos_token_ids: Vec<u32>,
    rows: usize,
    remarks: Vec<String>,
}

impl Tokenizer {
    /// Reads or builds the tokenizer of a checkpoint: from the metadata if it is a GGUF file, from
    /// `tokenizer.json` and its companions otherwise. Its [remarks](Self::remarks) go to stderr.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let tokenizer = match &checkpoint.gguf {
            Some(header) => {
                let vocabulary = GgufVocabulary::from_header(header);
                Self::from_gguf(&checkpoint.name, &vocabulary, checkpoint.config.vocab_size)
            }
            None => Self::from_files(&TokenizerFiles::read(checkpoint)?),
        }?;
        tell_all(tokenizer.remarks());
        Ok(tokenizer)
    }

    /// What was read past, and who decided where two files differ: a line each.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Builds the tokenizer from the metadata of a GGUF file.
    ///
    /// # Errors
    /// For a tokenizer model or pre-tokenizer that is not supported, and for broken tables.
    pub fn from_gguf(name: &str, vocabulary: &GgufVocabulary, vocab_size: usize) -> Result<Self> {
        let inner = guarded::build(vocabulary)
            .map_err(|error| anyhow!("building the tokenizer of {name}: {error:#}"))?;
        let special = [
            ("bos_token", vocabulary.bos_token_id),
            ("eos_token", vocabulary.eos_token_id),
            ("unk_token", vocabulary.unknown_token_id),
            ("pad_token", vocabulary.padding_token_id),
        ];
        let special = special
            .into_iter()
            .filter_map(|(key, id)| Some((key.to_owned(), vocabulary.token(id)?.to_owned())));
        Self::from_parts(Parts {
            name: name.to_owned(),
            inner,
            template: vocabulary.chat_template.clone(),
            special_tokens: special.collect(),
            stop_tokens: vec![],
            eos_token_ids: vocabulary.stop_ids.clone(),
            rows: vocab_size,
            remarks: vec![],
        })
    }

    fn from_parts(parts: Parts) -> Result<Self> {
        let Parts {
            name,
            mut inner,
            template,
            special_tokens,
            mut stop_tokens,
            eos_token_ids,
            rows,
            remarks,
        } = parts;
        // Settings of training: they would cut or pad the prompt.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| anyhow!(error))?;
        let spelling = spelling_of(&inner)
            .map_err(|error| anyhow!("reading the tokenizer of {name}: {error}"))?;
        let template = template.map(|source| ChatTemplate::new(&source, special_tokens.clone()));
        let mut tokenizer = Self {
            bos: special_tokens.get("bos_token").cloned(),
            eos: special_tokens.get("eos_token").cloned(),
            stop_ids: eos_token_ids.into_iter().collect(),
            name,
            inner: Arc::new(inner),
            spelling,
            template,
            rows,
            remarks,
        };
        stop_tokens.extend(special_tokens.get("eos_token").cloned());
        tokenizer.add_stop_tokens(&stop_tokens);
        let marks = tokenizer.remark_on_marks();
        tokenizer.remarks.extend(marks);
        Ok(tokenizer)
    }

    /// Adds the tokenizer's own ends and the template's end of turn to what the config says.
    fn add_stop_tokens(&mut self, named: &[String]) {
        let template = self.template.as_ref();
        let end_of_turn = END_OF_TURN
            .into_iter()
            .filter(|token| template.is_some_and(|template| template.mentions(token)))
            .filter(|token| self.is_special(token));
        let ids: Vec<u32> = end_of_turn
            .chain(named.iter().map(String::as_str))
            .filter_map(|token| self.inner.token_to_id(token))
            .collect();
        self.stop_ids.extend(ids);
    }

    /// Raw text: no template, special tokens as the tokenizer adds them.
    ///
    /// # Errors
    /// For an id that the model has no embedding for.
    pub fn encode_raw(&self, text: &str) -> Result<Vec<u32>> {
        let begun = self.bos.as_deref().is_some_and(|bos| text.starts_with(bos));
        self.encode(text, !begun)
    }

    /// Text as it is: no template, and nothing added.
    ///
    /// # Errors
    /// For an id that the model has no embedding for.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(text, false)
    }

    /// A conversation, through the chat template, up to where the model's answer begins.
    ///
    /// # Errors
    /// As [`render_chat`](Self::render_chat); for an id that the model has no embedding for.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.encode(&self.render_chat(messages)?, false)
    }

    /// A prompt from the command line: one user turn, or raw text if `raw` is set or the checkpoint
    /// has no chat template (a base model).
    ///
    /// # Errors
    /// If the prompt is empty.
    pub fn encode_prompt(&self, prompt: &str, raw: bool) -> Result<Vec<u32>> {
        ensure!(
            !prompt.is_empty(),
            "the prompt is empty; give it with --prompt \"…\""
        );
        let ids = if raw || !self.has_chat_template() {
            self.encode_raw(prompt)?
        } else {
            self.encode_chat(&[Message::user(prompt)])?
        };
        ensure!(
            !ids.is_empty(),
            "the prompt {prompt:?} gives no tokens with {}",
            self.name
        );
        Ok(ids)
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let ids = guarded::encode(&self.inner, text, add_special)
            .with_context(|| format!("encoding the prompt with {}", self.name))?;
        // MLX checks no bounds: an id without a row would silently read other memory.
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.rows) {
            let token = self.inner.id_to_token(*id).unwrap_or_default();
            bail!(
                "the prompt has token {token:?} with id {id}, but {} has only {} embedding rows; \
                 its tokenizer belongs to another model",
                self.name,
                self.rows
            );
        }
        Ok(ids)
    }

    /// What a text begins with, where the tokenizer has such a token.
    pub fn bos_token(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// What the tokenizer calls the end of a text. More ids may [end an answer](Self::stop_ids).
    pub fn eos_token(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// Does the checkpoint have a chat template?
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// The text of the chat template itself.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::source)
    }

    /// The text that the chat template makes of a conversation.
    ///
    /// # Errors
    /// If there is no template, and if it refuses the conversation or fails.
    pub fn render_chat(&self, messages: &[Message]) -> Result<String> {
        let template = self.template.as_ref();
        let template =
            template.with_context(|| format!("{} has no chat template; use --raw", self.name))?;
        template
            .render(messages, &[])
            .with_context(|| format!("writing the prompt for {}", self.name))
    }

    /// The same for turns in JSON, which may have calls and their results, with the descriptions of tools. Templates
    /// want the arguments of calls as objects.
    ///
    /// # Errors
    /// As [`render_chat`](Self::render_chat), and if there are tools that the template does not mention.
    pub fn render_with_tools(&self, messages: &[Value], tools: &[Value]) -> Result<String> {
        let template = self.template.as_ref();
        let template =
            template.with_context(|| format!("{} has no chat template; use --raw", self.name))?;
        ensure!(
            tools.is_empty() || template.mentions("tools"),
            "the chat template of {} has no tools: ask without them",
            self.name
        );
        template
            .render(messages, tools)
            .with_context(|| format!("writing the prompt for {}", self.name))
    }

    /// Fixes the time that templates see through `strftime_now`.
    pub fn freeze_clock(&mut self, at: OffsetDateTime) {
        if let Some(template) = &mut self.template {
            template.freeze_clock(at);
        }
    }

    /// The ids that end an answer: what config, generation config and tokenizer call the end of
    /// text, and the end of turn that the chat template writes.
    pub fn stop_ids(&self) -> &BTreeSet<u32> {
        &self.stop_ids
    }

    /// The text of some ids.
    ///
    /// # Errors
    /// For an id that neither the tokenizer nor the model has.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut stream = Detokenizer::new(self, skip_special);
        let mut text = String::new();
        for id in ids {
            text.extend(stream.push(*id)?);
        }
        text.extend(stream.finish()?);
        Ok(text)
    }

    /// One token for itself; none for a row that only pads the embedding.
    ///
    /// # Errors
    /// For an id that neither the tokenizer nor the model has.
    pub fn piece(&self, id: u32) -> Result<Option<Piece>> {
        Ok(self.token(id)?.map(|spelling| {
            let special = self.is_special(&spelling);
            Piece {
                bytes: self.bytes(id, &spelling),
                spelling,
                special,
            }
        }))
    }

    /// Text for ids that come one by one. Special tokens are left out.
    pub fn stream(&self) -> Detokenizer<'_> {
        Detokenizer::new(self, true)
    }

    /// How many tokens the tokenizer has, special ones included. The model may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The bytes of text that a token stands for: an added token is printed as it is written.
    fn bytes(&self, id: u32, token: &str) -> Vec<u8> {
        let added = self.inner.get_added_vocabulary();
        if added.get_added_tokens_decoder().contains_key(&id) {
            self.spelling.added(token)
        } else {
            self.spelling.bytes(token)
        }
    }

    fn spelling(&self) -> &Spelling {
        &self.spelling
    }

    fn is_special(&self, token: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(token)
    }

    /// The token with this id; none for a row that only pads the embedding (a model can pick it,
    /// and that is no reason to stop).
    fn token(&self, id: u32) -> Result<Option<String>> {
        let token = self.inner.id_to_token(id);
        if token.is_none() && id as usize >= self.rows {
            bail!(
                "token id {id} is beyond the vocabulary of {} ({} ids)",
                self.name,
                self.rows
            );
        }
        Ok(token)
    }
}

fn spelling_of(inner: &tokenizers::Tokenizer) -> Result<Spelling> {
    let normalizer = serde_json::to_value(inner.get_normalizer())?;
    let pre_tokenizer = serde_json::to_value(inner.get_pre_tokenizer())?;
    let decoder = serde_json::to_value(inner.get_decoder())?;
    Spelling::of(&[normalizer, pre_tokenizer], &decoder)
}
