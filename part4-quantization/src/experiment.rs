//! What the video shows: what each width costs in bytes, quality and speed.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use console::cli::{ModelArgs, OutputArgs, PromptArgs};

use crate::convert::{self, ConvertArgs};
use crate::microscope::{self, MicroscopeArgs};

/// Part 4: quantization: smaller models that still work.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    microscope: MicroscopeArgs,
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
    match (args.command, &args.microscope.show) {
        (Some(Command::Convert(args)), _) => convert::run(&args),
        (None, Some(place)) => microscope::run(
            place,
            &args.microscope,
            &args.model,
            &args.prompt,
            args.output,
        ),
        (None, None) => bail!("nothing to show: try --show layers.0.self_attn.q_proj[3,64..128]"),
    }
}
