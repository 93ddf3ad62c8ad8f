//! What a request gets: whole, and in events.

use console::metrics::FinishReason;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{CompletionLogprobs, Logprob};
use crate::ask::Usage;

/// Why an answer ended, in OpenAI's word.
pub fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Interrupted => "stop",
    }
}

/// The answers to a chat.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Chat {
    /// Of this request alone.
    pub id: String,
    /// `chat.completion`.
    pub object: &'static str,
    /// When it was asked, in seconds since 1970.
    pub created: u64,
    /// Who answers.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// What they have cost.
    pub usage: UsageObject,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Which one, counted from 0.
    pub index: usize,
    /// What is said.
    pub message: ChatMessage,
    /// How likely its tokens were, if that was asked for.
    #[schema(required)]
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    #[schema(required)]
    pub finish_reason: Option<String>,
    /// The text of `stop` that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The text.
    #[schema(required)]
    pub content: Option<String>,
    /// Always null: a model that refuses says so in its text.
    #[schema(required)]
    pub refusal: Option<String>,
    /// Functions that it calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub tool_calls: Option<Value>,
}

/// How likely the tokens of an answer were.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One for each.
    #[schema(required)]
    pub content: Option<Vec<Logprob>>,
    /// Always null.
    #[schema(required)]
    pub refusal: Option<Vec<Logprob>>,
}

impl ChatLogprobs {
    /// Of the tokens of an answer.
    pub fn new(content: Vec<Logprob>) -> Self {
        Self {
            content: Some(content),
            refusal: None,
        }
    }
}

/// More of an answer to a chat.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatChunk {
    /// The same in all events of a request.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: &'static str,
    /// When it was asked, in seconds since 1970.
    pub created: u64,
    /// Who answers.
    pub model: String,
    /// One answer; none in the event that has the usage.
    pub choices: Vec<ChatDelta>,
    /// Null in all events but the last one, and there only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    pub usage: Option<Option<UsageObject>>,
}

/// More of one answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatDelta {
    /// Which one, counted from 0.
    pub index: usize,
    /// `role` in the first event, `content` or `tool_calls` in others, nothing in the last one.
    #[schema(value_type = Object)]
    pub delta: Value,
    /// How likely its tokens were, if that was asked for.
    #[schema(required)]
    pub logprobs: Option<ChatLogprobs>,
    /// Null until the last event of the answer.
    #[schema(required)]
    pub finish_reason: Option<String>,
    /// The text of `stop` that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
}

/// The answers to a completion, or more of them: both look the same.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Completion {
    /// The same in all events of a request.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// When it was asked, in seconds since 1970.
    pub created: u64,
    /// Who answers.
    pub model: String,
    /// The answers.
    pub choices: Vec<CompletionChoice>,
    /// What they have cost. In a stream as in a chat's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    pub usage: Option<Option<UsageObject>>,
}

/// One answer, or more of one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CompletionChoice {
    /// Which one: all answers to the first prompt, then those to the second one.
    pub index: usize,
    /// The text.
    pub text: String,
    /// How likely its tokens were, if that was asked for.
    #[schema(required)]
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null until the last event of the answer.
    #[schema(required)]
    pub finish_reason: Option<String>,
    /// The text of `stop` that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
}

/// What the answers of a request have cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageObject {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens of the answers.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// More of the first.
    pub prompt_tokens_details: PromptDetails,
    /// More of the second.
    pub completion_tokens_details: CompletionDetails,
}

/// Tokens of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptDetails {
    /// Those that were not computed again.
    pub cached_tokens: usize,
}

/// Tokens of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompletionDetails {
    /// Always 0: what a model thinks is a part of its answer here.
    pub reasoning_tokens: usize,
    /// Those that no step of their own was run for: a grammar left no choice about them, or they were guessed.
    pub accepted_prediction_tokens: usize,
    /// Guesses that were wrong. They are no part of the answer.
    pub rejected_prediction_tokens: usize,
}

impl UsageObject {
    /// Adds what one prompt and its answers have cost.
    pub fn add(&mut self, usage: &Usage) {
        self.prompt_tokens += usage.prompt_tokens;
        self.completion_tokens += usage.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
        // More than there are would make some clients count a negative rest.
        self.prompt_tokens_details.cached_tokens += usage.cached_tokens.min(usage.prompt_tokens);
        let details = &mut self.completion_tokens_details;
        details.accepted_prediction_tokens += usage.forced_tokens + usage.guesses.right;
        details.rejected_prediction_tokens += usage.guesses.guessed - usage.guesses.right;
    }
}

/// What is served.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// One.
    pub data: Vec<ModelCard>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelCard {
    /// Its name in requests.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When the server started, in seconds since 1970.
    pub created: u64,
    /// Who serves it.
    pub owned_by: &'static str,
    /// Tokens of prompt and answer at most.
    pub max_model_len: usize,
}
