//! What the video shows: what each width costs in bytes, quality and speed.

use anyhow::Result;
use clap::Parser;
use console::cli::ModelArgs;

/// Part 4: quantization: smaller models that still work.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    let _ = args;
    Ok(())
}
