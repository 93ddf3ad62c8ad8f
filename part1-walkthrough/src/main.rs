//! `cargo run -p part1-walkthrough -- --help`

use std::process::ExitCode;

use part1_walkthrough::experiment;

fn main() -> ExitCode {
    console::cli::run(experiment::run)
}
