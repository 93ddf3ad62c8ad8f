//! The lanes and the programs that run in them.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::Result;
use console::interrupt::Interrupt;

use super::lane::Lane;
use crate::ask::Ask;
use crate::parts::Contestant;
use crate::process::{self, Event, Process, Said};

/// All lanes. The programs that still run end with the value.
#[derive(Debug)]
pub(crate) struct Race {
    lanes: Vec<Lane>,
    processes: Vec<Process>,
    events: Receiver<Event>,
    finished: usize,
}

impl Race {
    /// Starts all of them.
    pub(crate) fn start(ask: &Ask, contestants: &[Contestant], max_tokens: u32) -> Result<Self> {
        let (sender, events) = channel();
        let mut race = Self {
            lanes: Vec::new(),
            processes: Vec::new(),
            events,
            finished: 0,
        };
        // Each BLAS would take all cores: they share them. Where a GPU computes, the variable changes
        // nothing.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / contestants.len().max(1)).max(1).to_string();
        for (lane, contestant) in contestants.iter().enumerate() {
            let mut command = ask.command(contestant, max_tokens);
            command.env("OMP_NUM_THREADS", &threads);
            let process = Process::start(&mut command, lane, &sender)?;
            race.processes.push(process);
            let lane = Lane::new(contestant.clone(), max_tokens, Instant::now());
            race.lanes.push(lane);
        }
        Ok(race)
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lanes.iter().all(Lane::is_over)
    }

    /// Takes in all that was said until now, without waiting.
    pub(crate) fn catch_up(&mut self) -> Result<()> {
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    /// Waits until something is said.
    pub(crate) fn wait(&mut self, interrupt: &Interrupt) -> Result<()> {
        let event = process::next(&self.events, interrupt)?;
        self.take(event)
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let lane = &mut self.lanes[event.lane];
        match event.said {
            Said::Out(bytes) => lane.out(&bytes, Instant::now()),
            Said::Err(bytes) => lane.err(&bytes),
            Said::Closed => {
                let status = self.processes[event.lane].wait()?;
                lane.ended(status, self.finished + 1);
                self.finished += usize::from(lane.place().is_some());
            }
        }
        Ok(())
    }

    /// Ends what still runs; the lanes stay.
    pub(crate) fn finish(mut self) -> Vec<Lane> {
        self.processes.clear();
        self.lanes.iter_mut().for_each(Lane::stop);
        self.lanes
    }
}
