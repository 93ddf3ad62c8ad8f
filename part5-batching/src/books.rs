//! The scheduler's books: who waits, who runs, and how far each has come.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::limits::{Limits, Memory, Policy};
use crate::plan::{Piece, SequenceId, Why};
use crate::scheduler::Scheduler;

/// A request, as far as its scheduling goes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: SequenceId,
    pub(crate) arrived: Duration,
    pub(crate) prompt: usize,
    /// Tokens of the prompt, and the most that an answer may have.
    pub(crate) most: usize,
    /// Tokens of the prompt and of the answer so far.
    pub(crate) tokens: usize,
    /// Positions that are in memory; of one that waits, those that came from a cache.
    pub(crate) computed: usize,
    /// Positions that are computed a second time after it was preempted.
    pub(crate) lost: usize,
}

impl Scheduler {
    /// Nobody waits, nobody runs.
    pub fn new(limits: Limits) -> Result<Self> {
        limits.check()?;
        let since_prompt = limits.decodes_per_piece;
        let (waiting, running) = (VecDeque::new(), Vec::with_capacity(limits.rows.min(1024)));
        Ok(Self {
            limits,
            waiting,
            running,
            newest: None,
            closed: false,
            since_prompt,
        })
    }

    /// A request has arrived.
    ///
    /// # Errors
    /// If it could never run, not even alone. The others are not affected.
    pub fn submit(
        &mut self,
        id: SequenceId,
        prompt: usize,
        max_tokens: usize,
        now: Duration,
    ) -> Result<()> {
        ensure!(
            self.newest < Some(id),
            "request {} came before: numbers must rise",
            id.0
        );
        self.limits.check_request(prompt, max_tokens)?;
        self.newest = Some(id);
        self.waiting.push_back(Entry {
            id,
            arrived: now,
            prompt,
            most: prompt + max_tokens,
            tokens: prompt,
            computed: 0,
            lost: 0,
        });
        Ok(())
    }

    /// Nobody will come any more: a batch that is not full need not wait.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Those of the queue who can have a row at the next step, in order: the moment to look up whether the beginnings
    /// of their prompts are known.
    pub fn next_in_line(&self) -> impl Iterator<Item = SequenceId> {
        let next = self.waiting.iter().take(self.fitting());
        next.map(|entry| entry.id)
    }

    /// So many first positions of a request that waits are there already, and are not planned: those of a prompt
    /// that begins like an earlier one. Who is preempted loses them like the rest.
    ///
    /// # Errors
    /// If it does not wait (what a row has computed is known here), or if there would be nothing to run, and so
    /// no scores for its next token.
    pub fn cached(&mut self, id: SequenceId, positions: usize) -> Result<()> {
        let at = self.waiting.binary_search_by_key(&id, |entry| entry.id);
        let entry = at.ok().and_then(|at| self.waiting.get_mut(at));
        let entry = entry.with_context(|| {
            format!(
                "request {} does not wait: its beginning is taken from a cache before it has a row",
                id.0
            )
        })?;
        ensure!(
            positions < entry.tokens,
            "{positions} positions of request {} are in a cache, it has {} tokens and one of them has to be run",
            id.0,
            entry.tokens
        );
        entry.computed = positions;
        Ok(())
    }

    /// A request's answer has got one more token. Its value may still be on its way.
    pub fn token(&mut self, id: SequenceId) {
        let entry = match self.running.binary_search_by_key(&id, |entry| entry.id) {
            Ok(at) => self.running.get_mut(at),
            // It was preempted in between.
            Err(_) => self.waiting.iter_mut().find(|entry| entry.id == id),
        };
        if let Some(entry) = entry {
            entry.tokens += 1;
        }
    }

    /// A request is over, at whatever moment: its answer has ended, or nobody wants it any more.
    pub fn end(&mut self, id: SequenceId) {
        if let Ok(at) = self.running.binary_search_by_key(&id, |entry| entry.id) {
            self.running.remove(at);
        } else if let Ok(at) = self.waiting.binary_search_by_key(&id, |entry| entry.id) {
            self.waiting.remove(at);
        }
    }

    /// Requests without a row.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests with a row.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether there are no requests.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Positions that are in memory once the last plan has been run.
    pub fn kv_tokens_used(&self) -> usize {
        self.running.iter().map(|entry| entry.computed).sum()
    }

    /// What the steps may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When a batch that waits for more requests begins at the latest.
    pub(crate) fn wake(&self, queue: Option<Why>) -> Option<Duration> {
        match (queue, self.limits.policy, self.waiting.front()) {
            (Some(Why::BatchFills), Policy::Dynamic { wait }, Some(first)) => {
                Some(first.arrived.saturating_add(wait))
            }
            _ => None,
        }
    }

    /// Positions that a row may count on.
    pub(crate) fn promise(&self, entry: &Entry) -> usize {
        match self.limits.memory {
            Memory::Reserve => entry.most,
            Memory::Preempt => entry.tokens,
        }
    }

    /// Positions that all rows may count on.
    pub(crate) fn promised(&self) -> usize {
        self.running.iter().map(|entry| self.promise(entry)).sum()
    }
}

impl Entry {
    /// How many of the missing tokens a piece of at most so many has: all, or up to the end of a block.
    pub(crate) fn cut(&self, most: usize, block: usize) -> usize {
        if self.missing() <= most {
            return self.missing();
        }
        let end = self.computed + most;
        (end - end % block).saturating_sub(self.computed)
    }

    /// The next tokens as a piece, from now on taken as computed.
    pub(crate) fn take(&mut self, tokens: usize) -> Piece {
        let range = self.computed..self.computed + tokens;
        let why = match range.start {
            start if start < self.lost => Why::Again,
            start if start < self.prompt => Why::Prompt,
            _ => Why::Decode,
        };
        self.computed = range.end;
        Piece {
            id: self.id,
            last: range.end == self.tokens,
            range,
            why,
        }
    }
}
