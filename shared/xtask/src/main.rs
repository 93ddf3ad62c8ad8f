//! `cargo xtask CHORE`: see the modules of the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{check, compare, diff, fetch, fixtures, propagate, readme, setup};

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
    Diff(diff::Args),
    Check(check::Args),
    Propagate(propagate::Args),
    Readme(readme::Args),
    Fixtures(fixtures::Args),
    Compare(compare::Args),
    #[command(hide = true)]
    Bindings(setup::bindings::Args),
}

fn main() -> ExitCode {
    console::cli::run_unwatched(|cli: Cli| match cli.chore {
        Chore::Setup(args) => setup::run(args),
        Chore::Fetch(args) => fetch::run(args),
        Chore::Diff(args) => diff::run(args),
        Chore::Check(args) => check::run(args),
        Chore::Propagate(args) => propagate::run(args),
        Chore::Readme(args) => readme::run(args),
        Chore::Fixtures(args) => fixtures::run(args),
        Chore::Compare(args) => compare::run(args),
        Chore::Bindings(args) => setup::bindings::run(args),
    })
}
