//! `cargo run -p part2-first-inference -- --help`

use std::process::ExitCode;

use part2_first_inference::experiment;

fn main() -> ExitCode {
    console::cli::run(experiment::run)
}
