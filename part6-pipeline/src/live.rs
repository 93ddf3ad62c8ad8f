//! What the engine does, for whoever watches: a report of each step.
//!
//! Reports go through a channel that has room for some and forgets the oldest. A slow reader misses some, and the engine
//! never waits for it. Without a reader none is made: what is left then is one look into a map for each token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use console::metrics::{FinishReason, ms};
use serde::Serialize;
use shared::request::Step;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::ask::Event;
use crate::generate::Generator;
use crate::handle::AskId;
use crate::limits::Limits;
use crate::plan::{Plan, SequenceId, Why};
use crate::stepped::{Stepped, Tried};

/// Reports that a reader may be late by. More are lost for it.
const LATE: usize = 512;

/// Of those who wait, so many are named.
const NAMED: usize = 32;

/// Where the reports of an engine can be read.
#[derive(Debug, Clone)]
pub struct Live {
    reports: broadcast::Sender<Arc<Report>>,
    limits: Option<Arc<Limits>>,
}

impl Live {
    /// Of an engine with these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Some(Arc::new(limits)),
            ..Self::default()
        }
    }

    /// All reports from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Report>> {
        self.reports.subscribe()
    }

    /// Those who read.
    pub fn readers(&self) -> usize {
        self.reports.receiver_count()
    }

    /// What a step may use; none if nobody has said which engine this is.
    pub fn limits(&self) -> Option<&Limits> {
        self.limits.as_deref()
    }
}

impl Default for Live {
    /// Of no engine: no report ever comes.
    fn default() -> Self {
        Self {
            reports: broadcast::channel(LATE).0,
            limits: None,
        }
    }
}

/// One step, and what has changed with it. All times are in milliseconds, all instants count from when the engine began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// Steps so far.
    pub step: u64,
    /// When it ended.
    pub at: f64,
    /// How long it took.
    pub took: f64,
    /// What it ran, in order of arrival. Nothing, if the engine has nothing to do.
    pub rows: Vec<Row>,
    /// Rows that had to sit out.
    pub held: Vec<Held>,
    /// Rows that gave their memory back, and come again.
    pub preempted: Vec<String>,
    /// Answers without a row.
    pub waiting: Waiting,
    /// Positions in memory.
    pub kv: Kv,
    /// What is kept of earlier prompts.
    pub prefix: Prefix,
    /// What guesses have brought.
    pub guesses: Guesses,
    /// Rows that stop guessing for a while, since it lost time.
    pub paused: Vec<String>,
    /// Who got a row.
    pub begun: Vec<Begun>,
    /// Whose answer is complete, or not wanted any more.
    pub ended: Vec<Ended>,
}

/// What a step ran of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Row {
    /// The number of the ask, and behind a dot that of the answer if it is not the first one.
    pub id: String,
    /// `decode`, `prompt`, or `again`: what it had lost.
    pub does: &'static str,
    /// The first position that ran.
    pub from: usize,
    /// The one behind the last.
    pub to: usize,
    /// Tokens behind them that were guessed, and ran along.
    pub guessed: usize,
    /// The first so many of those were right, and are kept.
    pub right: usize,
}

/// A row that had to sit out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Held {
    /// As in [`Row`].
    pub id: String,
    /// Why.
    pub why: String,
}

/// Answers without a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Waiting {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
    /// Why the first one has no row.
    pub why: Option<String>,
}

/// Positions whose keys and values are in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Kv {
    /// So many are.
    pub used: usize,
    /// So many may be.
    pub limit: usize,
}

/// What is kept of earlier prompts, and what that has saved so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Prefix {
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Prompts of which something was there.
    pub hits: u64,
    /// Prompts of which nothing was there.
    pub misses: u64,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Those of them that were there.
    pub cached_tokens: u64,
}

/// What guesses at the next tokens have brought so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Guesses {
    /// Tokens that were guessed.
    pub guessed: u64,
    /// Those of them that were right.
    pub right: u64,
    /// How often a row has stopped guessing for a while.
    pub paused: u64,
}

impl Guesses {
    fn add(&mut self, tried: &Tried) {
        self.guessed += tried.guessed as u64;
        self.right += tried.right as u64;
        self.paused += u64::from(tried.stopped);
    }
}

/// Somebody got a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Begun {
    /// As in [`Row`].
    pub id: String,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Those of them whose keys and values were there.
    pub cached: usize,
    /// Why there were not more of them, if another prompt had begun in the same way.
    pub missed: Option<Missed>,
}

/// The first token that is not that of an earlier prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Missed {
    /// Tokens that agree.
    pub at: usize,
    /// The text of the one that came now.
    pub token: String,
    /// The text of the one that came then.
    pub other: String,
    /// The number of the ask that came then.
    pub by: AskId,
}

