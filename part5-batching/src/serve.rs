//! A load, served by the model: requests come when they are due, and each token is noted when it is there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::interrupt::interrupted;
use console::metrics::FinishReason;
use console::serving::{Served, ServedStep, Serving, Slo};
use shared::config::ModelConfig;
use shared::request::{Request, Step};

use crate::gantt::Recording;
use crate::generate::Generator;
use crate::kinds::CacheKind;
use crate::limits::Limits;
use crate::load::{Feed, Load};
use crate::model::Model;
use crate::plan::{Plan, SequenceId};
use crate::step_times::{Sample, Work};
use crate::stepped::Stepped;

/// The longest sleep between two looks at Ctrl-C.
const NAP: Duration = Duration::from_millis(20);

/// What serves.
#[derive(Debug)]
pub struct Server<'a> {
    /// The weights.
    pub model: &'a Model,
    /// What the model is.
    pub config: &'a ModelConfig,
    /// How keys and values are stored.
    pub kind: CacheKind,
    /// Ids that prompts are made of.
    pub ids: &'a [u32],
}

/// A load that was served.
#[derive(Debug, Default)]
pub struct Run {
    /// Each request, in the order of the load.
    pub served: Vec<Served>,
    /// The ids of each answer.
    pub answers: Vec<Vec<u32>>,
    /// Each step.
    pub steps: Vec<ServedStep>,
    /// Each step as a model of step times wants it.
    pub samples: Vec<Sample>,
    /// The plans.
    pub recording: Recording,
    /// From the beginning to the last token.
    pub duration: Duration,
    /// Requests that could never run, and why the first of them could not.
    pub refused: (usize, Option<String>),
    /// Whether Ctrl-C ended it: the numbers are those of a part.
    pub interrupted: bool,
}

impl Run {
    /// Summed up.
    pub fn serving(&self, load: &Load, limits: &Limits, slo: Option<&Slo>) -> Serving {
        Serving::of(load.offered, slo, self.duration, &self.served)
            .steps(&self.steps, limits.kv_tokens)
    }

    /// Seconds of all steps that read prompts, and of all others.
    pub fn seconds(&self) -> [f64; 2] {
        let of = |prompts: bool| {
            let steps = self.steps.iter();
            let steps = steps.filter(|step| (step.prompt_tokens > 0) == prompts);
            steps.map(|step| step.seconds).sum()
        };
        [of(true), of(false)]
    }
}

impl Server<'_> {
    /// Serves a load until all its requests have ended, or until Ctrl-C.
    ///
    /// # Errors
    /// If a step fails, or if the limits and the load wait for each other.
    pub fn serve(&self, load: &Load, limits: &Limits) -> Result<Run> {
        let mut serving = Way {
            server: self,
            load,
            feed: Feed::new(load),
            generator: Generator::new(self.model, self.config, self.kind, limits.clone())?,
            start: Instant::now(),
            numbers: Vec::new(),
            last: None,
            run: Run {
                served: vec![Served::default(); load.requests.len()],
                answers: vec![Vec::new(); load.requests.len()],
                ..Run::default()
            },
        };
        while !interrupted() {
            if !serving.step()? {
                return Ok(serving.run);
            }
        }
        let mut run = serving.run;
        for served in &mut run.served {
            if served.finish_reason.is_none() && !served.tokens.is_empty() {
                served.finish_reason = Some(FinishReason::Interrupted);
            }
        }
        run.interrupted = true;
        Ok(run)
    }
}

/// A load on its way.
struct Way<'a> {
    server: &'a Server<'a>,
    load: &'a Load,
    feed: Feed<'a>,
    generator: Generator<'a>,
    start: Instant,
    /// The place in the load of each request that the generator took.
    numbers: Vec<usize>,
    /// The end of the last step, if nobody had to wait since.
    last: Option<Duration>,
    run: Run,
}

