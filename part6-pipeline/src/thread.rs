//! How the engine's thread begins and ends: whatever happens on it, all clients hear of it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use console::cli::ModelArgs;
use shared::machine::on_one_stream;
use shared::session::Session;
use tracing::info;

use crate::desk::Desk;
use crate::engine::Engine;
use crate::generate::Generator;
use crate::handle::{Handle, Opened, Sizes, State};
use crate::kept::Folder;
use crate::kinds::CacheKind;
use crate::limits::{Limits, Policy};
use crate::live::Live;
use crate::model::Model;
use crate::replay::Recorder;
use crate::speculate::{Speculation, Speculator};

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which model.
    pub model: ModelArgs,
    /// What its steps may use.
    pub limits: Limits,
    /// How keys and values are stored.
    pub kind: CacheKind,
    /// Bytes of keys and values that may be kept for later prompts; 0 keeps none. Several answers to one prompt share
    /// it through them.
    pub prefix_bytes: u64,
    /// Where they are from one run to the next, if anywhere.
    pub prefix_folder: Option<PathBuf>,
    /// Asks that may wait for a row. Whoever comes then is sent away.
    pub most_waiting: usize,
    /// How the next tokens are guessed.
    pub speculation: Speculation,
}

/// An engine on its thread.
#[derive(Debug)]
pub struct Running {
    /// Speaks to it. Clones of it may be given away.
    pub handle: Handle,
    /// Reports of its steps.
    pub live: Live,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a thread that serves whoever comes to its desk, at most so many at the same time.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(
        most: usize,
        work: impl FnOnce(&mut Desk) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (handle, desk) = Handle::new(most);
        let thread = Builder::new().name("engine".to_owned());
        let thread = thread.spawn(move || live(desk, work));
        Ok(Self {
            handle,
            live: Live::default(),
            thread: Some(thread.context("starting the engine's thread")?),
        })
    }

    /// Drains the engine, and waits until it has ended.
    ///
    /// # Errors
    /// If it has failed, now or before, and why.
    pub fn end(mut self) -> Result<()> {
        self.handle.drain();
        self.wait();
        match self.handle.status().state {
            State::Dead(why) => bail!("the engine has failed: {why}"),
            _ => Ok(()),
        }
    }

    fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panics are caught on it
        }
    }
}

/// A process must not end while MLX works.
impl Drop for Running {
    fn drop(&mut self) {
        self.handle.drain();
        self.wait();
    }
}

impl Engine<'_> {
    /// Starts the thread that opens a model, loads it and serves it. The handle tells when it is ready, or why not.
    ///
    /// # Errors
    /// If its settings cannot be those of an engine, or if the system gives no thread.
    pub fn spawn(settings: Settings) -> Result<Running> {
        Self::spawn_with(settings, None)
    }

    /// The same, and what is answered is written down.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_with(settings: Settings, recorder: Option<Recorder>) -> Result<Running> {
        ensure!(
            settings.limits.policy == Policy::Continuous,
            "an engine takes asks at any step: take the policy `continuous`"
        );
        settings.limits.check()?;
        let most = settings.limits.rows.saturating_add(settings.most_waiting);
        let live = Live::new(settings.limits.clone());
        let watched = live.clone();
        let mut running = Running::new(most, move |desk| {
            if let Some(recorder) = recorder {
                desk.record(recorder);
            }
            work(&settings, desk, watched)
        })?;
        running.live = live;
        Ok(running)
    }
}

/// What happens on the thread; the desk outlives it.
fn live(mut desk: Desk, work: impl FnOnce(&mut Desk) -> Result<()>) {
    let ended = catch_unwind(AssertUnwindSafe(|| work(&mut desk)));
    desk.close(match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(told(&*panic)),
    });
}

