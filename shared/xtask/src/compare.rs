//! `cargo xtask compare`. The comparison itself is the package
//! `compare`: it draws on the terminal and makes charts, and `cargo setup` need not wait for the
//! crates that do so.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use console::workspace::cargo;

/// Run the parts side by side, as `cargo compare` does
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Flags of `cargo compare`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// Becomes the comparison: the terminal and Ctrl-C belong to one program only.
///
/// # Errors
/// If Cargo cannot be started.
pub fn run(args: Args) -> Result<()> {
    let mut command = Command::new(cargo());
    command.args(["run", "--package", "compare", "--"]);
    Err(command.args(args.flags).exec()).context("starting `cargo compare`")
}
