//! The tokenizer inside a GGUF file.
//!
//! GGUF has no `tokenizer.json`, only its raw material: tokens, merges or scores, kinds of token,
//! and the *name* of a pre-tokenizer. The rules behind each name are written down here, for the
//! model families of this series. An unknown name is an error: with the wrong rules the ids look
//! plausible and the answers get quietly worse.

use anyhow::anyhow;
use serde::Deserialize;
use tokenizers::decoders::{
    byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip,
};
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::{self, NFC, Prepend, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, Result, SplitDelimiterBehavior};

use super::merges;
use crate::gguf::GgufHeader;

/// What a GGUF file says of its tokenizer: its `tokenizer.ggml.*` keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GgufVocabulary {
    /// `model`: "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE).
    pub model: String,
    /// `pre`: the name of the pre-tokenizer of a "gpt2" vocabulary.
    pub pre: Option<String>,
    /// `tokens`: the text of each id.
    pub tokens: Vec<String>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_type: Vec<u64>,
    /// `merges`: pairs in order of preference, "left right" ("gpt2").
    pub merges: Vec<String>,
    /// `scores`: the higher, the earlier a piece is made ("llama").
    pub scores: Vec<f32>,
    /// `bos_token_id`
    pub bos_token_id: Option<u32>,
    /// `eos_token_id`
    pub eos_token_id: Option<u32>,
    /// All ids that end an answer: `eos_token_id`, `eot_token_id` (turn), `eom_token_id` (message).
    pub stop_ids: Vec<u32>,
    /// `unknown_token_id`
    pub unknown_token_id: Option<u32>,
    /// `padding_token_id`
    pub padding_token_id: Option<u32>,
    /// `add_bos_token`; where absent, the model and the pre-tokenizer decide.
    pub add_bos_token: Option<bool>,
    /// `add_space_prefix`: is a space put before the text ("llama")? Default true.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`
    pub chat_template: Option<String>,
}

const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const BYTE: u64 = 6;

impl GgufVocabulary {
    /// Takes the tokenizer's keys out of a file's metadata. What is missing shows when it is built.
    pub fn from_header(header: &GgufHeader) -> Self {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let text = |name: &str| header.string(&key(name)).map(str::to_owned);
        let texts = |name: &str| {
            let list = header.strings(&key(name)).unwrap_or_default();
            list.into_iter().map(str::to_owned).collect()
        };
        Self {
            model: text("model").unwrap_or_default(),
            pre: text("pre"),
            tokens: texts("tokens"),
            token_type: header.u64s(&key("token_type")).unwrap_or_default(),
            merges: texts("merges"),
            scores: header.f32s(&key("scores")).unwrap_or_default(),
            bos_token_id: header.token("bos_token_id"),
            eos_token_id: header.token("eos_token_id"),
            stop_ids: header.stop_tokens(),
            unknown_token_id: header.token("unknown_token_id"),
            padding_token_id: header.token("padding_token_id"),
            add_bos_token: header.bool(&key("add_bos_token")),
            add_space_prefix: header.bool(&key("add_space_prefix")),
            chat_template: header.string("tokenizer.chat_template").map(str::to_owned),
        }
    }

    /// The token with this id.
    pub(crate) fn token(&self, id: Option<u32>) -> Option<&str> {
        self.tokens.get(id? as usize).map(String::as_str)
    }

    /// Builds the tokenizer.
    ///
    /// # Errors
    /// For a tokenizer model or pre-tokenizer that is not known, and for tables that do not fit
    /// together.
    pub(crate) fn build(&self) -> Result<tokenizers::Tokenizer> {
        self.check_tables()?;
        let mut tokenizer = match self.model.as_str() {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentencepiece()?,
            other => {
                return Err(format!(
                    "its tokenizer.ggml.model {other:?} is not supported (supported: gpt2, llama)"
                )
                .into());
            }
        };
        let added = |kind, special| {
            let tokens = self.of_type(kind).map(|(_, token)| token.to_owned());
            tokens.map(move |token| AddedToken::from(token, special).normalized(false))
        };
        tokenizer.add_tokens(added(USER_DEFINED, false))?;
        tokenizer.add_special_tokens(added(CONTROL, true))?;
        tokenizer.with_post_processor(self.bos_processor()?);
        Ok(tokenizer)
    }

