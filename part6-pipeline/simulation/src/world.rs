//! One schedule: an engine with limits that a seed draws, and clients that come and go while it steps.

use std::ops::AddAssign;

use anyhow::{Context, Result, bail, ensure};
use real_shared::checkpoint::Checkpoint;
use real_shared::config::ModelConfig;
use real_shared::hub;
use real_shared::tokenizer::Tokenizer;

use crate::ask::{Ask, Fault};
use crate::checks::{self, Checks};
use crate::client::{Heard, Manner, Script, script};
use crate::constraint::{Constraint, Vocabulary};
use crate::engine::Engine;
use crate::generate::Generator;
use crate::handle::{Answer, Handle, Opened, Refusal, State};
use crate::kinds::CacheKind;
use crate::limits::{Limits, Memory, Policy};
use crate::live::Live;
use crate::model::{LAYERS, Model};
use crate::random::Random;
use crate::{GUESSES, IN_FLIGHT};

/// More steps than any schedule takes.
const FOREVER: u64 = 6000;

/// What schedules have in common. Made once, it serves many.
#[derive(Debug)]
pub struct Stage {
    opened: Opened,
}

impl Stage {
    /// The tokenizer of the built-in model, and a configuration with few layers.
    pub fn new() -> Result<Self> {
        let checkpoint = Checkpoint::open("tiny", hub::locate("tiny", None)?)?;
        let tokenizer = Tokenizer::open(&checkpoint)?;
        let config = ModelConfig {
            sliding_window: vec![None; LAYERS],
            ..checkpoint.config
        };
        Ok(Self {
            opened: Opened::new("tiny".to_owned(), config, tokenizer),
        })
    }
}

/// What schedules have seen, so that a test can say that they see something.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Steps.
    pub steps: usize,
    /// Answers that were compared.
    pub answers: usize,
    /// Clients that left.
    pub left: usize,
    /// Asks that were refused or failed.
    pub failed: usize,
    /// Rows that lost their memory.
    pub preempted: u64,
    /// Tokens that did not run again.
    pub cached: u64,
    /// Engines that died.
    pub died: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.answers += other.answers;
        self.left += other.left;
        self.failed += other.failed;
        self.preempted += other.preempted;
        self.cached += other.cached;
        self.died += other.died;
    }
}

/// One client.
#[derive(Debug)]
struct Client {
    script: Script,
    answer: Option<Answer>,
    heard: Heard,
    over: bool,
}

/// How an engine is set up.
#[derive(Debug)]
struct Setup {
    limits: Limits,
    kind: CacheKind,
    most: usize,
    budget: u64,
    drains: Option<u64>,
    breaks: Option<usize>,
}

impl Setup {
    fn draw(random: &mut Random) -> Self {
        let rows = random.of(&[1, 2, 3, 4, 5]);
        let kv_tokens = random.of(&[48, 64, 80, 96, 112, 300]);
        let limits = Limits {
            rows,
            tokens_per_step: 16 + rows - 1 + random.of(&[0, 1, 15, 16, 40]),
            piece: random.of(&[16, 20, 32, 48]),
            block: 16,
            kv_tokens,
            policy: Policy::Continuous,
            memory: random.of(&[Memory::Preempt, Memory::Preempt, Memory::Reserve]),
            decodes_per_piece: random.of(&[1, 1, 2, 3]),
        };
        let kind = random.of(&[
            CacheKind::Prealloc,
            CacheKind::Prealloc,
            CacheKind::Prealloc,
            CacheKind::Rotating { size: 24, sinks: 0 },
        ]);
        IN_FLIGHT.set(1 + random.below(2));
        // A ring cannot go back.
        GUESSES.set(random.once_in(2) && matches!(kind, CacheKind::Prealloc));
        let block = 16 * 4 * 2 * LAYERS as u64;
        Self {
            limits,
            kind,
            most: rows + random.below(5),
            budget: block * random.of(&[0, 1, 2, 3, 5, 8, 1000]),
            drains: random.once_in(8).then(|| random.below(60) as u64),
            breaks: random.once_in(16).then(|| random.below(60)),
        }
    }

    fn window(&self) -> Option<usize> {
        match self.kind {
            CacheKind::Rotating { size, .. } => Some(size as usize),
            _ => None,
        }
    }

