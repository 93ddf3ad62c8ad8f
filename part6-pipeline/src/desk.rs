//! The engine's side of the channels: who has asked, and what they hear, also if the engine fails.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, watch};

use crate::ask::{Event, Fault};
use crate::handle::{AskId, Client, Command, Opened, Place, State, Status};
use crate::scheduler::Scheduler;
use crate::stepped::Stepped;

/// Where clients come and are served. It outlives the engine, whatever that one ends of: so nobody waits in vain.
#[derive(Debug)]
pub struct Desk {
    commands: mpsc::UnboundedReceiver<Command>,
    status: watch::Sender<Status>,
    opened: Arc<OnceLock<Opened>>,
    clients: BTreeMap<AskId, (mpsc::UnboundedSender<Event>, Place)>,
}

impl Desk {
    pub(crate) fn new(
        commands: mpsc::UnboundedReceiver<Command>,
        status: watch::Sender<Status>,
        opened: Arc<OnceLock<Opened>>,
    ) -> Self {
        Self {
            commands,
            status,
            opened,
            clients: BTreeMap::new(),
        }
    }

    /// The model is known from now on.
    pub fn open(&self, opened: Opened) -> Arc<OnceLock<Opened>> {
        let _ = self.opened.set(opened);
        Arc::clone(&self.opened)
    }

    /// The next command, if there is one.
    pub fn look(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// The next command, as soon as there is one; none if nobody is left who could say anything.
    pub fn wait(&mut self) -> Option<Command> {
        self.commands.blocking_recv()
    }

    /// Takes somebody in: from now on events can be told.
    pub fn welcome(&mut self, id: AskId, events: mpsc::UnboundedSender<Event>, place: Place) {
        self.clients.insert(id, (events, place));
    }

    /// One event for a client. Nothing happens if it has gone.
    pub fn tell(&self, id: AskId, event: Event) {
        if let Event::Started { cached } = event {
            (self.status).send_modify(|status| status.cached_tokens += cached as u64);
        }
        if let Some((events, _)) = self.clients.get(&id) {
            let _ = events.send(event); // whoever does not listen any more is about to cancel
        }
    }

    /// Nothing more comes for a client.
    pub fn dismiss(&mut self, id: AskId) {
        self.clients.remove(&id);
    }

    /// Says how the engine is.
    pub fn say(&self, state: State) {
        self.status.send_modify(|status| status.state = state);
    }

    /// Adds what a step was.
    pub fn count(&self, step: &Stepped) {
        self.status.send_modify(|status| {
            status.steps += u64::from(!step.plan.pieces.is_empty());
            status.completion_tokens += step.tokens() as u64;
            status.prompt_tokens += step.prompt_tokens as u64;
            status.preemptions += step.plan.preempted.len() as u64;
        });
    }

    /// Says who waits, who runs, and how much memory that takes.
    pub fn publish(&self, scheduler: &Scheduler) {
        self.status.send_modify(|status| {
            status.waiting = scheduler.waiting();
            status.running = scheduler.running();
            status.kv_tokens = scheduler.kv_tokens_used();
            status.kv_limit = scheduler.limits().kv_tokens;
        });
    }

    /// The engine has ended, and failed if there is a reason. Everybody who has asked hears of it.
    pub fn close(mut self, why: Option<String>) {
        let heard = why
            .clone()
            .unwrap_or_else(|| "the engine has ended".to_owned());
        self.say(why.map_or(State::Stopped, State::Dead));
        self.commands.close();
        while let Some(command) = self.look() {
            if let Command::Submit(client) = command {
                let Client {
                    id, events, place, ..
                } = *client;
                self.welcome(id, events, place);
            }
        }
        for id in self.clients.keys() {
            self.tell(*id, Event::Failed(Fault::Engine(heard.clone())));
        }
    }
}
