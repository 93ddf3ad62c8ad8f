//! `cargo run -p part5-batching -- --help`

use std::process::ExitCode;

use part5_batching::experiment;

fn main() -> ExitCode {
    console::cli::run(experiment::run)
}
