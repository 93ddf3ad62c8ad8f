//! What is written of an ask that was answered: all that its answer depends on, and the answer.

use std::sync::Arc;

use console::cli::{FloatType, ModelArgs};
use console::machine::Versions;
use console::metrics::FinishReason;
use serde::{Deserialize, Serialize};
use shared::sampling::{Penalties, Sampling};

use crate::ask::{Ask, Event, Grammar, TokenInfo};
use crate::flags::LimitArgs;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which ask of the engine. Who asked later has a higher number.
    pub id: u64,
    /// What its client calls it: the `id` of the response.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Asks that had rows at the same time.
    pub beside: Vec<u64>,
    /// What was asked.
    pub ask: Asked,
    /// Tokens of its prompt that were cached.
    pub cached: usize,
    /// How likely the tokens of the prompt were, if that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt: Vec<Token>,
    /// Each answer.
    pub answers: Vec<Answered>,
    /// Who has answered.
    pub engine: Facts,
}

impl Record {
    /// Of an answer that somebody has listened to.
    pub(crate) fn of(ask: &Ask, engine: Facts, cached: usize, text: &str, tokens: &[u32]) -> Self {
        let answer = Answered {
            text: text.to_owned(),
            tokens: tokens.iter().map(|id| Token::Alone([*id])).collect(),
            ..Answered::default()
        };
        Self {
            id: 0,
            name: ask.name.clone(),
            beside: Vec::new(),
            ask: Asked::from(ask),
            cached,
            prompt: Vec::new(),
            answers: vec![answer],
            engine,
        }
    }
}

/// An engine, as far as its answers depend on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// As it was asked for.
    pub model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// Who ran in a step, and with how much.
    pub limits: LimitArgs,
    /// This program.
    pub version: String,
    /// Of what it stands on.
    pub versions: Versions,
}

impl Facts {
    /// An engine of this program.
    pub fn new(model: &ModelArgs, limits: &LimitArgs, versions: Versions) -> Self {
        let dtype = model.dtype.map(|dtype| match dtype {
            FloatType::F32 => "f32",
            FloatType::F16 => "f16",
            FloatType::Bf16 => "bf16",
        });
        Self {
            model: model.model.clone(),
            revision: model.revision.clone(),
            dtype: dtype.map(str::to_owned),
            limits: limits.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            versions,
        }
    }

    /// Which model.
    ///
    /// # Errors
    /// If its type is none that there is.
    pub fn model_args(&self) -> anyhow::Result<ModelArgs> {
        let dtype = match self.dtype.as_deref() {
            None => None,
            Some("f32") => Some(FloatType::F32),
            Some("f16") => Some(FloatType::F16),
            Some("bf16") => Some(FloatType::Bf16),
            Some(other) => anyhow::bail!("there is no type {other:?}"),
        };
        Ok(ModelArgs {
            model: self.model.clone(),
            revision: self.revision.clone(),
            dtype,
        })
    }
}

/// An [`Ask`] as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    ids: Vec<u32>,
    max_tokens: usize,
    pub(crate) sampling: Sampling,
    penalties: Penalties,
    pub(super) n: usize,
    stop: Vec<String>,
    ignore_eos: bool,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    grammar: Option<Grammar>,
}

impl Asked {
    /// The prompt.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether sampling is all that has a say in which token comes.
    pub(crate) fn is_plain(&self) -> bool {
        self.penalties == Penalties::default() && self.grammar.is_none()
    }
}

impl From<&Ask> for Asked {
    fn from(ask: &Ask) -> Self {
        let ask = ask.clone();
        Self {
            ids: ask.ids,
            max_tokens: ask.max_tokens,
            sampling: ask.sampling,
            penalties: ask.penalties,
            n: ask.n,
            stop: ask.stop,
            ignore_eos: ask.ignore_eos,
            logprobs: ask.logprobs,
            prompt_logprobs: ask.prompt_logprobs,
            grammar: ask.grammar.as_deref().cloned(),
        }
    }
}

impl From<&Asked> for Ask {
    fn from(asked: &Asked) -> Self {
        let asked = asked.clone();
        Self {
            name: String::new(),
            ids: asked.ids,
            max_tokens: asked.max_tokens,
            sampling: asked.sampling,
            penalties: asked.penalties,
            n: asked.n,
            stop: asked.stop,
            ignore_eos: asked.ignore_eos,
            logprobs: asked.logprobs,
            prompt_logprobs: asked.prompt_logprobs,
            grammar: asked.grammar.map(Arc::new),
        }
    }
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answered {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub reason: Option<FinishReason>,
    /// The stop text that ended it.
    pub stop: Option<String>,
}

/// What an event adds to the prompt's tokens and to the answers, of which there are as many as were asked for.
pub(super) fn hear(event: &Event, prompt: &mut Vec<Token>, answers: &mut [Answered]) {
    match event {
        Event::Prompt(tokens) => *prompt = tokens.iter().map(Token::from).collect(),
        Event::Delta {
            choice,
            text,
            tokens,
        } => {
            if let Some(answer) = answers.get_mut(*choice) {
                answer.text.push_str(text);
                answer.tokens.extend(tokens.iter().map(Token::from));
            }
        }
        Event::End {
            choice,
            reason,
            stop,
        } => {
            if let Some(answer) = answers.get_mut(*choice) {
                (answer.reason, answer.stop) = (Some(*reason), stop.clone());
            }
        }
        Event::Started { .. } | Event::Progress { .. } | Event::Done(_) | Event::Failed(_) => {}
    }
}

/// A token, and how likely it was if that was asked for: `[id]`, or `[id, logprob, [[id, logprob], …]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Token {
    /// With its likelihood and those of the likeliest.
    Likely(u32, f32, Vec<(u32, f32)>),
    /// Alone.
    Alone([u32; 1]),
}

impl Token {
    /// The id.
    pub fn id(&self) -> u32 {
        match self {
            Self::Likely(id, ..) | Self::Alone([id]) => *id,
        }
    }
}

impl From<&TokenInfo> for Token {
    fn from(info: &TokenInfo) -> Self {
        // JSON has no number for what is impossible.
        let number = |logprob: f32| logprob.max(f32::MIN);
        let top = info
            .top
            .iter()
            .map(|(id, _, logprob)| (*id, number(*logprob)));
        match info.logprob {
            Some(logprob) => Self::Likely(info.id, number(logprob), top.collect()),
            None => Self::Alone([info.id]),
        }
    }
}
