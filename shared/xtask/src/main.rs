//! `cargo xtask CHORE`: see the modules of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{compare, decode, fetch, fixtures, setup, versus};

/// The chores of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Setup(setup::Args),
    Fetch(fetch::Args),
    Fixtures(fixtures::Args),
    Versus(versus::Args),
    Decode(decode::Args),
    Compare(compare::Args),
    #[command(hide = true)]
    Bindings(setup::bindings::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Setup(args) => setup::run(args),
        Chore::Fetch(args) => fetch::run(args),
        Chore::Fixtures(args) => fixtures::run(args),
        Chore::Versus(args) => versus::run(args),
        Chore::Decode(args) => decode::run(args),
        Chore::Compare(args) => compare::run(args),
        Chore::Bindings(args) => setup::bindings::run(args),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    let red = anstyle::AnsiColor::Red.on_default().bold();
    anstream::eprintln!("{red}error:{red:#} {error:#}");
    ExitCode::FAILURE
}
