//! `cargo compare -- --help`

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::Parser;
use compare::process::Interrupted;

fn main() -> ExitCode {
    let Err(error) = compare::run(&compare::Args::parse()) else {
        return ExitCode::SUCCESS;
    };
    if error.is::<Interrupted>() {
        return ExitCode::from(130);
    }
    if reader_has_gone(&error) {
        return ExitCode::SUCCESS;
    }
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error:{red:#} {error:#}");
    ExitCode::FAILURE
}

/// `| head -1` has what it wanted. No other pipe is written to here.
fn reader_has_gone(error: &anyhow::Error) -> bool {
    let causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes
        .into_iter()
        .any(|cause| cause.kind() == ErrorKind::BrokenPipe)
}
