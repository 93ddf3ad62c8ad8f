//! The engine: one thread owns MLX, the model and all that is in flight, and everybody else sends it messages.
//!
//! MLX's arrays do not cross threads, and a device has one queue: locks around a model would only make its clients
//! wait for each other in the same order. So clients write to a channel what they want, and the engine's thread
//! looks into it between two steps. A step is the same for one client and for thirty.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::answer::Answering;
use crate::ask::{Event, Fault};
use crate::constraint::Constraint;
use crate::desk::Desk;
use crate::generate::Generator;
use crate::handle::{AskId, Client, Command, Opened, State};
use crate::live::{Live, Watch};
use crate::plan::{Plan, SequenceId};
use crate::stepped;

const DRAINS: &str = "the engine is about to end, and begins nothing new";

/// What is in flight, and for whom.
#[derive(Debug)]
pub struct Engine<'a> {
    pub(crate) generator: Generator<'a>,
    opened: &'a Opened,
    desk: &'a mut Desk,
    /// Each ask whose answers have not all ended.
    pub(crate) asks: BTreeMap<AskId, Answering<'a>>,
    /// Whose answer a sequence is, and which one of those it asked for.
    pub(crate) answers: BTreeMap<SequenceId, (AskId, usize)>,
    begun: Instant,
    draining: bool,
    watch: Watch,
}

impl<'a> Engine<'a> {
    /// An engine that nobody has asked anything yet.
    pub fn new(
        generator: Generator<'a>,
        opened: &'a Opened,
        desk: &'a mut Desk,
        live: Live,
    ) -> Self {
        Self {
            generator,
            opened,
            desk,
            asks: BTreeMap::new(),
            answers: BTreeMap::new(),
            begun: Instant::now(),
            draining: false,
            watch: Watch::new(live),
        }
    }

    /// Step after step, until it has drained or nobody is left who could ask.
    ///
    /// # Errors
    /// If a step fails as a whole.
    pub fn run(&mut self) -> Result<()> {
        self.desk.say(State::Ready);
        while self.listen()? {
            self.step()?;
        }
        Ok(())
    }

    /// One step: schedule, run, sample, deliver.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.generator.reuse()?;
        let mut step = self.generator.step(self.begun.elapsed())?; // the first three
        self.desk.count(&step);
        self.begin(&step.plan);
        self.watch.stepped(&step, self.begun.elapsed());
        self.tried(&step);
        for event in mem::take(&mut step.events) {
            self.deliver(event)?;
        }
        self.publish();
        Ok(())
    }

    /// Whoever looks at the engine from outside sees how it is now.
    fn publish(&mut self) {
        self.desk.publish(&self.generator);
        let goes_on = |id: &SequenceId| self.answers.contains_key(id);
        self.watch.tell(&self.generator, goes_on);
    }

    /// Takes the commands that have come, and waits for one if there is nothing else to do. Whether there is.
    pub(crate) fn listen(&mut self) -> Result<bool> {
        loop {
            let idle = self.asks.is_empty();
            if idle {
                self.publish();
            }
            if idle && self.draining {
                return Ok(false);
            }
            let command = if idle {
                self.desk.wait()
            } else {
                self.desk.look()
            };
            match command {
                Some(Command::Submit(client)) => self.submit(*client)?,
                Some(Command::Cancel(id)) => self.leave(id)?,
                Some(Command::Drain) => self.drain()?,
                None => return Ok(!idle),
            }
        }
    }

    /// Somebody asks. What could never run is refused, and nobody else notices.
    fn submit(&mut self, client: Client) -> Result<()> {
        let id = client.id;
        self.desk.welcome(id, client.events, client.place);
        if self.draining {
            return self.fail(id, Fault::Engine(DRAINS.to_owned()));
        }
        let checked = client.ask.check(&self.opened.config);
        let answering = Answering::new(client.ask, &self.opened.tokenizer);
        self.asks.insert(id, answering);
        match checked.and_then(|()| self.start(id, 0)) {
            Ok(()) => Ok(()),
            Err(why) => self.fail(id, Fault::Ask(format!("{why:#}"))),
        }
    }

    /// Lets one of an ask's answers wait for a row.
    fn start(&mut self, id: AskId, choice: usize) -> Result<()> {
        let ask = self.asks.get(&id).context("an answer to nobody")?;
        let sequence = (self.generator).submit(ask.request(choice), self.begun.elapsed())?;
        if let Some(sequence) = self.generator.sequence(sequence) {
            sequence.begin(id, ask.ask(), choice);
        }
        self.answers.insert(sequence, (id, choice));
        let prompt = ask.ask().ids.len();
        (self.watch).arrived(sequence, (id, choice), prompt, self.begun.elapsed());
        if let Some(grammar) = &ask.ask().grammar {
            let constraint = Constraint::new(&self.opened.vocabulary()?, grammar)?;
            self.generator.constrain(sequence, constraint)?;
        }
        Ok(())
    }

    /// Tells who has got a row.
    fn begin(&mut self, plan: &Plan) {
        for piece in &plan.pieces {
            if let Some((id, _)) = self.answers.get(&piece.id)
                && let Some(ask) = self.asks.get_mut(id)
                && !ask.has_begun()
            {
                let sequence = self.generator.sequence(piece.id);
                let missed = sequence.and_then(|sequence| sequence.missed);
                let event = ask.begin(piece.range.start, missed);
                self.watch.began(piece.id, &event);
                self.desk.tell(*id, event);
            }
        }
    }

    /// What a row has brought goes to whoever asked for it.
    fn deliver(&mut self, event: stepped::Event) -> Result<()> {
        let Some((id, choice)) = self.answers.get(&event.id).copied() else {
            return Ok(()); // a stop text has ended it
        };
        let ask = self.asks.get_mut(&id).context("an event for nobody")?;
        let told = match event
            .step
            .and_then(|step| ask.take(choice, step, event.likely))
        {
            Ok(told) => told,
            Err(why) => return self.fail(id, Fault::Model(format!("{why:#}"))),
        };
        let done = ask.is_done();
        for event in told.events {
            self.desk.tell(id, event);
        }
        if told.ended {
            self.watch.stopped(event.id);
            self.answers.remove(&event.id);
            self.generator.finish(event.id)?;
        }
        for choice in told.more {
            self.start(id, choice)?; // the prompt has run
        }
        if done { self.leave(id) } else { Ok(()) }
    }

    /// The client hears why there is nothing more.
    fn fail(&mut self, id: AskId, fault: Fault) -> Result<()> {
        self.desk.tell(id, Event::Failed(fault));
        self.leave(id)
    }

    /// An ask is over, or nobody wants the rest of it: its rows are free for the next step.
    fn leave(&mut self, id: AskId) -> Result<()> {
        let of = |(_, (ask, _)): &(&SequenceId, &(AskId, usize))| *ask == id;
        let sequences: Vec<SequenceId> = self.answers.iter().filter(of).map(|(s, _)| *s).collect();
        for sequence in sequences {
            self.answers.remove(&sequence);
            self.generator.cancel(sequence)?;
        }
        self.asks.remove(&id);
        self.desk.dismiss(id);
        Ok(())
    }

    /// What has begun is finished; the others may still try another server.
    fn drain(&mut self) -> Result<()> {
        self.draining = true;
        self.desk.say(State::Draining);
        let waiting = self.asks.iter().filter(|(_, ask)| !ask.has_begun());
        let waiting: Vec<AskId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.fail(id, Fault::Engine(DRAINS.to_owned()))?;
        }
        Ok(())
    }
}
