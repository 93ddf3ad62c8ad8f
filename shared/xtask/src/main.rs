//! The chores of the workspace.

use clap::Parser;
use xtask::{fixtures, versus};

#[derive(Parser)]
enum Chore {
    Fixtures(fixtures::Args),
    Versus(versus::Args),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Fixtures(args) => fixtures::run(args),
        Chore::Versus(args) => versus::run(args),
    }
}
