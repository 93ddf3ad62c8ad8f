//! What the video shows: what batching buys, and what it costs.

use anyhow::Result;
use clap::Parser;

/// Part 5: batching: many requests in one step.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the load or the output fails: one line that says what to try next.
pub fn run(_: Args) -> Result<()> {
    anyhow::bail!("not yet")
}
