//! Other programs while they run: what they say as it comes, and none of them outlives its value.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use console::interrupt::Interrupt;

/// How often a loop that waits looks whether it was interrupted.
const PATIENCE: Duration = Duration::from_millis(50);

/// What one of several programs said.
#[derive(Debug)]
pub struct Event {
    /// Which program, by the number it was started with.
    pub lane: usize,
    /// What it said.
    pub said: Said,
}

/// What a program said.
#[derive(Debug)]
pub enum Said {
    /// Bytes on stdout.
    Out(Vec<u8>),
    /// Bytes on stderr.
    Err(Vec<u8>),
    /// Both are closed: it has ended, or is about to.
    Closed,
}

/// A program that is under way. Whoever drops it ends the program and waits until it is gone.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a program without a terminal; what it says goes to `events` under the number `lane`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command, lane: usize, events: &Sender<Event>) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start `{name}`"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Self(child);
        let stderr = stderr.map(|pipe| forward(pipe, lane, events.clone(), Said::Err));
        let stdout = stdout.map(|pipe| forward(pipe, lane, events.clone(), Said::Out));
        let events = events.clone();
        thread::spawn(move || {
            for reader in [stdout, stderr].into_iter().flatten() {
                let _ = reader.join();
            }
            let _ = events.send(Event {
                lane,
                said: Said::Closed,
            });
        });
        Ok(process)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If the system does not tell how it ended.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.0.wait().context("waiting for a program to end")
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a program that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends what can be read, piece by piece: a piece is what the program wrote at once, as long as the
/// reader keeps up. Nobody who listens any more is a reason to stop.
fn forward(
    mut pipe: impl Read + Send + 'static,
    lane: usize,
    events: Sender<Event>,
    said: fn(Vec<u8>) -> Said,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let said = said(buffer[..count].to_vec());
            if events.send(Event { lane, said }).is_err() {
                break;
            }
        }
    })
}

/// The next event, or the reason why there will be none.
///
/// # Errors
/// [`Interrupted`](console::interrupt::Interrupted).
pub fn next(events: &Receiver<Event>, interrupt: &Interrupt) -> Result<Event> {
    loop {
        interrupt.check()?;
        match events.recv_timeout(PATIENCE) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("no program is left to listen to"),
        }
    }
}

/// What a program that was run to its end said, and how it ended.
pub type Output = std::process::Output;

/// Runs one program to its end; `piece` is told whenever it wrote to stdout.
///
/// # Errors
/// If it cannot be started, or interrupted: then the program has been ended, too.
pub fn run(
    command: &mut Command,
    interrupt: &Interrupt,
    mut piece: impl FnMut(),
) -> Result<Output> {
    let (sender, events) = channel();
    let mut process = Process::start(command, 0, &sender)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match next(&events, interrupt)?.said {
            Said::Out(bytes) => {
                stdout.extend(bytes);
                piece();
            }
            Said::Err(bytes) => stderr.extend(bytes),
            Said::Closed => break,
        }
    }
    let status = process.wait()?;
    // Ctrl-C reaches a program of the same terminal, too, and may end it before we look.
    interrupt.check()?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

#[cfg(test)]
mod tests;
