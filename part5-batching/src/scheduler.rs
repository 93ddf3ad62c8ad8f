//! The scheduler: which tokens of which requests the next step runs.
//!
//! It knows no phases. A request has tokens (its prompt, and the answer so far) and positions that are
//! computed, and these chase the tokens. A step hands out a budget of tokens: a row that decodes misses one
//! and gets it, a prompt misses many and gets them in pieces. vLLM's scheduler is this one formula too.
//!
//! No model and no clock: requests and instants in, the plan of a step out. So the simulator runs this very
//! code, and a test can try what would take hours to happen.
//!
//! What it promises, in steps:
//!
//! - A row that decodes is in every step. So an answer never waits longer than one step of `tokens_per_step`
//!   tokens, and at most one step in `decodes_per_piece` has a prompt in it. (Only memory can interrupt an
//!   answer: see [`Memory::Preempt`].)
//! - The oldest prompt with a row is computed after at most [`Limits::prompt_steps`] steps.
//! - Requests get their rows in the order in which they came, and the oldest one always gets on. So a request
//!   has ended after at most the sum of `prompt_steps(prompt + max_tokens) + max_tokens` over itself and all
//!   that came before it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::books::Entry;
pub use crate::limits::{Limits, Memory, Policy};
pub use crate::plan::{Piece, Plan, SequenceId, Why};

/// Who waits, who runs, and what they have computed. All that wait came after all that run.
#[derive(Debug, Clone)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) waiting: VecDeque<Entry>,
    pub(crate) running: Vec<Entry>,
    pub(crate) newest: Option<SequenceId>,
    pub(crate) closed: bool,
    /// Steps since one had a piece of a prompt in it.
    pub(crate) since_prompt: usize,
}

impl Scheduler {
    /// Plans a step, and takes it as computed.
    pub fn plan(&mut self, now: Duration) -> Plan {
        let preempted = self.preempt();
        // Who had to go must not come back for the same memory in the same step.
        let queue = if preempted.is_empty() {
            self.admit(now)
        } else {
            Some(Why::MemoryTaken)
        };
        let mut plan = Plan {
            preempted,
            queue,
            wake: self.wake(queue),
            ..Plan::default()
        };
        self.hand_out(&mut plan);
        plan
    }

    /// Takes memory from the last arrivals until the rest fits. One row alone always fits.
    fn preempt(&mut self) -> Vec<SequenceId> {
        let mut preempted = Vec::new();
        while self.promised() > self.limits.kv_tokens
            && let Some(mut last) = self.running.pop()
        {
            // The newest token of an answer belongs to what is read again.
            last.lost = last
                .lost
                .max(last.computed + usize::from(last.missing() <= 1));
            last.computed = 0;
            preempted.push(last.id);
            // Before all that wait: it came before them.
            self.waiting.push_front(last);
        }
        preempted
    }

    /// Gives rows to those who wait, and says why the next one gets none.
    fn admit(&mut self, now: Duration) -> Option<Why> {
        let first = self.waiting.front()?;
        let fitting = self.fitting();
        let waited = match self.limits.policy {
            Policy::Static => Some(false),
            Policy::Dynamic { wait } => Some(now >= first.arrived.saturating_add(wait)),
            Policy::Continuous => None,
        };
        if let Some(waited) = waited {
            let full = fitting == self.limits.rows || fitting < self.waiting.len();
            if !self.running.is_empty() {
                return Some(Why::BatchRuns);
            } else if !(full || waited || self.closed) {
                return Some(Why::BatchFills);
            }
        }
        self.running.extend(self.waiting.drain(..fitting));
        self.waiting.front()?;
        Some(if self.running.len() == self.limits.rows {
            Why::RowsTaken
        } else {
            Why::MemoryTaken
        })
    }

    /// How many of those who wait can have a row now: strictly in order, or long prompts would starve.
    pub(crate) fn fitting(&self) -> usize {
        let rows = self.limits.rows - self.running.len();
        let mut promised = self.promised();
        let fits = |(rank, entry): &(usize, &Entry)| {
            promised += self.promise(entry);
            // Each row that is there already needs room to grow, or the newcomer has to go again at once.
            let grow = match self.limits.memory {
                Memory::Reserve => 0,
                Memory::Preempt => (self.running.len() + rank) * self.limits.block,
            };
            promised + grow <= self.limits.kv_tokens
        };
        self.waiting
            .iter()
            .take(rows)
            .enumerate()
            .take_while(fits)
            .count()
    }

    /// Shares the tokens of a step out among the rows: first to those that miss one, then to the oldest.
    fn hand_out(&mut self, plan: &mut Plan) {
        let decoding = self
            .running
            .iter()
            .filter(|entry| entry.missing() == 1)
            .count();
        let mut left = self.limits.tokens_per_step - decoding;
        let prompts_too = decoding == 0 || self.since_prompt + 1 >= self.limits.decodes_per_piece;
        let mut prompts = false;
        for entry in &mut self.running {
            match entry.missing() {
                0 => {}
                1 => plan.pieces.push(entry.take(1)),
                _ if !prompts_too => plan.held.push((entry.id, Why::DecodesFirst)),
                _ => {
                    let tokens = entry.cut(self.limits.piece.min(left), self.limits.block);
                    if tokens == 0 {
                        plan.held.push((entry.id, Why::StepFull));
                        continue;
                    }
                    left -= tokens;
                    prompts = true;
                    plan.pieces.push(entry.take(tokens));
                }
            }
        }
        let stepped = usize::from(!plan.pieces.is_empty());
        self.since_prompt = if prompts {
            0
        } else {
            self.since_prompt + stepped
        };
    }
}

impl Entry {
    /// Tokens whose positions are not computed. The last token of the longest answer needs no position.
    pub(crate) fn missing(&self) -> usize {
        if self.tokens < self.most {
            self.tokens - self.computed
        } else {
            0
        }
    }
}
