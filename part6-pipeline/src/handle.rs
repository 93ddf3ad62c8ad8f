//! The engine as its clients see it: asks go in through a channel, events come out through another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};

use crate::ask::{Ask, Event};

/// Numbers an ask. Who asks later has a higher one.
pub type AskId = u64;

/// What is said to the engine's thread.
#[derive(Debug)]
pub enum Command {
    /// Somebody asks. Events go to the sender; nobody takes them any more once it is closed.
    Submit(AskId, Box<Ask>, mpsc::UnboundedSender<Event>),
    /// Nobody wants the rest of an answer.
    Cancel(AskId),
    /// What runs is finished, and nothing new begins.
    Drain,
}

/// How the engine is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum State {
    /// The weights are being read.
    #[default]
    Loading,
    /// It takes asks.
    Ready,
    /// It finishes what it has.
    Draining,
    /// It has ended.
    Stopped,
    /// It has failed, and this is why.
    Dead(String),
}

/// What the engine says of itself after each step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Whether it takes asks.
    pub state: State,
    /// Asks without a row.
    pub waiting: usize,
    /// Rows in use.
    pub running: usize,
    /// Positions in memory, of rows alone.
    pub kv_tokens: usize,
    /// Positions that there is memory for.
    pub kv_limit: usize,
    /// Steps so far.
    pub steps: u64,
    /// Tokens of prompts so far, without those that were cached.
    pub prompt_tokens: u64,
    /// Tokens of prompts so far that were cached.
    pub cached_tokens: u64,
    /// Tokens of answers so far.
    pub completion_tokens: u64,
    /// Bytes of keys and values that are kept for later prompts.
    pub prefix_bytes: u64,
    /// Rows that lost their memory and were computed again.
    pub preemptions: u64,
}

/// Why an ask was not taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// It is loading, draining or dead: another moment, or another server.
    Unavailable(State),
    /// So many asks wait already.
    QueueFull(usize),
}

/// Speaks to the engine from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
    numbers: Arc<AtomicU64>,
    most_waiting: usize,
}

/// One ask's events. Whoever drops it wants no more of them: its rows are free within one step.
#[derive(Debug)]
pub struct Answer {
    /// Its number.
    pub id: AskId,
    events: mpsc::UnboundedReceiver<Event>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// A handle, and the engine's ends of its channels. At most so many asks may wait for a row.
    pub fn new(
        most_waiting: usize,
    ) -> (
        Self,
        mpsc::UnboundedReceiver<Command>,
        watch::Sender<Status>,
    ) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, status) = watch::channel(Status::default());
        let handle = Self {
            commands,
            status,
            numbers: Arc::default(),
            most_waiting,
        };
        (handle, receiver, sender)
    }

    /// Asks. The events are bounded by what was asked for: no reader, however slow, holds up the others.
    ///
    /// # Errors
    /// If the engine does not take asks now.
    pub fn submit(&self, ask: Ask) -> Result<Answer, Refusal> {
        let status = self.status();
        if status.state != State::Ready {
            return Err(Refusal::Unavailable(status.state));
        }
        if status.waiting >= self.most_waiting {
            return Err(Refusal::QueueFull(status.waiting));
        }
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::unbounded_channel();
        let commands = self.commands.clone();
        (commands.send(Command::Submit(id, Box::new(ask), sender)))
            .map_err(|_| Refusal::Unavailable(State::Stopped))?;
        Ok(Answer {
            id,
            events,
            commands,
        })
    }

    /// How the engine is now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until something has changed, and says how the engine is then.
    pub async fn changed(&mut self) -> Status {
        // An error means that the engine's thread has ended: its last word stands.
        let _ = self.status.changed().await;
        self.status()
    }

    /// What runs is finished, and nothing new begins.
    pub fn drain(&self) {
        let _ = self.commands.send(Command::Drain);
    }
}

impl Answer {
    /// The next event; None after the last one.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same for a program without a runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel(self.id));
    }
}
