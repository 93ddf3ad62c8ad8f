//! What comes next is guessed, as long as that pays.
//!
//! A step reads every weight for one token of each row. Several tokens in a row would cost little more, if only they were
//! known. So they are guessed, and the step finds out how many of the guesses are right ([`trial`](crate::trial)): each of
//! them saves a step, and none can change the answer. Two ways to guess:
//!
//! - [`lookup`](fn@lookup): what followed the last time when the latest tokens were the same. It costs nothing, and is
//!   right where an answer repeats its prompt or itself: code that is edited, text that is quoted, JSON.
//! - [`Draft`]: a much smaller model of the same vocabulary goes ahead. It is right where the next token is easy, and its
//!   own steps cost time.
//!
//! A step of k + 1 positions takes longer than one of a single position: on a GPU little, on a CPU much, with weights of 4
//! bits on a Mac almost as much as k + 1 steps. So the gain is (right guesses + 1) ÷ (time of the step ÷ time of one
//! without guesses), and both are measured all the time. What does not gain is not run: the number of guesses is the one
//! that pays most, and a request whose guesses lose time stops guessing for a while.

mod draft;
mod gain;
mod lookup;
mod report;
mod tour;

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use anyhow::{Result, ensure};
use console::cli::ModelArgs;
use shared::tokenizer::Tokenizer;

use crate::generate::Generator;
use crate::plan::SequenceId;
use crate::sequence::{Rows, Sequence};
use crate::stepped::{Stepped, Tried};

pub use draft::Draft;
pub use gain::{MOST, Record, Times, break_even};
pub use lookup::lookup;
pub use tour::{SpeculateArgs, run};

/// Steps with guesses after which one without shows again what that takes: contexts grow, and other programs come and go.
const PLAIN_AGAIN: usize = 48;

/// Tokens for which a row does not guess where a step has no room for guesses.
const NO_ROOM: usize = 8;

/// What guesses.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Way {
    /// Nothing does.
    #[default]
    Off,
    /// What is in the prompt and in the answer so far.
    Lookup,
    /// A smaller model of the same vocabulary.
    Draft(ModelArgs),
}

/// How to guess.
#[derive(Debug, Clone, PartialEq)]
pub struct Speculation {
    /// What does.
    pub way: Way,
    /// Tokens that are guessed at once, at most; no more than [`MOST`].
    pub most: usize,
    /// Also where it takes longer than it saves, to show that.
    pub always: bool,
}

impl Default for Speculation {
    /// Not at all.
    fn default() -> Self {
        Self {
            way: Way::Off,
            most: 5,
            always: false,
        }
    }
}

/// Guesses for all rows, and knows what that costs. Without a way to guess it does nothing.
#[derive(Debug, Default)]
pub struct Speculator {
    how: Speculation,
    draft: Option<Draft>,
    times: Times,
    /// When the last step ended, if rows were left that could go on at once.
    last: Option<Instant>,
    since_plain: usize,
}

/// What is known of the guesses for a request.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    /// How good they were.
    record: Record,
    /// It was clear that a guess would lose time, so there was none.
    gave_up: bool,
}

impl Speculator {
    /// One that guesses like this for a model with this tokenizer and so many scores. Of a draft model so many positions
    /// may be in memory.
    ///
    /// # Errors
    /// If the draft model cannot be opened, or cannot guess for this one.
    pub fn new(
        how: Speculation,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        positions: usize,
    ) -> Result<Self> {
        ensure!(
            (1..=MOST).contains(&how.most),
            "{} tokens cannot be guessed at once: take 1 to {MOST}",
            how.most
        );
        let draft = match &how.way {
            Way::Draft(model) => Some(Draft::open(model, tokenizer, vocab_size, positions)?),
            Way::Off | Way::Lookup => None,
        };
        Ok(Self {
            how,
            draft,
            ..Self::default()
        })
    }

    fn is_on(&self) -> bool {
        self.how.way != Way::Off
    }

