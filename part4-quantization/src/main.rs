//! `cargo run -p part4-quantization -- --help`

use std::process::ExitCode;

use part4_quantization::experiment;

fn main() -> ExitCode {
    console::cli::run(experiment::run)
}
