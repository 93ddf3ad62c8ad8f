//! A guess is tried out: a step runs all of its tokens, and what is right of it stays.
//!
//! Of a row whose next tokens were guessed, the step runs its last token and the guess behind it, as if it were a piece
//! of a prompt: k + 1 positions, each with scores for the token after it. From each of them that token is drawn as it
//! would have been without a guess: by the request's own filters, penalties, grammar and random numbers. As long as what
//! was drawn is what was guessed, the next position has run with the right token before it, and what was drawn there
//! counts, too. The first difference ends it, and the positions behind it are forgotten.
//!
//! So a guess can change when a token comes and never which one. That is rejection sampling (Leviathan et al. 2023, arXiv
//! 2211.17192; Chen et al. 2023, arXiv 2302.01318) with the draw made first: a guess x stands with its probability p(x),
//! and if it does not, what comes instead is distributed as p without x. The papers draw the guess from a distribution q,
//! with random numbers of its own, and accept it with min(1, p/q). At a temperature that accepts more of a draft model's
//! guesses, but then the answer depends on what was guessed. Here a request has the same answer whether its guesses are
//! many, few or switched off, which a clock decides.

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, transforms};
use shared::request::Step;
use shared::sampling::{Choice, Sampler, sample_rows};

use crate::ahead::Ahead;
use crate::batch::Batch;
use crate::engine::Engine;
use crate::generate::Generator;
use crate::likely::{self, Told};
use crate::limits::Memory;
use crate::model::Model;
use crate::plan::SequenceId;
use crate::prompts;
use crate::scheduler::Scheduler;
use crate::sequence::{Rows, Sequence};
use crate::stepped::{Stepped, Tried};

/// A row's part in a step that tries guesses out.
#[derive(Debug)]
pub struct Trial {
    guess: Vec<u32>,
    /// For the token after the last one, and for the one after each that was guessed.
    samplers: Vec<Sampler>,
    /// Tokens that the step runs of each row: those behind a guess that is shorter than others are thrown away.
    width: usize,
    /// Of what was drawn, so much counts.
    drawn: usize,
}

/// Starts a step in which each row runs its last token and its guess, which may be empty.
///
/// # Cost
/// All rows run as many tokens as the longest guess makes of one: where a batch is one rectangle, what a row does not need
/// of it is computed for nothing, except for the scores. vLLM lays the tokens of all rows into one line, for which its
/// attention has a kernel of its own.
pub fn start(
    rows: Rows<'_>,
    guesses: Vec<Vec<u32>>,
    model: &Model,
    batch: &mut Batch,
) -> Result<()> {
    let mut rows = rows.0;
    for (row, guess) in rows.iter_mut().zip(guesses) {
        row.try_out(guess)?;
    }
    let trials = rows.iter().filter_map(|row| row.trial.as_ref());
    let counts: Vec<usize> = trials.map(|trial| trial.samplers.len()).collect();
    let width = counts.iter().copied().max().unwrap_or(1);
    let mut ids = Vec::with_capacity(rows.len() * width);
    let mut places = Vec::new();
    for (row, count) in rows.iter_mut().zip(&counts) {
        let first = ids.len();
        places.extend((first..first + count).map(|place| place as i32));
        ids.extend(row.tried(width)?);
    }
    let ids = Array::from_slice(&ids, &[rows.len() as i32, width as i32]);
    let hidden = batch.run_several(model, &ids)?; // [B, L, E]
    let logits = prompts::scores(model, &hidden, &places)?; // [N, V]
    let trials = rows.iter_mut().filter_map(|row| row.trial.as_mut());
    let mut samplers: Vec<&mut Sampler> = trials.flat_map(|trial| &mut trial.samplers).collect();
    let next = sample_rows(&mut samplers, &logits)?;
    likely::start_several(&mut rows, &counts, &logits, &next)?;
    transforms::async_eval(next.iter().flat_map(Choice::arrays))?;
    let mut next = next.into_iter();
    for (row, count) in rows.into_iter().zip(counts) {
        let mut of_row = next.by_ref().take(count);
        of_row.try_for_each(|next| row.start(next, 1))?;
    }
    Ok(())
}

/// What a step has tried out is known: its rows go back to where they were right.
pub(crate) fn settle(step: &mut Stepped, generator: &mut Generator<'_>) -> Result<()> {
    let ended: Vec<SequenceId> = step.ended().collect();
    for piece in &step.plan.pieces {
        let sequence = generator.sequences.get_mut(&piece.id);
        let Some(trial) = sequence.and_then(Sequence::conclude) else {
            continue;
        };
        let wrong = trial.width - trial.drawn;
        generator.batch.go_back(piece.id, wrong)?;
        generator.scheduler.further(piece.id, trial.drawn - 1);
        step.tried.push(Tried {
            id: piece.id,
            guessed: trial.guess.len(),
            right: trial.drawn - 1,
            ended: ended.contains(&piece.id),
            cost: 0.0,
            stopped: false,
        });
    }
    Ok(())
}