    /// The same as the files of a directory in Hugging Face layout: names and contents.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(crate) fn files(&self) -> anyhow::Result<[(&'static str, String); 2]> {
        let tokenizer = self.build().and_then(|built| built.to_string(false));
        let tokenizer = tokenizer.map_err(|error| anyhow!(error))?;
        let mut config = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        for (key, text) in [
            ("bos_token", self.token(self.bos_token_id)),
            ("eos_token", self.token(self.eos_token_id)),
            ("unk_token", self.token(self.unknown_token_id)),
            ("pad_token", self.token(self.padding_token_id)),
            ("chat_template", self.chat_template.as_deref()),
        ] {
            if let Some(text) = text {
                config[key] = text.into();
            }
        }
        Ok([
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", config.to_string()),
        ])
    }

    fn check_tables(&self) -> Result<()> {
        let count = self.tokens.len();
        if count == 0 {
            return Err("it has no tokenizer.ggml.tokens".into());
        }
        for (name, length) in [
            ("token_type", self.token_type.len()),
            ("scores", self.scores.len()),
        ] {
            let fits = length == 0 || length == count;
            if !fits {
                return Err(format!(
                    "it has {count} tokens but {length} entries in tokenizer.ggml.{name}"
                )
                .into());
            }
        }
        let ids = [self.bos_token_id, self.eos_token_id, self.unknown_token_id];
        let named = ids.into_iter().chain([self.padding_token_id]).flatten();
        for id in named.chain(self.stop_ids.iter().copied()) {
            if id as usize >= count {
                return Err(format!("its special token {id} is beyond its {count} tokens").into());
            }
        }
        Ok(())
    }

    /// Tokens of one kind, with their ids.
    fn of_type(&self, kind: u64) -> impl Iterator<Item = (usize, &str)> {
        let kinds = self.token_type.iter().enumerate();
        kinds
            .filter(move |(_, k)| **k == kind)
            .map(|(id, _)| (id, self.tokens[id].as_str()))
    }

    fn vocabulary(&self) -> Vocab {
        (0..)
            .zip(&self.tokens)
            .map(|(id, token)| (token.clone(), id))
            .collect()
    }

    fn byte_level(&self) -> Result<tokenizers::Tokenizer> {
        let rules = PreTokenizer::named(self.pre.as_deref())?;
        let merges = self
            .merges
            .iter()
            .map(|merge| split_merge(merge))
            .collect::<Result<_>>()?;
        let bpe = BPE::builder().ignore_merges(rules == PreTokenizer::Llama3);
        let mut tokenizer = self.with_model(bpe, merges)?;
        if rules == PreTokenizer::Qwen2 {
            tokenizer.with_normalizer(Some(NFC))?;
        }
        tokenizer.with_pre_tokenizer(Some(rules.build()?));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    }

    /// SentencePiece: the text is one word, with `▁` for each space.
    ///
    /// The space before the text is put there by a normalizer, so a text that begins with a space
    /// gets a second one, as SentencePiece and llama.cpp do it.
    fn sentencepiece(&self) -> Result<tokenizers::Tokenizer> {
        if self.scores.is_empty() {
            return Err("it has no tokenizer.ggml.scores".into());
        }
        let mut bpe = BPE::builder().byte_fallback(true).fuse_unk(true);
        if let Some(unknown) = self.token(self.unknown_token_id) {
            bpe = bpe.unk_token(unknown.to_owned());
        }
        let kind = |id: usize| self.token_type.get(id).copied().unwrap_or(1);
        let is_made = |id| ![UNKNOWN, CONTROL, BYTE].contains(&kind(id));
        let merges = merges::from_scores(&self.tokens, &self.scores, is_made)?;
        let mut tokenizer = self.with_model(bpe, merges)?;
        let prefix = self.add_space_prefix.unwrap_or(true);
        let mut steps: Vec<normalizers::NormalizerWrapper> = Vec::new();
        if prefix {
            steps.push(Prepend::new("▁".to_owned()).into());
        }
        steps.push(Replace::new(" ", "▁")?.into());
        let steps = normalizers::Sequence::new(steps);
        tokenizer.with_normalizer(Some(steps))?;
        tokenizer.with_decoder(Some(Decoders::new(vec![
            Replace::new("▁", " ")?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
            Strip::new(' ', usize::from(prefix), 0).into(),
        ])));
        Ok(tokenizer)
    }

    fn with_model(&self, bpe: BpeBuilder, merges: Merges) -> Result<tokenizers::Tokenizer> {
        let bpe = bpe.vocab_and_merges(self.vocabulary(), merges).build();
        let bpe = bpe.map_err(|error| format!("its tokens and merges do not fit: {error}"))?;
        Ok(tokenizers::Tokenizer::new(bpe))
    }

    /// Puts BOS before a raw text, where the file asks for it.
    fn bos_processor(&self) -> Result<Option<PostProcessorWrapper>> {
        let llama3 = PreTokenizer::named(self.pre.as_deref()).ok() == Some(PreTokenizer::Llama3);
        let wanted = self
            .add_bos_token
            .unwrap_or(self.model == "llama" || llama3);
        let (true, Some(id), Some(bos)) =
            (wanted, self.bos_token_id, self.token(self.bos_token_id))
        else {
            return Ok(None);
        };
        let text = |sequence| serde_json::json!({"Sequence": {"id": sequence, "type_id": 0}});
        let mark = serde_json::json!({"SpecialToken": {"id": bos, "type_id": 0}});
        let processor = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [mark, text("A")],
            "pair": [mark, text("A"), text("B")],
            "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
        });
        let processor = serde_json::from_value(processor);
        Ok(Some(processor.map_err(|error| {
            format!("building the BOS rule: {error}")
        })?))
    }
}

