//! The engine's side of the channels: who has asked, and what they hear, also if the engine fails.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, watch};

use crate::ask::{Event, Fault};
use crate::generate::Generator;
use crate::handle::{AskId, Client, Command, Opened, Place, State, Status};
use crate::replay::Recorder;
use crate::stepped::Stepped;

/// Where clients come and are served. It outlives the engine, whatever that one ends of: so nobody waits in vain.
#[derive(Debug)]
pub struct Desk {
    commands: mpsc::UnboundedReceiver<Command>,
    status: watch::Sender<Status>,
    opened: Arc<OnceLock<Opened>>,
    clients: BTreeMap<AskId, (mpsc::UnboundedSender<Event>, Place)>,
    /// Told, and not sent yet.
    told: Vec<(mpsc::UnboundedSender<Event>, Event)>,
    recorder: Option<Recorder>,
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
            told: Vec::new(),
            recorder: None,
        }
    }

    /// The model is known from now on.
    pub fn open(&self, opened: Opened) -> Arc<OnceLock<Opened>> {
        let _ = self.opened.set(opened);
        Arc::clone(&self.opened)
    }

    /// What is answered from now on is written down.
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// The next command, if there is one.
    pub fn look(&mut self) -> Option<Command> {
        let command = self.commands.try_recv().ok();
        self.see(command)
    }

    fn see(&mut self, command: Option<Command>) -> Option<Command> {
        if let (Some(recorder), Some(Command::Submit(client))) = (&mut self.recorder, &command) {
            recorder.asked(client.id, &client.ask);
        }
        command
    }

    /// The next command, as soon as there is one; none if nobody is left who could say anything.
    pub fn wait(&mut self) -> Option<Command> {
        let command = self.commands.blocking_recv();
        self.see(command)
    }

    /// Takes somebody in: from now on events can be told.
    pub fn welcome(&mut self, id: AskId, events: mpsc::UnboundedSender<Event>, place: Place) {
        self.clients.insert(id, (events, place));
    }

    /// One event for a client, sent with the next [`publish`](Self::publish): whoever has heard of something finds it
    /// in the status. Nothing happens if the client has gone.
    pub fn tell(&mut self, id: AskId, event: Event) {
        if let Event::Started { cached, .. } = event {
            (self.status).send_modify(|status| status.cached_tokens += cached as u64);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.told(id, &event);
        }
        if let Some((events, _)) = self.clients.get(&id) {
            self.told.push((events.clone(), event));
        }
    }

    /// Nothing more comes for a client.
    pub fn dismiss(&mut self, id: AskId) {
        self.clients.remove(&id);
        if let Some(recorder) = &mut self.recorder {
            recorder.gone(id);
        }
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
            step.tried
                .iter()
                .for_each(|tried| status.guesses.add(tried));
        });
    }

    /// Says who waits, who runs, and how much memory that takes; then clients hear what they were told.
    pub fn publish(&mut self, generator: &Generator<'_>) {
        let scheduler = generator.scheduler();
        self.status.send_modify(|status| {
            status.waiting = scheduler.waiting();
            status.running = scheduler.running();
            status.kv_tokens = scheduler.kv_tokens_used();
            status.prefix_bytes = generator.known().bytes();
            status.kv_limit = scheduler.limits().kv_tokens;
        });
        self.send();
    }

    fn send(&mut self) {
        for (events, event) in self.told.drain(..) {
            let _ = events.send(event); // whoever does not listen any more is about to cancel
        }
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
        let ids: Vec<AskId> = self.clients.keys().copied().collect();
        for id in ids {
            self.tell(id, Event::Failed(Fault::Engine(heard.clone())));
        }
        self.send();
    }
}
