//! `cargo compare -- --help`

use std::process::ExitCode;

fn main() -> ExitCode {
    console::cli::run(compare::run)
}
