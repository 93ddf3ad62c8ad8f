//! The token loop for many requests: a step runs what the scheduler planned, of all of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use console::metrics::{FinishReason, Generation, Recorder};
use mlx_rs::{Array, memory, ops, transforms};
use shared::config::ModelConfig;
use shared::kernels::steps_in_flight;
use shared::layers::ids_array;
use shared::request::{Request, Step};
use shared::sampling::{Choice, Sampler, sample_rows};

use crate::ahead::{Ahead, Row, Started};
use crate::batch::Batch;
use crate::cache::Cache;
use crate::kinds::{CacheKind, empty_cache};
use crate::model::Model;
use crate::scheduler::{Limits, Piece, Plan, Scheduler, SequenceId};
use crate::sequence::Sequence;

/// Prompt tokens that go through the model at once, where nothing else is said: mlx-lm's number is
/// 2,048, which on a machine with little memory is much.
pub const PREFILL_STEP: usize = 512;

/// Many requests on their way: a step gives the next id of every answer, and takes prompts along.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    config: &'a ModelConfig,
    kind: CacheKind,
    scheduler: Scheduler,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Those whose prompt has run.
    batch: Batch,
    ahead: Ahead,
    /// A plan that needs ids which are still in flight.
    planned: Option<Plan>,
    submitted: u64,
}

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
            ahead: Ahead::default(),
            planned: None,
            submitted: 0,
        })
    }

    /// A request has come. All instants are counted from one moment, the same for all calls.
    ///
    /// # Errors
    /// If it could never run, not even alone. The others are not affected.
    pub fn submit(&mut self, request: Request, now: Duration) -> Result<SequenceId> {
        let id = SequenceId(self.submitted);
        let (prompt, max_tokens) = (request.ids.len(), request.max_tokens);
        let sequence = Sequence::new(request)?;
        self.scheduler.submit(id, prompt, max_tokens, now)?;
        self.sequences.insert(id, sequence);
        self.submitted += 1;
        Ok(id)
    }

    /// Nobody wants the rest of an answer. Nothing happens if it has ended.
    pub fn cancel(&mut self, id: SequenceId) -> Result<()> {
        self.scheduler.end(id);
        self.sequences.remove(&id);
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

    /// The keys and values of the rows that decode.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Runs a step: one token of every answer, and pieces of prompts.
    ///
    /// # Cost
    /// One run of the model for all answers, which reads every weight once, and one for each piece of a prompt.
    pub fn step(&mut self, now: Duration) -> Result<Stepped> {
        while self.ahead.len() < steps_in_flight() {
            let plan = self.plan(now);
            if !self.ahead.is_empty() && !self.goes_on(&plan) {
                // It was recorded as computed, so it comes next; an empty one was not.
                self.planned = Some(plan).filter(|plan| !plan.pieces.is_empty());
                break;
            }
            self.start(plan)?;
        }
        // Reading the ids waits for their step; the next one is on its way already.
        let Started { mut step, rows } = self.ahead.read()?;
        for row in rows {
            self.read(row, &mut step.events)?;
        }
        step.events.sort_by_key(|event| event.id);
        Ok(step)
    }

    /// The plan that waits, without those who have ended since, or a new one.
    fn plan(&mut self, now: Duration) -> Plan {
        if let Some(mut plan) = self.planned.take() {
            plan.pieces
                .retain(|piece| self.sequences.contains_key(&piece.id));
            if !plan.pieces.is_empty() || !plan.preempted.is_empty() {
                return plan;
            }
        }
        self.scheduler.plan(now)
    }

    /// Whether the plan needs nothing but ids that are in flight, in their order.
    fn goes_on(&self, plan: &Plan) -> bool {
        let rows = self.batch.rows();
        let in_flight = self.ahead.last().unwrap_or_default();
        !rows.is_empty()
            && plan.pieces.len() == rows.len()
            && plan.pieces.iter().all(|piece| self.batch.has(piece.id))
            && plan.preempted.is_empty()
            && in_flight.iter().map(|row| row.id).eq(rows.iter().copied())
    }

    /// Describes a step and starts it.
    fn start(&mut self, plan: Plan) -> Result<()> {
        for id in &plan.preempted {
            self.batch.leave(*id)?;
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.cache = None;
            }
        }
        let (decodes, prompts): (Vec<Piece>, Vec<Piece>) = plan
            .pieces
            .iter()
            .cloned()
            .partition(|piece| self.batch.has(piece.id));
        let mut rows = self.decode(decodes.len())?;
        let mut step = Stepped {
            rows: decodes.len(),
            prompt_tokens: prompts.iter().map(|piece| piece.range.len()).sum(),
            plan,
            events: Vec::new(),
        };
        for piece in prompts {
            match self.prompt(&piece)? {
                Some(row) => rows.push(row),
                None => step.events.push(Event {
                    id: piece.id,
                    step: Ok(Step::Prefill {
                        seen: piece.range.end,
                    }),
                }),
            }
        }
        for row in &rows {
            self.scheduler.token(row.id);
        }
        self.ahead.start(step, rows)
    }

    /// The next id of every row of the batch, all of which were planned.
    fn decode(&mut self, planned: usize) -> Result<Vec<Row>> {
        let n = self.batch.rows().len();
        ensure!(
            planned == n,
            "{planned} of {n} rows of the batch were planned"
        );
        if n == 0 {
            return Ok(Vec::new());
        }
        let ids = self.input()?; // [B, 1]
        let logits = self.batch.run(self.model, &ids)?; // [B, V]
        let rows = self.batch.rows();
        let samplers = self.sequences.iter_mut();
        let mut samplers: BTreeMap<SequenceId, &mut Sampler> = samplers
            .map(|(id, sequence)| (*id, &mut sequence.sampler))
            .collect();
        let samplers = rows.iter().map(|id| samplers.remove(id));
        let mut samplers: Vec<_> = samplers.collect::<Option<_>>().context("a row of nobody")?;
        let choices = sample_rows(&mut samplers, &logits)?;
        let row = |(id, next): (&SequenceId, Choice)| Row {
            id: *id,
            next,
            positions: 1,
        };
        Ok(rows.iter().zip(choices).map(row).collect())
    }

    /// What the batch runs: the newest ids, from the host or from the step in flight.
    fn input(&self) -> Result<Array> {
        let n = self.batch.rows().len() as i32;
        if let Some(rows) = self.ahead.last() {
            let ids: Vec<&Array> = rows.iter().map(|row| &row.next.id).collect();
            return Ok(ops::concatenate(&ids, 0)?.reshape(&[n, 1])?);
        }
        let newest = |id| self.sequences.get(id).and_then(|s| s.ids.last().copied());
        let ids: Option<Vec<u32>> = self.batch.rows().iter().map(newest).collect();
        Ok(Array::from_slice(&ids.context("a row of nobody")?, &[n, 1]))
    }

    /// Runs a piece of a prompt; the last one gives an id and joins the batch.
    fn prompt(&mut self, piece: &Piece) -> Result<Option<Row>> {
        let sequence = self.sequences.get_mut(&piece.id);
        let sequence = sequence.context("a piece of nobody's prompt")?;
        let mut cache = match sequence.cache.take() {
            Some(cache) => cache,
            None => empty_cache(self.kind, self.config),
        };
        if !piece.last {
            prefill(self.model, &mut cache, &sequence.ids[piece.range.clone()])?;
            sequence.cache = Some(cache);
            return Ok(None);
        }
        // Two runs where a ring has to forget.
        let mut runs = cache.pieces(piece.range.end, piece.range.len())?;
        let last = runs.pop().context("a piece without tokens")?;
        for run in runs {
            prefill(self.model, &mut cache, &sequence.ids[run])?;
        }
        let ids = ids_array(&sequence.ids[last]);
        let logits = self.model.next_logits(&ids, &mut cache)?; // [1, V]
        let next = sequence.sampler.sample(&logits)?;
        self.batch.join(piece.id, cache)?;
        Ok(Some(Row {
            id: piece.id,
            next,
            positions: piece.range.len(),
        }))
    }

    /// Waits for an id, and says what its request got.
    fn read(&mut self, row: Row, events: &mut Vec<Event>) -> Result<()> {
        // Else it has ended in the meantime, and the step was for nothing.
        let Some(sequence) = self.sequences.get_mut(&row.id) else {
            return Ok(());
        };
        let steps = match row.next.read() {
            Ok(id) => sequence
                .push(id, row.positions)
                .into_iter()
                .map(Ok)
                .collect(),
            Err(error) => vec![Err(error)],
        };
        let goes_on = matches!(steps[..], [Ok(Step::Token { .. })]);
        events.extend(steps.into_iter().map(|step| Event { id: row.id, step }));
        if goes_on { Ok(()) } else { self.cancel(row.id) }
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

/// The loop: all requests come at once, and one step goes after the other until all have ended. Between two
/// steps `on_step` may show what came, and may end all of them itself.
///
/// # Errors
/// If a step fails, or one of the requests.
pub fn generate(
    generator: &mut Generator<'_>,
    requests: &[Request],
    mut on_step: impl FnMut(&Stepped) -> Result<ControlFlow<FinishReason>>,
) -> Result<Vec<Generation>> {
    let started = Instant::now();
    let mut recorders = BTreeMap::new();
    for request in requests {
        let id = generator.submit(request.clone(), started.elapsed())?;
        recorders.insert(id, Recorder::start());
    }
    generator.close();
    let mut generations = BTreeMap::new();
    while !recorders.is_empty() {
        let stepped = generator.step(started.elapsed())?;
        let on_step = on_step(&stepped)?;
        for Event { id, step } in stepped.events {
            match step? {
                Step::Token {
                    id: token,
                    positions,
                } => {
                    let recorder = recorders.get_mut(&id).context("a token of nobody")?;
                    recorder.token(token, positions);
                }
                Step::Prefill { .. } => {}
                Step::End(reason) => {
                    let recorder = recorders.remove(&id).context("an end of nobody")?;
                    generations.insert(id, recorder.finish(reason));
                }
            }
        }
        if let ControlFlow::Break(reason) = on_step {
            for (id, recorder) in std::mem::take(&mut recorders) {
                generator.cancel(id)?;
                generations.insert(id, recorder.finish(reason));
            }
        }
    }
    Ok(generations.into_values().collect())
}
