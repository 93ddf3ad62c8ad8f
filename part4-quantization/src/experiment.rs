//! What the video shows: what each width costs in bytes, quality and speed.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::answer::{self, AnswerArgs};
use crate::convert::{self, ConvertArgs};
use crate::margin::{self, MarginArgs};
use crate::microscope::{self, MicroscopeArgs};
use crate::table::{self, TableArgs};

/// Part 4: quantization: smaller models that still work. Without a command: all widths in one table.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    microscope: MicroscopeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer once, with the weights in so many bits
    Answer(Box<AnswerArgs>),
    /// Write a quantized checkpoint that mlx-lm loads, too
    Convert(Box<ConvertArgs>),
    /// Compare all widths, and draw quality over bytes as a chart
    Plot {
        /// The file to write, an SVG; not - for stdout
        file: PathBuf,
        #[command(flatten)]
        table: Box<TableArgs>,
    },
    /// By how much the model as it is prefers one next token to another
    Margin(Box<MarginArgs>),
}

/// Runs what the flags ask for and prints the report.
///
/// # Errors
/// If the model, the prompt or the output fails: one line that says what to try next.
pub fn run(args: Args) -> Result<()> {
    let Args {
        command,
        table,
        microscope,
    } = args;
    match (command, &microscope.show) {
        (Some(Command::Answer(args)), _) => answer::run(&args),
        (Some(Command::Margin(args)), _) => margin::run(&args),
        (Some(Command::Convert(args)), _) => convert::run(&args),
        (Some(Command::Plot { file, table }), _) => table::run(&table, Some(&file)),
        (None, Some(place)) => microscope::run(place, microscope.page.as_deref(), &table),
        (None, None) => table::run(&table, None),
    }
}
