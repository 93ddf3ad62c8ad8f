//! The token loop for many requests: a step runs what the scheduler planned, of all of them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, memory, transforms};
use shared::config::ModelConfig;
use shared::kernels::steps_in_flight;
use shared::layers::ids_array;
use shared::request::{Request, Step};

use crate::batch::Batch;
use crate::cache::Cache;
use crate::constraint::Constraint;
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;
use crate::prompts;
use crate::reuse::Known;
use crate::scheduler::{Limits, Piece, Plan, Scheduler, SequenceId};
use crate::sequence::{Rows, Sequence};
use crate::speculate::Speculator;
use crate::stepped::{Event, Stepped};
use crate::trial;

/// Prompt tokens that go through the model at once, where nothing else is said: mlx-lm's number is
/// 2,048, which on a machine with little memory is much.
pub const PREFILL_STEP: usize = 512;

/// Many requests on their way: a step gives the next id of every answer, and takes prompts along.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    pub(crate) config: &'a ModelConfig,
    pub(crate) kind: CacheKind,
    pub(crate) scheduler: Scheduler,
    pub(crate) sequences: BTreeMap<SequenceId, Sequence>,
    /// Those whose prompt has run.
    pub(crate) batch: Batch,
    /// Keys and values of beginnings of prompts that ran before.
    pub(crate) known: Known,
    /// Steps whose ids were not read yet.
    started: VecDeque<Stepped>,
    /// A plan that needs ids which are still in flight.
    planned: Option<Plan>,
    submitted: u64,
    /// Guesses what comes next.
    pub(crate) speculator: Speculator,
}

impl<'a> Generator<'a> {
    /// Nothing is run before the first step. `kind` is how keys and values are stored, those of prompts and
    /// those of the batch.
    pub fn new(
        model: &'a Model,
        config: &'a ModelConfig,
        kind: CacheKind,
        limits: Limits,
    ) -> Result<Self> {
        Ok(Self {
            model,
            config,
            kind,
            scheduler: Scheduler::new(limits)?,
            sequences: BTreeMap::new(),
            batch: Batch::new(kind, config),
            known: Known::new(kind, config, 0),
            started: VecDeque::new(),
            planned: None,
            submitted: 0,
            speculator: Speculator::default(),
        })
    }

    /// A request has come. All instants are counted from one moment, the same for all calls.
    ///
    /// # Errors
    /// If it could never run, not even alone. The others are not affected.
    pub fn submit(&mut self, request: Request, now: Duration) -> Result<SequenceId> {
        let id = SequenceId(self.submitted);
        self.scheduler
            .submit(id, request.ids.len(), request.max_tokens, now)?;
        self.sequences.insert(id, Sequence::new(request)?);
        self.submitted += 1;
        Ok(id)
    }

    /// The first positions of a request that waits have run before: its own `cache` from now on, of this
    /// generator's kind, has them. Best for those who are [`next_in_line`](Scheduler::next_in_line).
    pub fn resume(&mut self, id: SequenceId, cache: Cache) -> Result<()> {
        self.scheduler.cached(id, cache.offset() as usize)?;
        let sequence = self.sequences.get_mut(&id).context("nobody waits for it")?;
        sequence.cache = Some(cache);
        Ok(())
    }

    /// The answer of a request of which nothing has run must match something.
    pub fn constrain(&mut self, id: SequenceId, constraint: Constraint) -> Result<()> {
        let sequence = self.sequences.get_mut(&id).context("nobody waits for it")?;
        sequence.constraint = Some(match self.kind {
            // A row cannot leave with them.
            CacheKind::Quantized(_) => constraint.one_by_one(),
            _ => constraint,
        });
        Ok(())
    }

    /// Nobody wants the rest of an answer. Nothing happens if it has ended.
    pub fn cancel(&mut self, id: SequenceId) -> Result<()> {
        self.scheduler.end(id);
        self.sequences.remove(&id);
        self.speculator.leave(id)?;
        self.batch.leave(id)
    }

    /// Nobody will come any more: a batch that is not full need not wait.
    pub fn close(&mut self) {
        self.scheduler.close();
    }