impl Way<'_> {
    /// Whether there was anything left to do.
    fn step(&mut self) -> Result<bool> {
        self.arrive()?;
        let begun = self.start.elapsed();
        let stepped = self.generator.step(begun)?;
        let now = self.start.elapsed();
        if stepped.plan.pieces.is_empty() {
            self.last = None;
            return self.wait(begun, &stepped);
        }
        // What the host does between two steps is part of the second: a simulated one begins there, too.
        let from = self.last.replace(now).unwrap_or(begun);
        self.record(from, now, &stepped.plan);
        self.note(stepped, begun, (now - from).as_secs_f64(), now)?;
        Ok(true)
    }

    /// Hands over what is due.
    fn arrive(&mut self) -> Result<()> {
        let now = self.start.elapsed();
        while let Some((at, planned)) = self.feed.send(now) {
            let arrival = self.feed.arrival(planned, now);
            let served = &mut self.run.served[at];
            (served.due, served.arrival) = (planned.due, arrival);
            served.prompt_tokens = planned.prompt_tokens;
            let request = Request {
                ids: self.load.prompt(at, self.server.ids),
                max_tokens: planned.output_tokens,
                ..Request::default()
            };
            match self.generator.submit(request, arrival) {
                Ok(_) => self.numbers.push(at),
                Err(error) => {
                    self.feed.ended();
                    self.run.refused.0 += 1;
                    self.run.refused.1.get_or_insert(format!("{error:#}"));
                }
            }
        }
        if self.feed.is_done() {
            self.generator.close();
        }
        Ok(())
    }

    /// Nothing to run: sleeps until something happens. False at the end.
    fn wait(&mut self, from: Duration, stepped: &Stepped) -> Result<bool> {
        let next = self.feed.next(&stepped.plan, self.generator.scheduler())?;
        let Some(wake) = next else {
            return Ok(false);
        };
        while !interrupted() {
            let left = wake.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(NAP));
        }
        let now = self.start.elapsed();
        self.record(from, now, &stepped.plan);
        Ok(true)
    }

    /// Notes a plan, its requests by their places in the load: who was refused has no number of the generator.
    fn record(&mut self, from: Duration, to: Duration, plan: &Plan) {
        let place = |id: SequenceId| SequenceId(self.numbers[id.0 as usize] as u64);
        let mut plan = plan.clone();
        for id in &mut plan.preempted {
            *id = place(*id);
        }
        for piece in &mut plan.pieces {
            piece.id = place(piece.id);
        }
        for (id, _) in &mut plan.held {
            *id = place(*id);
        }
        self.run.recording.add(from, to, &plan);
    }

    /// What a step has brought.
    fn note(
        &mut self,
        stepped: Stepped,
        begun: Duration,
        seconds: f64,
        now: Duration,
    ) -> Result<()> {
        let (run, numbers) = (&mut self.run, &self.numbers);
        for id in &stepped.plan.preempted {
            run.served[numbers[id.0 as usize]].preemptions += 1;
        }
        for piece in &stepped.plan.pieces {
            let served = &mut run.served[numbers[piece.id.0 as usize]];
            served.scheduled.get_or_insert(begun);
        }
        for event in stepped.events {
            let number = numbers.get(event.id.0 as usize).copied();
            let number = number.context("a token of nobody")?;
            let served = &mut run.served[number];
            match event.step.context("serving a request")? {
                Step::Token { id, .. } => {
                    served.tokens.push(now);
                    run.answers[number].push(id);
                }
                Step::Prefill { .. } => {}
                Step::End(reason) => {
                    served.finish_reason = Some(reason);
                    self.feed.ended();
                }
            }
        }
        run.duration = now;
        run.steps.push(ServedStep {
            seconds,
            rows: stepped.rows,
            prompt_tokens: stepped.prompt_tokens,
            kv_tokens: self.generator.scheduler().kv_tokens_used(),
        });
        run.samples.push(Sample {
            work: Work::of(&stepped.plan),
            seconds,
        });
        Ok(())
    }
}