/// An answer that is complete, or not wanted any more.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Ended {
    /// As in [`Row`].
    pub id: String,
    /// `stop`, `length`, or `left`: the client wanted no more.
    pub why: &'static str,
    /// When it came.
    pub arrived: f64,
    /// Until it had a row.
    pub queued: Option<f64>,
    /// Until its first token.
    pub ttft: Option<f64>,
    /// For each token after the first.
    pub tpot: Option<f64>,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Those of them that were cached.
    pub cached: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// What guesses have brought to it.
    pub guesses: Guesses,
}

/// The engine's side: what it notes of each answer, and the report that is being made.
#[derive(Debug)]
pub struct Watch {
    live: Live,
    answers: BTreeMap<SequenceId, Watched>,
    report: Report,
    /// When the last step ended.
    last: Duration,
}

/// What is noted of an answer.
#[derive(Debug, Default)]
struct Watched {
    name: String,
    prompt_tokens: usize,
    cached: usize,
    arrived: Duration,
    scheduled: Option<Duration>,
    first: Option<Duration>,
    last: Duration,
    tokens: usize,
    guesses: Guesses,
    why: Option<&'static str>,
}

impl Watch {
    /// Nothing has happened yet.
    pub fn new(live: Live) -> Self {
        Self {
            live,
            answers: BTreeMap::new(),
            report: Report::default(),
            last: Duration::ZERO,
        }
    }

    /// Somebody waits for a row.
    pub fn arrived(
        &mut self,
        id: SequenceId,
        (ask, choice): (AskId, usize),
        prompt_tokens: usize,
        now: Duration,
    ) {
        if self.answers.is_empty() {
            self.last = now; // the engine had nothing to do until now
        }
        let watched = Watched {
            name: name(ask, choice),
            prompt_tokens,
            arrived: now,
            ..Watched::default()
        };
        self.answers.insert(id, watched);
    }

    /// Somebody has got a row, and hears this.
    pub fn began(&mut self, id: SequenceId, event: &Event) {
        let (Event::Started { cached, missed }, Some(watched)) = (event, self.answers.get_mut(&id))
        else {
            return;
        };
        watched.cached = *cached;
        let prefix = &mut self.report.prefix;
        prefix.hits += u64::from(*cached > 0);
        prefix.misses += u64::from(*cached == 0);
        prefix.prompt_tokens += watched.prompt_tokens as u64;
        prefix.cached_tokens += *cached as u64;
        if self.live.readers() == 0 {
            return;
        }
        self.report.begun.push(Begun {
            id: watched.name.clone(),
            prompt_tokens: watched.prompt_tokens,
            cached: *cached,
            missed: missed.as_ref().map(|missed| Missed {
                at: missed.at,
                token: missed.token.clone(),
                other: missed.other.clone(),
                by: missed.by,
            }),
        });
    }

    /// A step has ended.
    pub fn stepped(&mut self, step: &Stepped, now: Duration) {
        self.report.step += u64::from(!step.plan.pieces.is_empty());
        (self.report.at, self.report.took) = (ms(now), ms(now.saturating_sub(self.last)));
        for piece in &step.plan.pieces {
            if let Some(watched) = self.answers.get_mut(&piece.id) {
                watched.scheduled.get_or_insert(self.last);
            }
        }
        for event in &step.events {
            if let (Some(watched), Ok(step)) = (self.answers.get_mut(&event.id), &event.step) {
                watched.take(step, now);
            }
        }
        for tried in &step.tried {
            self.report.guesses.add(tried);
            if let Some(watched) = self.answers.get_mut(&tried.id) {
                watched.guesses.add(tried);
            }
        }
        if self.live.readers() > 0 {
            self.plan(&step.plan);
            self.tried(&step.tried);
        }
        self.last = now;
    }

    /// The answer ends with a text that it was to end with.
    pub fn stopped(&mut self, id: SequenceId) {
        if let Some(watched) = self.answers.get_mut(&id) {
            watched.why.get_or_insert("stop");
        }
    }

    /// Whoever reads gets the report; `goes_on` says whose answers are still wanted.
    pub fn tell(&mut self, generator: &Generator<'_>, goes_on: impl Fn(&SequenceId) -> bool) {
        let read = self.live.readers() > 0;
        let ended = self.answers.extract_if(.., |id, _| !goes_on(id));
        for (_, watched) in ended {
            if read {
                self.report.ended.push(watched.ended());
            }
        }
        if read {
            let scheduler = generator.scheduler();
            self.report.kv = Kv {
                used: scheduler.kv_tokens_used(),
                limit: scheduler.limits().kv_tokens,
            };
            self.report.prefix.bytes = generator.known().bytes();
            self.queue(generator);
            let _ = self.live.reports.send(Arc::new(self.report.clone()));
        }
        let Report {
            step,
            prefix,
            guesses,
            ..
        } = self.report;
        self.report = Report {
            step,
            prefix,
            guesses,
            at: ms(self.last),
            ..Report::default()
        };
    }