impl Sequence {
    /// Takes a guess on trial, as far as the grammar allows it: with a sampler for each position, which draws what would
    /// be drawn there if all that was guessed before it had been.
    fn try_out(&mut self, mut guess: Vec<u32>) -> Result<()> {
        let left = if self.likely.of_answer() {
            0
        } else {
            self.left()
        };
        let (may, masks) = match &self.constraint {
            Some(constraint) => constraint.along(&guess, left),
            None => (guess.len(), Vec::new()),
        };
        if masks.is_empty() {
            self.allow(); // or it says why nothing can be
        }
        guess.truncate(may);
        let mut sampler = self.sampler.clone();
        let mut samplers = Vec::with_capacity(guess.len() + 1);
        for place in 0..=guess.len() {
            if let Some(before) = place.checked_sub(1) {
                sampler.skip(&guess[before..place])?;
            }
            if let Some(mask) = masks.get(place) {
                sampler.allow(mask);
            }
            samplers.push(sampler.clone());
        }
        self.trial = Some(Trial {
            guess,
            samplers,
            width: 0,
            drawn: 0,
        });
        Ok(())
    }

    /// What runs: the last token, the guess, and anything up to the width of the step.
    fn tried(&mut self, width: usize) -> Result<Vec<u32>> {
        let last = *self.ids.last().context("nothing to go on from")?;
        let trial = self.trial.as_mut().context("nothing is tried out")?;
        trial.width = width;
        let mut ids = vec![last];
        ids.extend(&trial.guess);
        ids.resize(width, last);
        Ok(ids)
    }

    /// What is read next counts: it was drawn behind tokens that are all right.
    pub(crate) fn count(&mut self) {
        let Some(trial) = &mut self.trial else { return };
        if let Some(sampler) = trial.samplers.get(trial.drawn) {
            self.sampler = sampler.clone();
        }
        trial.drawn += 1;
    }

    /// Whether what was read is what was guessed, and all that came: then what was drawn behind it counts, too.
    pub(crate) fn accepts(&self, read: &[(Result<Step>, Told)]) -> bool {
        let (Some(trial), [(Ok(Step::Token { id, .. }), _)]) = (&self.trial, read) else {
            return false;
        };
        trial.guess.get(trial.drawn - 1) == Some(id)
    }

    /// The trial is over: nobody will read what was drawn behind a wrong guess.
    fn conclude(&mut self) -> Option<Trial> {
        let trial = self.trial.take()?;
        self.ahead = Ahead::default();
        self.likely.forget();
        if let Some(last) = self.ids.last() {
            self.input = Array::from_slice(&[*last], &[1]);
        }
        Some(trial)
    }
}

impl Batch {
    /// Several tokens of every row: ids `[B, L]`, in the order of the rows → what the layers make of them `[B, L, E]`.
    pub(crate) fn run_several(&mut self, model: &Model, ids: &Array) -> Result<Array> {
        ensure!(
            self.can_go_back(),
            "a ring has overwritten what it would go back to: nothing can be tried out"
        );
        for positions in &self.positions {
            positions.borrow_mut().advance(ids.dim(1));
        }
        model.hidden(ids, &mut self.cache)
    }

    /// Whether its rows can forget their latest positions.
    pub(crate) fn can_go_back(&self) -> bool {
        let mut all = self.positions.iter();
        all.all(|positions| positions.borrow().goes_back())
    }

    /// A row forgets its latest positions. Nothing happens if it is not here.
    pub(crate) fn go_back(&mut self, id: SequenceId, positions: usize) -> Result<()> {
        if let Some(row) = self.row(id) {
            let seen = self.seen(row);
            ensure!(
                positions <= seen,
                "a row with {seen} positions cannot go back by {positions}"
            );
            for layers in &self.positions {
                layers.borrow_mut().go_back(row, positions as i32);
            }
        }
        Ok(())
    }
}

impl Scheduler {
    /// How many tokens more than one each of so many rows may run in a step, if it runs nothing else: what is left of the
    /// step and of memory.
    pub(crate) fn spare(&self, rows: usize) -> usize {
        let memory = match self.limits.memory {
            Memory::Reserve => usize::MAX, // a row was promised all that it may ever need
            Memory::Preempt => self.limits.kv_tokens.saturating_sub(self.promised()),
        };
        let step = self.limits.tokens_per_step.saturating_sub(rows);
        memory.min(step) / rows.max(1)
    }

    /// An answer has got so many more tokens than were planned, and so many positions more are in memory.
    fn further(&mut self, id: SequenceId, tokens: usize) {
        if let Ok(at) = self.running.binary_search_by_key(&id, |entry| entry.id)
            && let Some(entry) = self.running.get_mut(at)
        {
            entry.tokens += tokens;
            entry.computed += tokens;
        }
    }
}

impl Engine<'_> {
    /// Those who asked will be told how good their guesses were.
    pub(crate) fn tried(&mut self, step: &Stepped) {
        for tried in &step.tried {
            let ask = self.answers.get(&tried.id).map(|(ask, _)| ask);
            if let Some(ask) = ask.and_then(|ask| self.asks.get_mut(ask)) {
                ask.tried(tried);
            }
        }
    }
}