fn work(settings: &Settings, desk: &mut Desk, live: Live) -> Result<()> {
    let Session {
        checkpoint,
        tokenizer,
        machine,
        ..
    } = Session::open(&settings.model)?;
    let positions = settings.limits.kv_tokens;
    checkpoint
        .check_fit(positions, machine.ram_bytes)
        .with_context(|| format!("{positions} positions may be in memory: take fewer"))?;
    let (name, config) = (settings.model.model.clone(), checkpoint.config.clone());
    let sizes = Sizes {
        weight_bytes: checkpoint.weight_bytes(),
        kv_bytes_per_token: config.kv_bytes_per_token(checkpoint.activation_bytes()),
    };
    let opened = desk.open(Opened::new(name, config, tokenizer).sized(sizes));
    let opened = opened.get().context("nothing was opened")?;
    let model = Model::load(&checkpoint)?;
    let mut generator = Generator::new(
        &model,
        &checkpoint.config,
        settings.kind,
        settings.limits.clone(),
    )?;
    generator.remember(settings.prefix_bytes);
    let folder = settings.prefix_folder.as_ref().map(|path| {
        let (kind, bytes) = (settings.kind, settings.prefix_bytes);
        Folder::new(path, &checkpoint, &opened.tokenizer, kind, bytes)
    });
    let folder = folder.transpose()?;
    if let Some(folder) = &folder {
        let files = folder.read(&mut generator.known)?;
        info!(files, "prefixes of an earlier run");
    }
    generator.speculate(Speculator::new(
        settings.speculation.clone(),
        &opened.tokenizer,
        checkpoint.config.vocab_size,
        positions,
    )?)?;
    let mut engine = Engine::new(generator, opened, desk, live);
    on_one_stream(|| {
        engine.run()?;
        if let Some(folder) = &folder {
            let files = folder.write(engine.generator.known())?;
            info!(files, "prefixes for the next run");
        }
        Ok(())
    })
}

/// What a panic has said.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::{Ask, Event, Fault};
    use crate::handle::{Command, Refusal};

    #[test]
    fn a_panic_on_the_thread_reaches_everybody_who_waits_and_all_that_come_later() {
        let (go, gone) = std::sync::mpsc::channel();
        let running = Running::new(3, move |desk| {
            desk.say(State::Ready);
            for _ in 0..2 {
                let Some(Command::Submit(client)) = desk.wait() else {
                    bail!("nobody has come")
                };
                desk.welcome(client.id, client.events, client.place);
            }
            gone.recv()?; // the third one waits at the door
            panic!("on purpose, {} of 2", 1);
        });
        let running = running.unwrap();
        let handle = running.handle.clone();
        while handle.status().state == State::Loading {}
        let asks = [Ask::default(), Ask::default(), Ask::default()];
        let asks = asks.map(|ask| handle.submit(ask).unwrap());
        go.send(()).unwrap();
        for mut answer in asks {
            let Some(Event::Failed(Fault::Engine(why))) = answer.blocking_next() else {
                panic!("no fault")
            };
            assert_eq!(why, "a panic: on purpose, 1 of 2");
            assert_eq!(answer.blocking_next(), None);
        }
        let dead = State::Dead("a panic: on purpose, 1 of 2".to_owned());
        let refused = handle.submit(Ask::default()).unwrap_err();
        assert_eq!(refused, Refusal::Unavailable(dead));
        assert!(running.end().unwrap_err().to_string().contains("1 of 2"));
    }

    #[test]
    fn whoever_comes_when_all_places_are_taken_is_sent_away_until_one_is_free() {
        let (handle, mut desk) = Handle::new(2);
        desk.say(State::Ready);
        let first = handle.submit(Ask::default()).unwrap();
        let _second = handle.submit(Ask::default()).unwrap();
        assert_eq!(
            handle.submit(Ask::default()).unwrap_err(),
            Refusal::QueueFull(2)
        );
        while let Some(command) = desk.look() {
            let Command::Submit(client) = command else {
                panic!("another command")
            };
            desk.welcome(client.id, client.events, client.place);
        }
        assert!(handle.submit(Ask::default()).is_err());
        desk.dismiss(first.id);
        assert!(handle.submit(Ask::default()).is_ok());
    }
}