    fn plan(&mut self, plan: &Plan) {
        let name = |id: &SequenceId| Some(self.answers.get(id)?.name.clone());
        let row = |piece: &crate::plan::Piece| {
            Some(Row {
                id: name(&piece.id)?,
                does: match piece.why {
                    Why::Decode => "decode",
                    Why::Again => "again",
                    _ => "prompt",
                },
                from: piece.range.start,
                to: piece.range.end,
                guessed: 0,
                right: 0,
            })
        };
        let held = |(id, why): &(SequenceId, Why)| {
            let why = why.to_string();
            name(id).map(|id| Held { id, why })
        };
        self.report.rows = plan.pieces.iter().filter_map(row).collect();
        self.report.held = plan.held.iter().filter_map(held).collect();
        self.report.preempted = plan.preempted.iter().filter_map(name).collect();
        self.report.waiting.why = plan.queue.map(|why| why.to_string());
    }

    /// What became of guesses, to the rows that had them.
    fn tried(&mut self, all: &[Tried]) {
        for tried in all {
            let Some(watched) = self.answers.get(&tried.id) else {
                continue;
            };
            let mut rows = self.report.rows.iter_mut();
            if let Some(row) = rows.find(|row| row.id == watched.name) {
                (row.guessed, row.right) = (row.guessed + tried.guessed, row.right + tried.right);
            }
            if tried.stopped {
                self.report.paused.push(watched.name.clone());
            }
        }
    }

    fn queue(&mut self, generator: &Generator<'_>) {
        let scheduler = generator.scheduler();
        let waiting = &mut self.report.waiting;
        waiting.count = scheduler.waiting();
        let first = scheduler.waiting.iter().take(NAMED);
        let names = first.filter_map(|entry| Some(self.answers.get(&entry.id)?.name.clone()));
        waiting.first = names.collect();
        if waiting.count == 0 {
            waiting.why = None; // who waited when the step was planned is gone
        }
    }
}

impl Watched {
    fn take(&mut self, step: &Step, now: Duration) {
        match step {
            Step::Prefill { .. } => {}
            Step::Token { .. } => {
                self.first.get_or_insert(now);
                (self.last, self.tokens) = (now, self.tokens + 1);
            }
            Step::End(reason) => {
                self.why = Some(match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                    FinishReason::Interrupted => "left",
                });
            }
        }
    }

    fn ended(&self) -> Ended {
        let since = |instant: Duration| ms(instant.saturating_sub(self.arrived));
        let gaps = self.tokens.checked_sub(1).filter(|gaps| *gaps > 0);
        let each = |first| gaps.map(|gaps| ms(self.last - first) / gaps as f64);
        Ended {
            id: self.name.clone(),
            why: self.why.unwrap_or("left"),
            arrived: ms(self.arrived),
            queued: self.scheduled.map(since),
            ttft: self.first.map(since),
            tpot: self.first.and_then(each),
            prompt_tokens: self.prompt_tokens,
            cached: self.cached,
            tokens: self.tokens,
            guesses: self.guesses,
        }
    }
}

fn name(ask: AskId, choice: usize) -> String {
    if choice == 0 {
        ask.to_string()
    } else {
        format!("{ask}.{choice}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_late_loses_the_oldest_reports_and_holds_up_nobody() {
        use broadcast::error::{TryRecvError, TryRecvError::Lagged};

        let live = Live::default();
        assert_eq!(live.readers(), 0);
        let mut late = live.listen();
        let steps = LATE as u64 + 100;
        for step in 1..=steps {
            let report = Report {
                step,
                ..Report::default()
            };
            live.reports.send(Arc::new(report)).unwrap();
        }
        assert_eq!(late.try_recv(), Err(Lagged(100)));
        for step in 101..=steps {
            assert_eq!(late.try_recv().unwrap().step, step);
        }
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
        drop(late);
        assert_eq!(live.readers(), 0);
    }

    #[test]
    fn an_answer_has_its_times_and_one_token_has_no_gap() {
        let at = Duration::from_millis;
        let mut watched = Watched {
            name: name(7, 0),
            arrived: at(100),
            scheduled: Some(at(130)),
            ..Watched::default()
        };
        let token = Step::Token {
            id: 1,
            positions: 1,
        };
        watched.take(&Step::Prefill { seen: 5 }, at(140));
        watched.take(&token, at(150));
        let ended = watched.ended();
        assert_eq!(
            (ended.queued, ended.ttft, ended.tpot),
            (Some(30.0), Some(50.0), None)
        );
        assert_eq!(
            (ended.id.as_str(), ended.why, ended.tokens),
            ("7", "left", 1)
        );
        watched.take(&token, at(160));
        watched.take(&token, at(190));
        watched.take(&Step::End(FinishReason::Length), at(190));
        let ended = watched.ended();
        assert_eq!((ended.tpot, ended.why), (Some(20.0), "length"));
        assert_eq!(name(7, 2), "7.2");
    }
}
