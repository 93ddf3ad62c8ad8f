//! What a step says of itself, to whoever records it.

use anyhow::Result;
use shared::request::Step;

use crate::scheduler::{Plan, SequenceId};

/// What one step was, and what it brought.
#[derive(Debug, Default)]
pub struct Stepped {
    /// As it was planned, with the reasons. Without pieces there was nothing to run: ask again at its `wake`, or
    /// when a request has come.
    pub plan: Plan,
    /// Rows that got their next id together, in one run of the model.
    pub rows: usize,
    /// Tokens of prompts that ran beside them, those included that were computed again.
    pub prompt_tokens: usize,
    /// What each request got, in order of arrival. The last token that was asked for brings an end with it.
    pub events: Vec<Event>,
}

/// What a request got from a step.
#[derive(Debug)]
pub struct Event {
    /// Whose.
    pub id: SequenceId,
    /// An error ends this request and no other one.
    pub step: Result<Step>,
}