    /// Who waits, who runs and how much memory is in use.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// A request that has not ended.
    pub fn sequence(&mut self, id: SequenceId) -> Option<&mut Sequence> {
        self.sequences.get_mut(&id)
    }

    /// The keys and values of the rows that decode.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Runs a step: one token of every answer, and pieces of prompts.
    ///
    /// # Cost
    /// One run of the model for all answers, which reads every weight once, and one for each piece of a prompt.
    pub fn step(&mut self, now: Duration) -> Result<Stepped> {
        while self.started.len() < self.in_flight() {
            let plan = self.plan(now);
            // The ids of answers are on the device; all else needs them on the host.
            if !self.started.is_empty() && !plan.only_decodes(self.batch.rows()) {
                self.planned = Some(plan); // it counts as computed, so it comes next
                break;
            }
            self.start(plan)?;
        }
        // Reading the ids waits for their step; the next one is on its way already.
        let mut step = self.started.pop_front().context("no step was started")?;
        step.read(&mut self.sequences);
        trial::settle(&mut step, self)?;
        self.speculator.learn(&mut step, &mut self.sequences)?;
        for id in step.ended() {
            self.finish(id)?;
        }
        step.events.iter().try_for_each(|event| self.skip(event))?;
        Ok(step)
    }

    /// Steps that may be on their way. What may come next in a grammar is known when the last id is on the host, and so
    /// is what to guess.
    fn in_flight(&self) -> usize {
        let mut all = self.sequences.values();
        let mut rows = self
            .batch
            .rows()
            .iter()
            .filter_map(|id| self.sequences.get(id));
        if all.any(|sequence| sequence.constraint.is_some())
            || rows.any(|row| self.speculator.waits_for(row))
        {
            1
        } else {
            steps_in_flight()
        }
    }

    /// A token that came without a run is missing in the cache. So its row leaves the batch, and reads such tokens as
    /// it has read its prompt.
    fn skip(&mut self, event: &Event) -> Result<()> {
        let (Ok(Step::Token { positions: 0, .. }), Some(sequence)) =
            (&event.step, self.sequences.get_mut(&event.id))
        else {
            return Ok(());
        };
        self.scheduler.token(event.id);
        if let Some((state, offset)) = self.batch.take(event.id)? {
            let mut cache = empty_cache(self.kind, self.config);
            cache.restore(state, offset)?;
            sequence.cache = Some(cache);
        }
        Ok(())
    }

    /// The plan that waits, without those who have ended since, or a new one.
    fn plan(&mut self, now: Duration) -> Plan {
        let mut plan = self.planned.take().unwrap_or_default();
        plan.pieces
            .retain(|piece| self.sequences.contains_key(&piece.id));
        if plan.pieces.is_empty() {
            // The rows that were preempted have still to leave.
            let preempted = plan.preempted;
            plan = self.scheduler.plan(now);
            // At once: before it has a row again, each may be given another cache.
            for id in &plan.preempted {
                if let Some(sequence) = self.sequences.get_mut(id) {
                    sequence.cache = None;
                }
            }
            plan.preempted.extend(preempted);
        }
        plan
    }

    /// Describes a step and starts it.
    fn start(&mut self, plan: Plan) -> Result<()> {
        let mut left = plan.preempted.iter();
        left.try_for_each(|id| self.batch.leave(*id))?;
        let (decodes, prompts): (Vec<_>, Vec<_>) =
            (plan.pieces.iter()).partition(|piece| self.batch.row(piece.id).is_some());
        let rows = decodes.len();
        let nothing_else = prompts.is_empty() && self.started.is_empty();
        self.decode(rows, nothing_else)?;
        let (together, alone) = prompts::runs(self.kind, self.config, &self.sequences, prompts);
        together.iter().try_for_each(|run| self.prompts(run))?;
        alone.iter().try_for_each(|piece| self.prompt(piece))?;
        for piece in plan.pieces.iter().filter(|piece| piece.last) {
            self.scheduler.token(piece.id);
        }
        self.started.push_back(Stepped::new(plan, rows));
        Ok(())
    }

