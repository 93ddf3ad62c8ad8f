//! What a step says of itself, to whoever records it.

use std::collections::BTreeMap;

use anyhow::Result;
use shared::request::Step;

use crate::likely::Told;
use crate::plan::{Plan, SequenceId};
use crate::sequence::Sequence;

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
    /// What its rows have tried out, if any of them had a guess.
    pub tried: Vec<Tried>,
}

impl Stepped {
    /// A step that was started, in which so many rows decode: one token each.
    pub(crate) fn new(plan: Plan, rows: usize) -> Self {
        let tokens: usize = plan.pieces.iter().map(|piece| piece.range.len()).sum();
        Self {
            plan,
            rows,
            prompt_tokens: tokens - rows,
            events: Vec::new(),
            tried: Vec::new(),
        }
    }

    /// Waits for what the step brings. Nothing comes for those who ended in the meantime: it was run for nothing.
    pub(crate) fn read(&mut self, sequences: &mut BTreeMap<SequenceId, Sequence>) {
        for piece in &self.plan.pieces {
            if let Some(sequence) = sequences.get_mut(&piece.id) {
                let event = |(step, likely)| Event {
                    id: piece.id,
                    step,
                    likely,
                };
                self.events
                    .extend(sequence.read(piece).into_iter().map(event));
            }
        }
    }

    /// Tokens of answers that it has brought.
    pub(crate) fn tokens(&self) -> usize {
        let tokens =
            (self.events.iter()).filter(|event| matches!(event.step, Ok(Step::Token { .. })));
        tokens.count()
    }

    /// Those whose answer has ended with this step.
    pub(crate) fn ended(&self) -> impl Iterator<Item = SequenceId> {
        let ends = |event: &&Event| matches!(event.step, Err(_) | Ok(Step::End(_)));
        self.events.iter().filter(ends).map(|event| event.id)
    }
}

/// What a request got from a step.
#[derive(Debug)]
pub struct Event {
    /// Whose.
    pub id: SequenceId,
    /// An error ends this request and no other one.
    pub step: Result<Step>,
    /// How likely its token was, and the tokens of its prompt, as far as that was asked for.
    pub likely: Told,
}

impl Tried {
    /// Nothing was guessed, since that would have lost time.
    pub(crate) fn gave_up(id: SequenceId) -> Self {
        Self {
            id,
            guessed: 0,
            right: 0,
            ended: false,
            cost: 0.0,
            stopped: true,
        }
    }
}

/// What became of a guess.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// Whose.
    pub id: SequenceId,
    /// Tokens that were guessed; 0 if only other rows of the step had any.
    pub guessed: usize,
    /// The first so many of them were right.
    pub right: usize,
    /// Whether the answer ended before all of them were looked at.
    pub ended: bool,
    /// How many steps without guesses would have taken as long; 0 if that is not known.
    pub cost: f64,
    /// Whether guessing has lost time, and so makes a pause.
    pub stopped: bool,
}
