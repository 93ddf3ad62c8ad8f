//! `cargo compare -- --help`

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
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error:{red:#} {error:#}");
    ExitCode::FAILURE
}
