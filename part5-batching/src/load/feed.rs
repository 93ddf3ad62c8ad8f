//! Which requests are sent now. The same for a real run and for a simulated one.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Load, Planned};
use crate::plan::Plan;
use crate::scheduler::Scheduler;

/// A load on its way.
#[derive(Debug)]
pub struct Feed<'a> {
    load: &'a Load,
    next: usize,
    in_flight: usize,
}

impl<'a> Feed<'a> {
    /// Nothing has been sent.
    pub fn new(load: &'a Load) -> Self {
        Self {
            load,
            next: 0,
            in_flight: 0,
        }
    }

    /// The next request and its place in the load, if it is to be sent now. Ask until there is none.
    pub fn send(&mut self, now: Duration) -> Option<(usize, &'a Planned)> {
        let request = self.load.requests.get(self.next)?;
        if request.due > now || self.is_full() {
            return None;
        }
        self.next += 1;
        self.in_flight += 1;
        Some((self.next - 1, request))
    }

    /// From when on a request counts as sent: from when it was due, however late the host looked, but only from now
    /// on where it had to wait for others to end.
    pub fn arrival(&self, request: &Planned, now: Duration) -> Duration {
        if self.load.offered.max_concurrency.is_some() {
            now
        } else {
            request.due
        }
    }

    /// When something happens next, with nothing to run now: a request is due, or the scheduler wakes. None at the end.
    ///
    /// # Errors
    /// If the load and the scheduler wait for each other.
    pub fn next(&self, plan: &Plan, scheduler: &Scheduler) -> Result<Option<Duration>> {
        let next = [self.wake(), plan.wake].into_iter().flatten().min();
        if next.is_none() && !(self.is_done() && scheduler.is_idle()) {
            let rows = scheduler.limits().rows;
            bail!(
                "a batch of {rows} rows never fills when fewer requests are sent at the same time: take \
                 --concurrency {rows} or more, or a policy that does not wait"
            );
        }
        Ok(next)
    }

    /// A request has ended, in whatever way: there is room for another one.
    pub fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// When the next request is due. None if none will come before another one has ended.
    pub fn wake(&self) -> Option<Duration> {
        let next = self.load.requests.get(self.next)?;
        (!self.is_full()).then_some(next.due)
    }

    /// Whether all have been sent.
    pub fn is_done(&self) -> bool {
        self.next == self.load.requests.len()
    }

    fn is_full(&self) -> bool {
        self.load
            .offered
            .max_concurrency
            .is_some_and(|most| self.in_flight >= most)
    }
}
