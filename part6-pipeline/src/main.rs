//! `cargo run -p part6-pipeline -- --help`

use std::process::ExitCode;

use part6_pipeline::experiment;

fn main() -> ExitCode {
    console::cli::run(experiment::run)
}
