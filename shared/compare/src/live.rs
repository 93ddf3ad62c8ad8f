//! All parts at the same time, each in a lane, for the eye: they share the machine, so nothing is
//! measured here. On a terminal it is a view; on a pipe, lines with the part's number in front.

use std::env;
use std::io::{self, IsTerminal};
use std::time::Instant;

use anyhow::{Result, bail};
use console::interrupt::Interrupt;
use console::report::{Report, Stdout};

use crate::ask::Ask;
use crate::parts::Contestant;

pub mod lane;
mod plain;
mod race;
mod screen;
mod summary;
pub mod view;

use lane::Lane;
use race::Race;

/// Runs all contestants at once until each has answered, or until someone leaves.
///
/// # Errors
/// If a part fails, if the terminal does; or on Ctrl-C. The parts have ended by then, and the
/// terminal is as it was.
pub fn run(
    ask: &Ask,
    contestants: &[Contestant],
    max_tokens: u32,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut race = Race::start(ask, contestants, max_tokens)?;
    if on_screen() {
        let header = view::Header {
            model: ask.model_name(),
            prompt: ask.prompt_name(),
        };
        screen::show(&mut race, &header, interrupt)?;
    } else {
        plain::print(&mut race, &mut Stdout::new(), interrupt)?;
    }
    let lanes = race.finish();
    summary::print(&mut Report::stdout(), &lanes, Instant::now())?;
    failure(&lanes)
}

/// A terminal that can be drawn on.
fn on_screen() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The error of the first part that failed.
fn failure(lanes: &[Lane]) -> Result<()> {
    match lanes.iter().find_map(Lane::failure) {
        Some(reason) => bail!("{reason}"),
        None => Ok(()),
    }
}
