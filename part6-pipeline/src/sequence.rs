//! One request on its way, with all that is its own: whoever shares its steps changes nothing of it.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;

use anyhow::{Error, Result};
use console::metrics::FinishReason;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, memory, ops, transforms};
use shared::layers::ids_array;
use shared::request::{Request, Step};
use shared::sampling::{Choice, Sampler, sample_rows};

use crate::ahead::Ahead;
use crate::ask::Ask;
use crate::cache::Cache;
use crate::constraint::Constraint;
use crate::generate;
use crate::likely::{self, Likely, Told};
use crate::model::Model;
use crate::plan::{Piece, SequenceId};
use crate::prefix::{Missed, Pin};
use crate::speculate::Guesses;
use crate::trial::Trial;

/// One request on its way.
#[derive(Debug)]
pub struct Sequence {
    request: Request,
    /// The prompt, then the answer as far as it is on the host.
    pub ids: Vec<u32>,
    /// Keys and values while the prompt runs, piece by piece; those of the answer are in the batch.
    pub cache: Option<Cache>,
    /// Draws from a random stream of its own. It outlives preemption: the next draw is the next one.
    pub sampler: Sampler,
    /// What the next step of the answer runs, an id `[1]`.
    pub input: Array,
    /// What the answer must match.
    pub constraint: Option<Constraint>,
    /// What the constraint said last, if it cannot go on: an end for this request alone.
    failed: Option<Error>,
    pub(crate) ahead: Ahead,
    /// How likely its tokens are, if that was asked for.
    pub likely: Likely,
    /// Who asked, for those who later begin in another way.
    pub by: u64,
    /// Keeps what it began with.
    pub pin: Option<Pin>,
    /// Why it could not begin with more.
    pub missed: Option<Missed>,
    /// Where it leaves the way of an earlier prompt, if whoever comes next can begin there only if it makes a checkpoint.
    pub(crate) fork: Option<usize>,
    /// How its next tokens are guessed, and how good that was.
    pub(crate) guesses: Guesses,
    /// A guess that is being tried out.
    pub(crate) trial: Option<Trial>,
}

impl Sequence {
    /// A request of which nothing has run.
    pub fn new(request: Request) -> Result<Self> {
        Ok(Self {
            ids: request.ids.clone(),
            cache: None,
            sampler: Sampler::new(&request.sampling, &request.ids)?,
            input: Array::from_slice::<u32>(&[], &[0]),
            constraint: None,
            failed: None,
            ahead: Ahead::default(),
            likely: Likely::default(),
            by: 0,
            pin: None,
            missed: None,
            fork: None,
            guesses: Guesses::default(),
            trial: None,
            request,
        })
    }

    /// Takes over what only this engine can do with one of the answers to an ask.
    pub fn begin(&mut self, by: u64, ask: &Ask, choice: usize) {
        self.by = by;
        self.sampler.penalize(&ask.penalties);
        // The prompt runs for the first answer.
        let prompt = ask.prompt_logprobs.filter(|_| choice == 0);
        self.likely = Likely::new(ask.logprobs, prompt, self.request.ids.len());
    }

    /// Runs a piece of the prompt, for its keys and values and for what is to be told of its tokens.
    pub fn prefill(&mut self, model: &Model, cache: &mut Cache, piece: Range<usize>) -> Result<()> {
        let ids = &self.ids[piece.clone()];
        if !self.likely.of_prompt() {
            return generate::prefill(model, cache, ids);
        }
        let hidden = model.hidden(&ids_array(ids), cache)?;
        self.likely.see(model, &hidden, piece, &self.ids)?;
        transforms::eval(cache.arrays())?;
        Ok(memory::clear_cache()?)
    }

    /// The same for the last piece: the scores for the token after it `[1, V]`.
    pub fn next_logits(
        &mut self,
        model: &Model,
        cache: &mut Cache,
        piece: Range<usize>,
    ) -> Result<Array> {
        let ids = ids_array(&self.ids[piece.clone()]);
        if !self.likely.of_prompt() {
            return model.next_logits(&ids, cache);
        }
        let last = piece.len() as i32 - 1;
        let hidden = model.hidden(&ids, cache)?; // [1, L, E]
        self.likely.see(model, &hidden, piece, &self.ids)?;
        let last = model.logits(&hidden.try_index((.., last.., ..))?)?; // [1, 1, V]
        Ok(last.squeeze_axes(&[1])?)
    }

    /// What the next id may be, found out on the host while the device computes what it is chosen from.
    pub fn allow(&mut self) {
        match self.constraint.as_mut().map(Constraint::mask) {
            Some(Ok(mask)) => self.sampler.allow(&mask),
            Some(Err(error)) => self.failed = Some(error),
            None => {}
        }
    }

    /// Starts to compute the next id, for which `positions` are run.
    pub fn start(&mut self, next: Choice, positions: usize) -> Result<()> {
        self.input = next.id.clone();
        self.ahead.start(next, positions)
    }

