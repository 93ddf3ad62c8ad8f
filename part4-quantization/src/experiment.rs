//! What the video shows: what each width costs in bytes, quality and speed.

use anyhow::Result;
use clap::{Parser, Subcommand};
use console::cli::ModelArgs;

use crate::convert::{self, ConvertArgs};

/// Part 4: quantization: smaller models that still work.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a quantized checkpoint that mlx-lm loads, too
    Convert(Box<ConvertArgs>),
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Some(Command::Convert(args)) => convert::run(&args),
        None => {
            let _ = args.model;
            Ok(())
        }
    }
}