fn split_merge(merge: &str) -> Result<(String, String)> {
    let pair = merge
        .split_once(' ')
        .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
    let (left, right) = pair.ok_or_else(|| format!("its merge {merge:?} is not a pair"))?;
    Ok((left.to_owned(), right.to_owned()))
}

/// How a byte-level vocabulary cuts a text into words before it merges bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PreTokenizer {
    /// Words with their leading space; the first and still the base of the others.
    Gpt2,
    /// As GPT-2, with each digit on its own.
    SmolLm,
    /// Digits in groups of up to three, line ends kept together. A word that is a token is taken as
    /// it is, even if no sequence of merges leads to it.
    Llama3,
    /// As Llama 3, with each digit on its own, after Unicode normalization (NFC).
    Qwen2,
}

/// Llama 3's word pattern, as it stands in its published tokenizer.json.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen 2's word pattern, as it stands in its published tokenizer.json.
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl PreTokenizer {
    fn named(pre: Option<&str>) -> Result<Self> {
        Ok(match pre {
            // Files older than the key, and files whose maker did not know better.
            None | Some("default" | "gpt-2" | "gpt2") => Self::Gpt2,
            Some("smollm") => Self::SmolLm,
            Some("llama-bpe" | "llama3" | "llama-v3") => Self::Llama3,
            Some("qwen2" | "deepseek-r1-qwen") => Self::Qwen2,
            Some(other) => {
                return Err(format!(
                    "its pre-tokenizer {other:?} is not supported (supported: default, gpt-2, smollm, \
                     llama-bpe, qwen2); use the model's safetensors files, which have a tokenizer.json"
                )
                .into());
            }
        })
    }

    fn build(self) -> Result<PreTokenizers> {
        let bytes = ByteLevel::default().add_prefix_space(false);
        let words = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(|error| format!("compiling a word pattern: {error}"))
        };
        Ok(PreTokenizers::new(match self {
            Self::Gpt2 => vec![bytes.into()],
            Self::SmolLm => vec![Digits::new(true).into(), bytes.into()],
            Self::Llama3 => vec![words(LLAMA3_WORDS)?.into(), bytes.use_regex(false).into()],
            Self::Qwen2 => vec![words(QWEN2_WORDS)?.into(), bytes.use_regex(false).into()],
        }))
    }
}
