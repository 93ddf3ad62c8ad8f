//! The terminal while the race is shown on it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::interrupt::Interrupt;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::race::Race;
use super::view::{self, Header};

/// Thirty pictures per second.
const FRAME: Duration = Duration::from_millis(33);

/// The terminal in raw mode, with a screen of its own. It becomes what it was when the value goes,
/// whatever the reason; ratatui's panic hook does so before a panic is told.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore());
        terminal
            .map(Self)
            .context("drawing on this terminal; on a pipe, as `| cat`, it is text")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the race until someone leaves; once all have ended it stays, to be read.
pub(crate) fn show(race: &mut Race, header: &Header, interrupt: &Interrupt) -> Result<()> {
    let mut screen = Screen::open()?;
    loop {
        race.catch_up()?;
        screen
            .0
            .draw(|frame| view::draw(frame, race.lanes(), header, Instant::now()))
            .context("drawing on the terminal")?;
        if leaves(race.is_over(), interrupt)? {
            return Ok(());
        }
        interrupt.check()?;
    }
}

/// Waits for the next picture; whether someone pressed a key that leaves.
fn leaves(is_over: bool, interrupt: &Interrupt) -> Result<bool> {
    let mut patience = FRAME;
    while event::poll(patience).context("waiting for a key")? {
        patience = Duration::ZERO;
        let Event::Key(key) = event::read().context("reading a key")? else {
            continue; // a new size: the next picture has it
        };
        if is_ctrl_c(key) {
            interrupt.set();
        } else if key.kind == KeyEventKind::Press {
            match key.code {
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(true),
                KeyCode::Enter if is_over => return Ok(true),
                _ => {}
            }
        }
    }
    Ok(false)
}

fn is_ctrl_c(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}
