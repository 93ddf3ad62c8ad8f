//! A serving run without the model: discrete events, on the very scheduler that the engine has.
//!
//! What decides is not written twice. Only the time of a step comes from a [`StepTimes`] instead of a clock.

mod capacity;
mod prediction;

use std::time::Duration;

use anyhow::{Context, Result};
use console::metrics::FinishReason;
use console::serving::{Served, ServedStep, Serving, Slo};

use crate::limits::Limits;
use crate::load::{Feed, Load};
use crate::plan::{Plan, SequenceId};
use crate::scheduler::Scheduler;
use crate::step_times::{StepTimes, Work};

pub use capacity::{Capacity, find_capacity};
pub use prediction::{Predicted, predict};

/// A run that was simulated.
#[derive(Debug, Clone, Default)]
pub struct Simulated {
    /// Each request, in the order of the load.
    pub served: Vec<Served>,
    /// Each step.
    pub steps: Vec<ServedStep>,
    /// From the beginning to the last token.
    pub duration: Duration,
}

impl Simulated {
    /// Summed up as a real run is.
    pub fn serving(&self, load: &Load, limits: &Limits, slo: Option<&Slo>) -> Serving {
        Serving::of(load.offered, slo, self.duration, &self.served)
            .steps(&self.steps, limits.kv_tokens)
    }
}

/// Simulates a load. `watch` is told of each plan: from when and until when it was run, or waited on if
/// it has nothing to run.
///
/// # Errors
/// If the limits make no sense, or if they and the load wait for each other.
pub fn simulate(
    load: &Load,
    limits: &Limits,
    times: &StepTimes,
    watch: impl FnMut(Duration, Duration, &Plan),
) -> Result<Simulated> {
    Simulation::new(load, limits)?.run(|work| times.seconds(work), watch)
}

/// A simulation under way.
struct Simulation<'a> {
    feed: Feed<'a>,
    load: &'a Load,
    scheduler: Scheduler,
    now: Duration,
    run: Simulated,
}

impl<'a> Simulation<'a> {
    fn new(load: &'a Load, limits: &Limits) -> Result<Self> {
        let scheduler = Scheduler::new(limits.clone())?;
        let run = Simulated {
            served: vec![Served::default(); load.requests.len()],
            ..Simulated::default()
        };
        Ok(Self {
            feed: Feed::new(load),
            load,
            scheduler,
            now: Duration::ZERO,
            run,
        })
    }

    fn run(
        mut self,
        mut seconds: impl FnMut(&Work) -> f64,
        mut watch: impl FnMut(Duration, Duration, &Plan),
    ) -> Result<Simulated> {
        let mut work = Work::default();
        loop {
            self.arrive();
            let plan = self.scheduler.plan(self.now);
            if plan.pieces.is_empty() {
                match self.feed.next(&plan, &self.scheduler)? {
                    Some(wake) => {
                        watch(self.now, wake, &plan);
                        self.now = wake;
                    }
                    None => break,
                }
                continue;
            }
            work.replace(&plan);
            let (start, took) = (self.now, seconds(&work));
            self.now += Duration::try_from_secs_f64(took).context("a step without an end")?;
            watch(start, self.now, &plan);
            self.note(&plan, &work, took, start);
        }
        Ok(self.run)
    }

    /// Hands over what is due. Who can never run is refused, and has ended.
    fn arrive(&mut self) {
        while let Some((at, request)) = self.feed.send(self.now) {
            let id = SequenceId(at as u64);
            let arrival = self.feed.arrival(request, self.now);
            let served = &mut self.run.served[at];
            (served.due, served.arrival) = (request.due, arrival);
            served.prompt_tokens = request.prompt_tokens;
            if self
                .scheduler
                .submit(id, request.prompt_tokens, request.output_tokens, arrival)
                .is_err()
            {
                self.feed.ended();
            } else {
                served.tokens.reserve_exact(request.output_tokens);
            }
        }
        if self.feed.is_done() {
            self.scheduler.close();
        }
    }

    /// What a step has brought.
    fn note(&mut self, plan: &Plan, work: &Work, seconds: f64, start: Duration) {
        for id in &plan.preempted {
            self.run.served[id.0 as usize].preemptions += 1;
        }
        for piece in &plan.pieces {
            let at = piece.id.0 as usize;
            let served = &mut self.run.served[at];
            served.scheduled.get_or_insert(start);
            if !piece.last {
                continue;
            }
            served.tokens.push(self.now);
            if served.tokens.len() == self.load.requests[at].output_tokens {
                served.finish_reason = Some(FinishReason::Length);
                self.scheduler.end(piece.id);
                self.feed.ended();
                self.run.duration = self.now;
            } else {
                self.scheduler.token(piece.id);
            }
        }
        self.run.steps.push(ServedStep {
            seconds,
            rows: work.rows,
            prompt_tokens: work.prompt_tokens(),
            kv_tokens: self.scheduler.kv_tokens_used(),
        });
    }
}