    /// Whether an ask is one that nobody could answer here.
    fn is_impossible(&self, ask: &Ask, config: &ModelConfig) -> bool {
        let positions = ask.ids.len().saturating_add(ask.max_tokens.max(1));
        let grammar = ask.grammar.as_ref();
        ask.check(config).is_err()
            || positions > self.limits.kv_tokens
            || grammar.is_some_and(|grammar| Constraint::new(&Vocabulary.into(), grammar).is_err())
    }
}

/// How a schedule went on.
enum Ended {
    /// All clients are content, or the engine has drained.
    Well,
    /// The device broke, as it was told to.
    Broken(String),
}

struct World<'a> {
    setup: Setup,
    stage: &'a Stage,
    handle: Handle,
    clients: Vec<Client>,
    checks: Checks,
    drained: bool,
    tally: Tally,
}

/// Runs the schedule of a seed.
///
/// # Errors
/// With the first thing that is not as it should be.
pub fn run(seed: u64, stage: &Stage) -> Result<Tally> {
    let mut random = Random(seed);
    let setup = Setup::draw(&mut random);
    let (handle, mut desk) = Handle::new(setup.most);
    let client = |_| Client {
        script: script(&mut random),
        answer: None,
        heard: Heard::default(),
        over: false,
    };
    let count = 2 + seed as usize % 6;
    let model = Model::default();
    model.breaks_after.set(setup.breaks);
    let mut world = World {
        clients: (0..count).map(client).collect(),
        setup,
        stage,
        handle,
        checks: Checks::default(),
        drained: false,
        tally: Tally::default(),
    };
    let (config, limits) = (&stage.opened.config, world.setup.limits.clone());
    let mut generator = Generator::new(&model, config, world.setup.kind, limits)?;
    generator.remember(world.setup.budget);
    desk.say(State::Ready);
    let mut engine = Engine::new(generator, &stage.opened, &mut desk, Live);
    let ended = world.live(&mut engine)?;
    drop(engine);
    desk.close(match ended {
        Ended::Well => None,
        Ended::Broken(why) => Some(why),
    });
    world.close()
}

