//! `cargo compare`: the parts of the series side by side, each one a process of its own.
//!
//! - measured (the default): one process at a time, in alternating order, a table at the end. In
//!   reading order: [`parts`] finds and builds them, [`ask`] says what they are asked, [`measure`]
//!   runs the rounds, [`answer`] reads what they say, [`judge`] weighs differences, [`ladder`] and [`chart`] show
//!   what came out.
//! - [`against`]: each part beside mlx-lm, in turns.
//! - [`live`]: all at once, for the eye; nothing is measured.

pub mod against;
pub mod answer;
pub mod ask;
pub mod chart;
pub mod judge;
pub mod ladder;
pub mod live;
pub mod measure;
pub mod parts;
pub mod process;

mod command;
#[cfg(test)]
mod testing;
mod text;

pub use command::{Args, run};
