//! What the video shows.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

/// Part 6: a full inference pipeline.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model as OpenAI's API
    Serve,
}

/// Runs what the flags ask for.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Serve => bail!("there is no server yet"),
    }
}