impl World<'_> {
    fn live(&mut self, engine: &mut Engine<'_>) -> Result<Ended> {
        for now in 0..FOREVER {
            self.act(now).with_context(|| format!("at step {now}"))?;
            if self.setup.drains == Some(now) {
                self.handle.drain();
                self.drained = true;
            }
            let ended = self
                .step(engine)
                .with_context(|| format!("at step {now}"))?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
        let waits = |(at, client): (usize, &Client)| (!client.over).then_some(at);
        let waiting: Vec<usize> = self.clients.iter().enumerate().filter_map(waits).collect();
        bail!("clients {waiting:?} wait forever")
    }

    /// One turn of the engine's loop.
    fn step(&mut self, engine: &mut Engine<'_>) -> Result<Option<Ended>> {
        let works = engine.listen().and_then(|works| {
            if works {
                engine.step()?;
            }
            Ok(works)
        });
        let works = match works {
            Ok(works) => works,
            Err(error)
                if self.setup.breaks.is_some()
                    && format!("{error:#}").contains("device is gone") =>
            {
                self.tally.died += 1;
                return Ok(Some(Ended::Broken(format!("{error:#}"))));
            }
            Err(error) => return Err(error.context("the engine has died")),
        };
        if works {
            self.checks.step(engine, &self.handle)?;
        }
        let begun = |ask: &crate::answer::Answering<'_>| ask.has_begun();
        ensure!(
            !self.drained || engine.asks.values().all(begun),
            "it drains, and somebody waits"
        );
        let all_over = self.clients.iter().all(|client| client.over);
        if !works && (self.drained || all_over) {
            checks::end(engine, &self.handle, self.setup.window().is_some())?;
            return Ok(Some(Ended::Well));
        }
        Ok(None)
    }

    /// Each client does what is next.
    fn act(&mut self, now: u64) -> Result<()> {
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            match (&client.answer, client.over) {
                (_, true) => {}
                (None, _) => self.come(at, now)?,
                (Some(_), _) => self
                    .attend(at, now)
                    .with_context(|| format!("client {at}"))?,
            }
        }
        Ok(())
    }

    fn come(&mut self, at: usize, now: u64) -> Result<()> {
        let client = &mut self.clients[at];
        if now < client.script.comes {
            return Ok(());
        }
        match self.handle.submit(client.script.ask.clone()) {
            Ok(answer) => {
                client.script.comes = now;
                (client.answer, client.heard) = (Some(answer), Heard::default());
            }
            Err(Refusal::QueueFull(most)) => {
                ensure!(most == self.setup.most, "{most} places");
                client.script.comes = now + 3;
            }
            Err(Refusal::Unavailable(state)) => {
                ensure!(self.drained, "it takes no asks: {state:?}");
                client.over = true;
            }
        }
        Ok(())
    }

    /// Somebody listens, or leaves.
    fn attend(&mut self, at: usize, now: u64) -> Result<()> {
        let client = &mut self.clients[at];
        let Some(answer) = &mut client.answer else {
            return Ok(());
        };
        let since = now - client.script.comes;
        let takes = match client.script.manner {
            Manner::Well => usize::MAX,
            Manner::Slowly(steps) => usize::from(since.is_multiple_of(steps)),
            Manner::UntilEvent(_) => 1,
            Manner::UntilStep(_) => usize::MAX,
        };
        for _ in 0..takes {
            let Some(event) = answer.blocking_next() else {
                break;
            };
            client.heard.hear(event, &client.script.ask)?;
        }
        let leaves = match client.script.manner {
            Manner::UntilEvent(events) => client.heard.events >= events,
            Manner::UntilStep(steps) => since >= steps,
            Manner::Well | Manner::Slowly(_) => false,
        };
        if client.heard.is_over() {
            self.is_over(at, now)?;
        } else if leaves {
            self.tally.left += 1;
            (client.answer, client.over) = (None, true);
        }
        Ok(())
    }

    /// All has come: it must be right, and some go on from it.
    fn is_over(&mut self, at: usize, now: u64) -> Result<()> {
        let (setup, stage) = (&self.setup, self.stage);
        let client = &mut self.clients[at];
        let ask = &client.script.ask;
        let impossible = setup.is_impossible(ask, &stage.opened.config);
        match &client.heard.fault {
            None => {
                ensure!(!impossible, "it was answered, and could not be");
                client
                    .heard
                    .check(ask, setup.window(), &stage.opened.tokenizer)?;
                self.tally.answers += ask.n;
                self.tally.cached += client.heard.cached.unwrap_or(0) as u64;
            }
            Some(Fault::Ask(why)) => ensure!(impossible, "refused: {why}"),
            Some(Fault::Model(why)) => {
                let grammar = ask.grammar.as_ref();
                let wrong = grammar.is_some_and(|grammar| format!("{grammar:?}").contains(' '));
                ensure!(wrong, "it failed: {why}");
            }
            Some(Fault::Engine(why)) => {
                ensure!(self.drained || self.tally.died > 0, "sent away: {why}")
            }
        }
        self.tally.failed += usize::from(client.heard.fault.is_some());
        let answer = client.answer.take();
        if let Some(mut answer) = answer {
            ensure!(
                answer.blocking_next().is_none(),
                "something comes after the end"
            );
        }
        let goes_on = client.script.turns > 0 && client.heard.fault.is_none() && ask.max_tokens > 0;
        if goes_on {
            client.script.ask.ids = client.heard.next_turn(ask);
            client.script.turns -= 1;
            client.script.comes = now + 1;
        } else {
            client.over = true;
        }
        Ok(())
    }

    /// The engine is gone: whoever still listens has heard why.
    fn close(mut self) -> Result<Tally> {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let Some(answer) = &mut client.answer else {
                continue;
            };
            while let Some(event) = answer.blocking_next() {
                client.heard.hear(event, &client.script.ask)?;
            }
            ensure!(
                client.heard.is_over(),
                "client {at} waits for an engine that is gone"
            );
            client.script.turns = 0;
            self.is_over(at, FOREVER)
                .with_context(|| format!("client {at}"))?;
        }
        let status = self.handle.status();
        (self.tally.steps, self.tally.preempted) = (self.checks.steps, status.preemptions);
        Ok(self.tally)
    }
}