    /// What a piece that was run brings, as soon as it is computed. An error is this request's alone.
    pub fn read(&mut self, piece: &Piece) -> Vec<(Result<Step>, Told)> {
        let seen = piece.range.end;
        if !piece.last {
            return vec![(Ok(Step::Prefill { seen }), Told::default())];
        }
        let mut all = Vec::new();
        loop {
            self.count();
            let read = self.read_one();
            let goes_on = self.accepts(&read);
            all.extend(read);
            if !goes_on {
                return all;
            }
        }
    }

    fn read_one(&mut self) -> Vec<(Result<Step>, Told)> {
        let (steps, told) = match self.read_id() {
            Ok((steps, told)) => (steps.into_iter().map(Ok).collect(), told),
            Err(error) => (vec![Err(error)], Told::default()),
        };
        // All of it belongs to the first: the others were forced, and nothing was run for them.
        let told = [told].into_iter().chain(iter::repeat_with(Told::default));
        steps.into_iter().zip(told).collect()
    }

    /// Waits for the oldest id in flight, and says what it brings. A stop id is no part of the answer, also where
    /// it comes as the last token that was asked for.
    fn read_id(&mut self) -> Result<(Vec<Step>, Told)> {
        let (id, positions) = self.ahead.read()?;
        let told = Told {
            prompt: self.likely.take_prompt(),
            token: self.likely.read()?,
        };
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let ends = self.constraint.as_ref().is_some_and(|all| all.is_end(id));
        if ends || self.request.stop_ids.contains(&id) {
            return Ok((vec![Step::End(FinishReason::Stop)], told));
        }
        self.ids.push(id);
        let mut steps = vec![Step::Token { id, positions }];
        let complete = self.follow(id, &mut steps)?;
        if complete {
            steps.push(Step::End(FinishReason::Stop));
        } else if self.left() == 0 {
            steps.push(Step::End(FinishReason::Length));
        }
        Ok((steps, told))
    }

    /// Takes over what must come after an id, with no positions run for it, and says whether nothing can.
    fn follow(&mut self, id: u32, steps: &mut Vec<Step>) -> Result<bool> {
        // What is not run has no likelihood.
        let left = if self.likely.of_answer() {
            0
        } else {
            self.left()
        };
        let Some(constraint) = &mut self.constraint else {
            return Ok(false);
        };
        let forced = constraint.follow(id, left)?;
        self.sampler.skip(&forced)?;
        self.ids.extend(&forced);
        let token = |id| Step::Token { id, positions: 0 };
        steps.extend(forced.into_iter().map(token));
        Ok(constraint.must_stop())
    }

    /// Tokens that the answer may still have.
    pub(crate) fn left(&self) -> usize {
        self.request.ids.len() + self.request.max_tokens - self.ids.len()
    }
}

/// The sequences of the rows of a batch, in their order: what is gathered here is what the rows have of their own.
#[derive(Debug)]
pub struct Rows<'a>(
    pub(crate) Vec<&'a mut Sequence>,
    /// Whose they are.
    pub(crate) Vec<SequenceId>,
);

impl<'a> Rows<'a> {
    /// Looks the rows up in all that have not ended.
    pub fn of(all: &'a mut BTreeMap<SequenceId, Sequence>, rows: &[SequenceId]) -> Self {
        let (Some(first), Some(last)) = (rows.iter().min(), rows.iter().max()) else {
            return Self(Vec::new(), Vec::new());
        };
        let place = |id: &SequenceId| rows.iter().position(|row| row == id);
        let mut found: Vec<(usize, &mut Sequence)> = all
            .range_mut(*first..=*last) // those who wait came later
            .filter_map(|(id, sequence)| Some((place(id)?, sequence)))
            .collect();
        found.sort_by_key(|(row, _)| *row);
        let ids = found.iter().filter_map(|(row, _)| rows.get(*row).copied());
        let ids = ids.collect();
        Self(
            found.into_iter().map(|(_, sequence)| sequence).collect(),
            ids,
        )
    }

    /// What the step runs: ids `[B, 1]`.
    pub fn input(&self) -> Result<Array> {
        let ids: Vec<&Array> = self.0.iter().map(|row| &row.input).collect();
        Ok(ops::concatenate(&ids, 0)?.reshape(&[-1, 1])?)
    }

    /// What each has to run, if nothing of it is in a cache.
    pub fn ids(&self) -> Vec<&[u32]> {
        self.0.iter().map(|row| &row.ids[..]).collect()
    }

    /// Starts to compute the next id of each row from its logits, `[B, V]`, for which it ran so many `positions`.
    pub fn start(mut self, logits: &Array, positions: &[usize]) -> Result<()> {
        if self.0.iter().any(|row| row.constraint.is_some()) {
            transforms::async_eval([logits])?;
        }
        self.0.iter_mut().for_each(|row| row.allow());
        let samplers = self.0.iter_mut().map(|row| &mut row.sampler);
        let next = sample_rows(&mut samplers.collect::<Vec<&mut Sampler>>(), logits)?;
        let likely = likely::start(&mut self.0, logits, &next)?;
        let likely = likely.iter().flat_map(|all| all.arrays());
        // At once: each alone would be a piece of work of its own.
        transforms::async_eval(next.iter().flat_map(Choice::arrays).chain(likely))?;
        let mut rows = self.0.into_iter().zip(next).zip(positions);
        rows.try_for_each(|((row, next), positions)| row.start(next, *positions))
    }
}
