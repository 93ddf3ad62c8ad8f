//! One request on its way, with all that is its own: whoever shares its steps changes nothing of it.

use std::collections::BTreeMap;

use anyhow::Result;
use console::metrics::FinishReason;
use mlx_rs::{Array, ops, transforms};
use shared::request::{Request, Step};
use shared::sampling::{Choice, Sampler, sample_rows};

use crate::ahead::Ahead;
use crate::cache::Cache;
use crate::plan::{Piece, SequenceId};

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
    ahead: Ahead,
}

impl Sequence {
    /// A request of which nothing has run.
    pub fn new(request: Request) -> Result<Self> {
        Ok(Self {
            ids: request.ids.clone(),
            cache: None,
            sampler: Sampler::new(&request.sampling, &request.ids)?,
            input: Array::from_slice::<u32>(&[], &[0]),
            ahead: Ahead::default(),
            request,
        })
    }

    /// Starts to compute the next id, for which `positions` are run.
    pub fn start(&mut self, next: Choice, positions: usize) -> Result<()> {
        self.input = next.id.clone();
        self.ahead.start(next, positions)
    }

    /// What a piece that was run brings, as soon as it is computed. An error is this request's alone.
    pub fn read(&mut self, piece: &Piece) -> Vec<Result<Step>> {
        let seen = piece.range.end;
        if !piece.last {
            return vec![Ok(Step::Prefill { seen })];
        }
        match self.read_id() {
            Ok(steps) => steps.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    }

    /// Waits for the oldest id in flight, and says what it brings. A stop id is no part of the answer, also where
    /// it comes as the last token that was asked for.
    fn read_id(&mut self) -> Result<Vec<Step>> {
        let (id, positions) = self.ahead.read()?;
        if self.request.stop_ids.contains(&id) {
            return Ok(vec![Step::End(FinishReason::Stop)]);
        }
        self.ids.push(id);
        let mut steps = vec![Step::Token { id, positions }];
        if self.ids.len() == self.request.ids.len() + self.request.max_tokens {
            steps.push(Step::End(FinishReason::Length));
        }
        Ok(steps)
    }
}

/// The sequences of the rows of a batch, in their order: what is gathered here is what the rows have of their own.
#[derive(Debug)]
pub struct Rows<'a>(Vec<&'a mut Sequence>);

impl<'a> Rows<'a> {
    /// Looks the rows up in all that have not ended.
    pub fn of(all: &'a mut BTreeMap<SequenceId, Sequence>, rows: &[SequenceId]) -> Self {
        let (Some(first), Some(last)) = (rows.iter().min(), rows.iter().max()) else {
            return Self(Vec::new());
        };
        let place = |id: &SequenceId| rows.iter().position(|row| row == id);
        let mut found: Vec<(usize, &mut Sequence)> = all
            .range_mut(*first..=*last) // those who wait came later
            .filter_map(|(id, sequence)| Some((place(id)?, sequence)))
            .collect();
        found.sort_by_key(|(row, _)| *row);
        Self(found.into_iter().map(|(_, sequence)| sequence).collect())
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
        let samplers = self.0.iter_mut().map(|row| &mut row.sampler);
        let next = sample_rows(&mut samplers.collect::<Vec<&mut Sampler>>(), logits)?;
        // At once: each alone would be a piece of work of its own.
        transforms::async_eval(next.iter().flat_map(Choice::arrays))?;
        let mut rows = self.0.into_iter().zip(next).zip(positions);
        rows.try_for_each(|((row, next), positions)| row.start(next, *positions))
    }
}