    /// Starts the next id of every row of the batch, all of which were planned. If the step has nothing else to do, ids
    /// that were guessed may run along.
    fn decode(&mut self, planned: usize, nothing_else: bool) -> Result<()> {
        let n = self.batch.rows().len();
        ensure!(planned == n, "{planned} of {n} rows are planned");
        if n == 0 {
            return Ok(());
        }
        let mut rows = Rows::of(&mut self.sequences, self.batch.rows());
        let most = if nothing_else {
            self.scheduler.spare(n)
        } else {
            0
        };
        if let Some(guesses) = self.speculator.guess(&mut rows, most)? {
            return trial::start(rows, guesses, self.model, &mut self.batch);
        }
        let logits = self.batch.run(self.model, &rows.input()?)?; // [B, V]
        rows.start(&logits, &vec![1; n])
    }

    /// Runs several whole prompts, each of which starts an id and joins the batch.
    fn prompts(&mut self, pieces: &[&Piece]) -> Result<()> {
        let ids: Vec<SequenceId> = pieces.iter().map(|piece| piece.id).collect();
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.range.len()).collect();
        let mut cache = prompts::empty(self.kind, self.config);
        let rows = Rows::of(&mut self.sequences, &ids);
        let logits = prompts::next_logits(self.model, &rows.ids(), &mut cache)?; // [B, V]
        rows.start(&logits, &lengths)?;
        let arrays: Vec<&Array> = cache.arrays().collect();
        for (row, id) in ids.iter().enumerate() {
            let sequence = self.sequences.get(id).context("a prompt of nobody")?;
            self.known.keep(&sequence.ids, sequence.by, &arrays, row)?;
        }
        self.batch.join(&ids, &lengths, cache)
    }

    /// Runs a piece of a prompt; the last one starts an id and joins the batch.
    fn prompt(&mut self, piece: &Piece) -> Result<()> {
        let sequence = self.sequences.get_mut(&piece.id);
        let sequence = sequence.context("a piece of nobody's prompt")?;
        let known = &mut self.known;
        let cache = sequence.cache.take();
        let mut cache = cache.unwrap_or_else(|| empty_cache(self.kind, self.config));
        if !piece.last {
            known.prefill(sequence, self.model, &mut cache, piece.range.clone())?;
            sequence.cache = Some(cache);
            return Ok(());
        }
        let Range { start, end } = piece.range;
        if let Some(border) = known.checkpoint(start, end) {
            known.prefill(sequence, self.model, &mut cache, start..border)?;
            let ids = &sequence.ids[..border];
            known.keep_checkpoint(ids, sequence.by, &cache)?;
        }
        // Two runs where a ring has to forget.
        let mut runs = cache.pieces(piece.range.end, piece.range.len())?;
        let last = runs.pop().context("a piece without tokens")?;
        for run in runs {
            sequence.prefill(self.model, &mut cache, run)?;
        }
        let logits = sequence.next_logits(self.model, &mut cache, last)?; // [1, V]
        if sequence.constraint.is_some() {
            transforms::async_eval([&logits])?;
            sequence.allow();
        }
        let next = sequence.sampler.sample(&logits)?;
        sequence.likely.start(&logits, &next)?;
        sequence.start(next, piece.range.len())?;
        let arrays: Vec<&Array> = cache.arrays().collect();
        let ids = &sequence.ids[..piece.range.end];
        known.keep(ids, sequence.by, &arrays, 0)?;
        self.batch.join(&[piece.id], &[piece.range.end], cache)
    }
}

/// Runs a piece of a prompt only for its keys and values: no logits are needed.
pub fn prefill(model: &Model, cache: &mut Cache, ids: &[u32]) -> Result<()> {
    model.hidden(&ids_array(ids), cache)?;
    // Evaluated piece by piece: one graph of the whole prompt would hold all of its activations.
    transforms::eval(cache.arrays())?;
    memory::clear_cache()?; // the next piece has other sizes
    Ok(())
}
