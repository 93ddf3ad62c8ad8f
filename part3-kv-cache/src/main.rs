//! `cargo run -p part3-kv-cache -- --help`

use std::process::ExitCode;

use part3_kv_cache::experiment;

fn main() -> ExitCode {
    console::cli::run(experiment::run)
}