    /// How long steps take.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Whether the next step of a row cannot be described before the ids of the last one are on the host.
    pub(crate) fn waits_for(&self, sequence: &Sequence) -> bool {
        let rests = |tokens| sequence.guesses.record.rests(tokens);
        sequence.trial.is_some() || self.is_on() && !rests(sequence.ids.len())
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
        let most = most.min(self.how.most);
        if most == 0 {
            for row in &mut rows.0 {
                row.guesses.record.rest(row.ids.len(), NO_ROOM);
            }
            return Ok(None);
        }
        let mut guesses: Vec<Vec<u32>> = rows.0.iter().map(|row| self.look(row, most)).collect();
        let mut counts: Vec<usize> = match &self.draft {
            None => guesses.iter().map(Vec::len).collect(),
            Some(draft) => (rows.0.iter())
                .map(|row| draft.most(row, room(row, most)))
                .collect(),
        };
        let width = self.width(&mut rows.0, &counts);
        self.since_plain = if width > 1 { self.since_plain + 1 } else { 0 };
        if width == 1 {
            return Ok(None);
        }
        if let Some(draft) = &mut self.draft {
            let cut = |count: &mut usize| *count = (*count).min(width - 1);
            counts.iter_mut().for_each(cut);
            guesses = draft.guess(rows, &counts)?;
        }
        guesses
            .iter_mut()
            .for_each(|guess| guess.truncate(width - 1));
        Ok(Some(guesses))
    }

    /// What costs nothing to guess.
    fn look(&self, row: &Sequence, most: usize) -> Vec<u32> {
        match self.how.way {
            Way::Lookup => lookup(&row.ids, room(row, most)),
            Way::Off | Way::Draft(_) => Vec::new(),
        }
    }

    /// Tokens of each row that the step runs: as many as bring most in the time that they take.
    fn width(&self, rows: &mut [&mut Sequence], guessed: &[usize]) -> usize {
        let longest = guessed.iter().copied().max().unwrap_or(0);
        if self.how.always || longest == 0 {
            return 1 + longest;
        }
        if !self.times.is_known(rows.len()) || self.since_plain >= PLAIN_AGAIN {
            return 1;
        }
        let (mut best, mut most) = (1, rows.len() as f64);
        for width in 2..=1 + longest {
            let tokens = rows.iter().zip(guessed).map(|(row, guessed)| {
                let run = (*guessed).min(width - 1);
                1.0 + row.guesses.record.expected(run)
            });
            let brings = tokens.sum::<f64>() / self.times.ratio(rows.len(), width);
            if brings > most {
                (best, most) = (width, brings);
            }
        }
        if best == 1 {
            let guessed = rows.iter_mut().zip(guessed);
            for (row, _) in guessed.filter(|(_, guessed)| **guessed > 0) {
                row.guesses.record.give_up(row.ids.len());
                row.guesses.gave_up = true;
            }
        }
        best
    }

    /// Nothing is left of what was known of a request, whose memory is wanted back.
    pub(crate) fn leave(&mut self, id: SequenceId) -> Result<()> {
        self.draft.as_mut().map_or(Ok(()), |draft| draft.leave(id))
    }

    /// What a step took and what it brought.
    pub(crate) fn learn(
        &mut self,
        step: &mut Stepped,
        sequences: &mut BTreeMap<SequenceId, Sequence>,
    ) -> Result<()> {
        if !self.is_on() {
            return Ok(());
        }
        for id in &step.plan.preempted {
            self.leave(*id)?; // memory is what was too little
        }
        for piece in &step.plan.pieces {
            let sequence = sequences.get_mut(&piece.id);
            if sequence.is_some_and(|sequence| mem::take(&mut sequence.guesses.gave_up)) {
                step.tried.push(Tried::gave_up(piece.id));
            }
        }
        let now = Instant::now();
        let last = self.last.replace(now).filter(|_| step.rows > 0);
        if step.plan.pieces.is_empty() || step.ended().count() == sequences.len() {
            self.last = None; // the next step begins when somebody comes
        }
        let Some(last) = last.filter(|_| step.prompt_tokens == 0) else {
            return Ok(());
        };
        let guessed = step.tried.iter().map(|tried| tried.guessed).max();
        let width = 1 + guessed.unwrap_or(0);
        self.times.add(step.rows, width, now - last);
        let cost = self.times.ratio(step.rows, width);
        for tried in step.tried.iter_mut().filter(|tried| tried.guessed > 0) {
            if let Some(sequence) = sequences.get_mut(&tried.id) {
                tried.cost = cost;
                tried.stopped = sequence.guesses.record.learn(tried) && !self.how.always;
                if tried.stopped {
                    sequence.guesses.record.give_up(sequence.ids.len());
                }
            }
        }
        Ok(())
    }
}

/// How many tokens may be guessed for a row: none while it rests. The last token of an answer comes with a run of its own
/// anyway.
fn room(row: &Sequence, most: usize) -> usize {
    if row.guesses.record.rests(row.ids.len()) {
        0
    } else {
        most.min(row.left().saturating_sub(1))
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
