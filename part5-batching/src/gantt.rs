//! What happened to each request, over time: queued, read in pieces, decoded, sent back, and why.
//!
//! It is told each plan as it is run, by an engine or by the simulator, and draws it:
//!
//! - [`terminal`]: a line for each request, in 80 columns
//! - [`page`]: one HTML file, to step through

pub mod page;
pub mod terminal;

use std::time::Duration;

use console::metrics::{FinishReason, ms};
use console::serving::Served;
use serde::Serialize;

use crate::plan::{Plan, SequenceId, Why};

/// Most requests that are drawn: more lines than anybody looks at.
pub const MOST_LANES: usize = 256;
/// Most plans that are kept.
const MOST_STEPS: usize = 5000;

/// Plans as they were run.
#[derive(Debug, Default)]
pub struct Recording {
    plans: Vec<(Duration, Duration, Plan)>,
    left_out: usize,
}

/// What a request does at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has no row.
    Queued,
    /// It has a row and nothing to run.
    Held,
    /// A piece of its prompt is run.
    Prompt,
    /// What it had lost is computed again.
    Again,
    /// A token of its answer is run in a step that also reads prompts: the step takes longer.
    Slowed,
    /// A token of its answer is run.
    Decode,
}

/// A stretch of time in which a request did one thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// Beginning, in milliseconds.
    pub from: f64,
    /// End, in milliseconds.
    pub to: f64,
    /// What it did.
    pub state: State,
    /// The scheduler's reason.
    pub why: String,
    /// Its tokens that were run: from, to. Equal if none were.
    pub tokens: (usize, usize),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lane {
    /// Its number.
    pub id: u64,
    /// When it came, in milliseconds.
    pub arrival: f64,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens of its answer.
    pub output_tokens: usize,
    /// How it ended: `length`, `stop`, `interrupted`, or `refused`.
    pub end: String,
    /// What it did, in order.
    pub spans: Vec<Span>,
    /// When it gave its memory back, in milliseconds.
    pub preempted: Vec<f64>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Beginning, in milliseconds.
    pub from: f64,
    /// End, in milliseconds.
    pub to: f64,
    /// Who ran which tokens, and why.
    pub ran: Vec<(u64, usize, usize, String)>,
    /// Who had a row and sat out, and why.
    pub held: Vec<(u64, String)>,
    /// Who gave its memory back.
    pub preempted: Vec<u64>,
    /// Why the first of the queue had no row.
    pub queue: Option<String>,
}

/// A run, to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gantt {
    /// What it shows, in a line. A run that was simulated says so here.
    pub title: String,
    /// Its end, in milliseconds.
    pub duration: f64,
    /// The requests.
    pub lanes: Vec<Lane>,
    /// The steps.
    pub steps: Vec<Step>,
    /// Requests that are not drawn.
    pub lanes_left_out: usize,
    /// Steps that are not drawn.
    pub steps_left_out: usize,
}

impl Recording {
    /// A plan was run from then until then. One with nothing to run was waited on.
    pub fn add(&mut self, from: Duration, to: Duration, plan: &Plan) {
        if self.plans.len() < MOST_STEPS {
            self.plans.push((from, to, plan.clone()));
        } else {
            self.left_out += 1;
        }
    }

    /// With what became of the requests, each at the place of its number.
    pub fn finish(self, title: &str, served: &[Served]) -> Gantt {
        let lanes = served.iter().take(MOST_LANES).enumerate();
        Gantt {
            title: title.to_owned(),
            duration: self
                .plans
                .iter()
                .map(|(_, to, _)| ms(*to))
                .fold(0.0, f64::max),
            lanes: lanes
                .map(|(id, served)| self.lane(id as u64, served))
                .collect(),
            steps: self
                .plans
                .iter()
                .filter(|(_, _, plan)| !plan.pieces.is_empty())
                .map(step)
                .collect(),
            lanes_left_out: served.len().saturating_sub(MOST_LANES),
            steps_left_out: self.left_out,
        }
    }

    fn lane(&self, id: u64, served: &Served) -> Lane {
        let refused = served.finish_reason.is_none() && served.scheduled.is_none();
        let mut lane = Lane {
            id,
            arrival: ms(served.arrival),
            prompt_tokens: served.prompt_tokens,
            output_tokens: served.tokens.len(),
            end: served
                .finish_reason
                .as_ref()
                .map_or("refused".to_owned(), FinishReason::to_string),
            spans: Vec::new(),
            preempted: Vec::new(),
        };
        let mut has_row = false;
        for (from, to, plan) in self
            .plans
            .iter()
            .filter(|(_, to, _)| !refused && served.arrival < *to)
        {
            if plan.preempted.contains(&SequenceId(id)) {
                has_row = false;
                lane.preempted.push(ms(*from));
            }
            let Some((state, why, tokens)) = doing(id, plan, has_row, served.arrival > *from)
            else {
                continue;
            };
            has_row |= state != State::Queued;
            lane.add(Span {
                from: ms((*from).max(served.arrival)),
                to: ms(*to),
                state,
                why,
                tokens,
            });
        }
        lane
    }
}

/// What a request does while a plan is run. None for one that has ended, or waits for its own last token.
fn doing(
    id: u64,
    plan: &Plan,
    has_row: bool,
    came_later: bool,
) -> Option<(State, String, (usize, usize))> {
    if let Some(piece) = plan.pieces.iter().find(|piece| piece.id.0 == id) {
        let prompts = plan.pieces.iter().any(|piece| piece.why != Why::Decode);
        let state = match piece.why {
            Why::Again => State::Again,
            Why::Decode if prompts => State::Slowed,
            Why::Decode => State::Decode,
            _ => State::Prompt,
        };
        return Some((
            state,
            piece.why.to_string(),
            (piece.range.start, piece.range.end),
        ));
    }
    if let Some((_, why)) = plan.held.iter().find(|(held, _)| held.0 == id) {
        return Some((State::Held, why.to_string(), (0, 0)));
    }
    let queued = |why: String| Some((State::Queued, why, (0, 0)));
    match plan.queue {
        _ if has_row => None,
        _ if came_later => queued("waits: it came in the middle of a step".to_owned()),
        Some(why) => queued(why.to_string()),
        None => None,
    }
}

impl Lane {
    /// Adds a stretch, to the last one if that goes on.
    fn add(&mut self, span: Span) {
        match self.spans.last_mut() {
            Some(last)
                if (last.state, &last.why) == (span.state, &span.why)
                    && !matches!(span.state, State::Prompt | State::Again)
                    && (span.from - last.to).abs() < 1e-6 =>
            {
                last.to = span.to;
                last.tokens.1 = span.tokens.1;
            }
            _ => self.spans.push(span),
        }
    }
}

fn step((from, to, plan): &(Duration, Duration, Plan)) -> Step {
    let ran = plan.pieces.iter().map(|piece| {
        (
            piece.id.0,
            piece.range.start,
            piece.range.end,
            piece.why.to_string(),
        )
    });
    Step {
        from: ms(*from),
        to: ms(*to),
        ran: ran.collect(),
        held: plan
            .held
            .iter()
            .map(|(id, why)| (id.0, why.to_string()))
            .collect(),
        preempted: plan.preempted.iter().map(|id| id.0).collect(),
        queue: plan.queue.map(|why| why.to_string()),
    }
}
