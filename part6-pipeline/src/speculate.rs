//! What comes next is guessed, as long as that pays.
//!
//! A step reads every weight for one token of each row. Several tokens in a row would cost little more, if only they were
//! known. So they are guessed, and the step finds out how many of the guesses are right ([`trial`](crate::trial)): each of
//! them saves a step, and none can change the answer. Two ways to guess:
//!
//! - [`lookup`](fn@lookup): what followed the last time when the latest tokens were the same. It costs nothing, and is
//!   right where an answer repeats its prompt or itself: code that is edited, text that is quoted, JSON.
//! - A draft: a much smaller model of the same vocabulary goes ahead. It is right where the next token is easy, and its
//!   own steps cost time.
//!
//! A step of k + 1 positions takes longer than one of a single position: on a GPU little, on a CPU much, with weights of 4
//! bits on a Mac almost as much as k + 1 steps. So the gain is (right guesses + 1) ÷ (time of the step ÷ time of one
//! without guesses), and both are measured all the time. What does not gain is not run: the number of guesses is the one
//! that pays most, and a request whose guesses lose time stops guessing for a while.

mod gain;
mod lookup;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::generate::Generator;
use crate::plan::SequenceId;
use crate::sequence::{Rows, Sequence};
use crate::stepped::Stepped;

pub use gain::{Guesses, MOST, Times, break_even};
pub use lookup::lookup;

/// Steps with guesses after which one without shows again what that takes: contexts grow, and other programs come and go.
const PLAIN_AGAIN: usize = 48;

/// Tokens for which a row does not guess where a step has no room for guesses.
const NO_ROOM: usize = 8;

/// How to guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speculation {
    /// In the prompt and the answer so far.
    pub lookup: bool,
    /// Tokens that are guessed at once, at most; at most [`MOST`].
    pub most: usize,
    /// Guesses also where it takes longer than it saves, to show that.
    pub always: bool,
}

impl Default for Speculation {
    /// Nothing is guessed.
    fn default() -> Self {
        Self {
            lookup: false,
            most: 5,
            always: false,
        }
    }
}

/// Guesses for all rows, and knows what that costs. Without a way to guess it does nothing.
#[derive(Debug, Default)]
pub struct Speculator {
    how: Speculation,
    times: Times,
    /// When the last step ended, if rows were left that could go on at once.
    last: Option<Instant>,
    since_plain: usize,
}

impl Speculator {
    /// One that guesses like this.
    pub fn new(how: Speculation) -> Self {
        Self {
            how,
            ..Self::default()
        }
    }

    fn is_on(&self) -> bool {
        self.how.lookup
    }

    /// How long steps take.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Whether the next step of a row cannot be described before the ids of the last one are on the host.
    pub(crate) fn waits_for(&self, sequence: &Sequence) -> bool {
        sequence.trial.is_some() || self.is_on() && !sequence.guesses.rests(sequence.ids.len())
    }

    /// What may come next in each of the rows, at most so many tokens: none for some of them. None at all where a step of
    /// one token each is the better one.
    pub(crate) fn guess(
        &mut self,
        rows: &mut Rows<'_>,
        most: usize,
    ) -> Result<Option<Vec<Vec<u32>>>> {
        if !self.is_on() {
            return Ok(None);
        }
        let rows = &mut rows.0;
        let most = most.min(self.how.most).min(MOST);
        if most == 0 {
            for row in rows {
                row.guesses.rest(row.ids.len(), NO_ROOM);
            }
            return Ok(None);
        }
        let look = |row: &&mut Sequence| {
            if row.guesses.rests(row.ids.len()) {
                return Vec::new();
            }
            // The last token of an answer comes with a run of its own anyway.
            lookup(&row.ids, most.min(row.left().saturating_sub(1)))
        };
        let mut guesses: Vec<Vec<u32>> = rows.iter().map(look).collect();
        let width = self.width(rows, &guesses);
        guesses
            .iter_mut()
            .for_each(|guess| guess.truncate(width - 1));
        self.since_plain = if width > 1 { self.since_plain + 1 } else { 0 };
        Ok((width > 1).then_some(guesses))
    }

    /// Tokens of each row that the step runs: as many as bring most in the time that they take.
    fn width(&self, rows: &mut [&mut Sequence], guesses: &[Vec<u32>]) -> usize {
        let longest = guesses.iter().map(Vec::len).max().unwrap_or(0);
        if self.how.always || longest == 0 {
            return 1 + longest;
        }
        if !self.times.is_known(rows.len()) || self.since_plain >= PLAIN_AGAIN {
            return 1;
        }
        let (mut best, mut most) = (1, rows.len() as f64);
        for width in 2..=1 + longest {
            let tokens = rows.iter().zip(guesses).map(|(row, guess)| {
                let run = guess.len().min(width - 1);
                1.0 + row.guesses.expected(run)
            });
            let brings = tokens.sum::<f64>() / self.times.ratio(rows.len(), width);
            if brings > most {
                (best, most) = (width, brings);
            }
        }
        if best == 1 {
            let guessed = rows.iter_mut().zip(guesses);
            for (row, _) in guessed.filter(|(_, guess)| !guess.is_empty()) {
                row.guesses.give_up(row.ids.len());
            }
        }
        best
    }

    /// What a step took and what it brought.
    pub(crate) fn learn(
        &mut self,
        step: &mut Stepped,
        sequences: &mut BTreeMap<SequenceId, Sequence>,
    ) {
        if !self.is_on() {
            return;
        }
        let now = Instant::now();
        let last = self.last.replace(now).filter(|_| step.rows > 0);
        if step.plan.pieces.is_empty() || step.ended().count() == sequences.len() {
            self.last = None; // the next step begins when somebody comes
        }
        let Some(last) = last.filter(|_| step.prompt_tokens == 0) else {
            return;
        };
        let guessed = step.tried.iter().map(|tried| tried.guessed).max();
        let width = 1 + guessed.unwrap_or(0);
        self.times.add(step.rows, width, now - last);
        let cost = self.times.ratio(step.rows, width);
        for tried in step.tried.iter_mut().filter(|tried| tried.guessed > 0) {
            if let Some(sequence) = sequences.get_mut(&tried.id) {
                tried.cost = cost;
                tried.stopped = sequence.guesses.learn(tried) && !self.how.always;
                if tried.stopped {
                    sequence.guesses.give_up(sequence.ids.len());
                }
            }
        }
    }
}

impl Generator<'_> {
    /// Guesses what comes next from now on.
    ///
    /// # Errors
    /// If the keys and values of what was guessed wrongly could not be forgotten.
    pub fn speculate(&mut self, speculator: Speculator) -> Result<()> {
        ensure!(
            !speculator.is_on() || self.batch().can_go_back(),
            "a rotating cache has overwritten what it would go back to after a wrong guess: take one that keeps all \
             positions, or do not guess"
        );
        self.speculator = speculator;
        Ok(())
    }
}
