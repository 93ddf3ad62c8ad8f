//! The engine as its clients see it: asks go in through a channel, events come out through another one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use anyhow::Result;
use shared::config::ModelConfig;
use shared::tokenizer::Tokenizer;
use tokio::sync::{mpsc, watch};

use crate::ask::{Ask, Event};
use crate::constraint::Vocabulary;
use crate::desk::Desk;
use crate::stepped::Tried;

/// Numbers an ask. Who asks later has a higher one.
pub type AskId = u64;

/// What is said to the engine's thread.
#[derive(Debug)]
pub enum Command {
    /// Somebody asks.
    Submit(Box<Client>),
    /// Nobody wants the rest of an answer.
    Cancel(AskId),
    /// What runs is finished, and nothing new begins.
    Drain,
}

/// Somebody who asks.
#[derive(Debug)]
pub struct Client {
    /// The number of the ask.
    pub id: AskId,
    /// What is asked.
    pub ask: Ask,
    /// Where the events go. Nobody takes them any more once it is closed.
    pub events: mpsc::UnboundedSender<Event>,
    /// Kept as long as the ask is open.
    pub place: Place,
}

/// One of the asks that may be open at the same time: free for the next one when this is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let one_more = |open| (open < most).then_some(open + 1);
        let taken = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Self(Arc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the engine is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it takes asks.
    pub state: State,
    /// Answers without a row.
    pub waiting: usize,
    /// Rows in use.
    pub running: usize,
    /// Positions in memory, of rows alone.
    pub kv_tokens: usize,
    /// Positions that there is memory for.
    pub kv_limit: usize,
    /// Steps so far.
    pub steps: u64,
    /// Tokens of prompts that were run so far, those included that were run again.
    pub prompt_tokens: u64,
    /// Tokens of prompts so far that were cached.
    pub cached_tokens: u64,
    /// Tokens of answers so far.
    pub completion_tokens: u64,
    /// Bytes of keys and values that are kept for later prompts.
    pub prefix_bytes: u64,
    /// Rows that lost their memory and were computed again.
    pub preemptions: u64,
    /// What guesses at the next tokens have brought so far.
    pub guesses: GuessCounts,
}

/// What guesses at the next tokens have brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuessCounts {
    /// How often a row had one.
    pub guesses: u64,
    /// Tokens that were guessed.
    pub guessed: u64,
    /// Those of them that were right.
    pub right: u64,
    /// How often the first, second, … token of a guess was right, as far as any was guessed.
    pub right_at: Vec<u64>,
    /// How often an answer has stopped guessing for a while, since it lost time.
    pub stopped: u64,
}

impl GuessCounts {
    /// Adds what became of a guess.
    pub fn add(&mut self, tried: &Tried) {
        self.guesses += u64::from(tried.guessed > 0);
        self.guessed += tried.guessed as u64;
        self.right += tried.right as u64;
        self.stopped += u64::from(tried.stopped);
        if self.right_at.len() < tried.guessed {
            self.right_at.resize(tried.guessed, 0);
        }
        for right in &mut self.right_at[..tried.right] {
            *right += 1;
        }
    }
}

/// What a model takes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The weights.
    pub weight_bytes: u64,
    /// The keys and values of one position.
    pub kv_bytes_per_token: u64,
}

/// The model that the engine has opened, for whoever makes asks from texts.
#[derive(Debug)]
pub struct Opened {
    /// As it was asked for.
    pub name: String,
    /// What it is.
    pub config: ModelConfig,
    /// Text to ids, ids to text.
    pub tokenizer: Tokenizer,
    /// How large it is, where that is known.
    pub sizes: Option<Sizes>,
    /// What grammars choose from, made when the first one comes.
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

impl Opened {
    /// A model that was opened under this name.
    pub fn new(name: String, config: ModelConfig, tokenizer: Tokenizer) -> Self {
        Self {
            name,
            config,
            tokenizer,
            sizes: None,
            vocabulary: OnceLock::new(),
        }
    }

    /// The same, with its sizes.
    pub fn sized(self, sizes: Sizes) -> Self {
        Self {
            sizes: Some(sizes),
            ..self
        }
    }

    /// What grammars choose from.
    ///
    /// # Cost
    /// Some 100 ms the first time.
    pub fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
        if let Some(made) = self.vocabulary.get() {
            return Ok(Arc::clone(made));
        }
        let made = Vocabulary::new(&self.tokenizer, self.config.vocab_size)?;
        Ok(Arc::clone(self.vocabulary.get_or_init(|| made)))
    }
}

/// Why an ask was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is loading, draining or dead: another moment, or another server.
    Unavailable(State),
    /// So many asks are open already.
    QueueFull(usize),
}

/// Speaks to the engine from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    status: watch::Receiver<Status>,
    opened: Arc<OnceLock<Opened>>,
    numbers: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
    most: usize,
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
    /// A handle, and the engine's ends of its channels. At most so many asks may be open, those that wait included.
    pub fn new(most: usize) -> (Self, Desk) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, status) = watch::channel(Status::default());
        let opened = Arc::default();
        let desk = Desk::new(receiver, sender, Arc::clone(&opened));
        let handle = Self {
            commands,
            status,
            opened,
            numbers: Arc::default(),
            open: Arc::default(),
            most,
        };
        (handle, desk)
    }

    /// Asks. The events are bounded by what was asked for: no reader, however slow, holds up the others.
    ///
    /// # Errors
    /// If the engine does not take asks now.
    pub fn submit(&self, ask: Ask) -> Result<Answer, Refusal> {
        let state = self.status.borrow().state.clone();
        if state != State::Ready {
            return Err(Refusal::Unavailable(state));
        }
        let place = Place::take(&self.open, self.most).ok_or(Refusal::QueueFull(self.most))?;
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::unbounded_channel();
        let client = Client {
            id,
            ask,
            events: sender,
            place,
        };
        let sent = self.commands.send(Command::Submit(Box::new(client)));
        sent.map_err(|_| Refusal::Unavailable(self.status().state))?;
        Ok(Answer {
            id,
            events,
            commands: self.commands.clone(),
        })
    }

    /// How the engine is now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The model; none while the engine is still opening it.
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }

    /// Waits until something has changed, and says how the engine is then.
    pub async fn changed(&mut self) -> Status {
        // An error means that the engine's thread has ended: its last word stands.
        let _ = self.status.changed().await;
        self.status()
    }

    /// Waits until the model is loaded, and says how the engine is then: ready, or why not.
    pub async fn loaded(&mut self) -> State {
        // An error means that the engine's thread has ended: its last word stands.
        let loaded = self.status.wait_for(|now| now.state != State::Loading);
        let _ = loaded.await;
        self.status().state
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

    /// The same for whoever waits for several answers at a time.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
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
