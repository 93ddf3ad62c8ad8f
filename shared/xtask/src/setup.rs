//! `cargo setup`: what it takes to build and run the parts on this machine.
//!
//! On macOS mlx-sys builds MLX itself, so there it only looks whether the tools are there. On Linux
//! mlx-sys's build script would not get far: `linux` brings MLX as a wheel, compiles the C layer
//! that mlx-sys carries, and tells Cargo to use these instead of running that script.

use anyhow::{Result, bail};

pub mod bindings;

mod blas;
mod cargo_config;
mod compiler;
mod cuda;
mod doctor;
mod linux;
mod mlx_sys;
mod mlxc;
mod receipt;
mod system;
mod wanted;

/// Make this machine ready to build and run the parts.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Use MLX's CUDA build (Linux with an NVIDIA GPU; a download of 1.6 GB).
    #[arg(long)]
    cuda: bool,
    /// Which BLAS multiplies matrices on the CPU (Linux).
    #[arg(long, value_enum, default_value_t = blas::Choice::Auto)]
    blas: blas::Choice,
}

/// Checks or installs, whichever this system calls for.
///
/// # Errors
/// In one line: what failed and what to install or to do.
pub fn run(args: Args) -> Result<()> {
    match std::env::consts::OS {
        "macos" if args.cuda => bail!("--cuda is for Linux: on a Mac, MLX runs on Metal"),
        "macos" => doctor::run(),
        "linux" => linux::run(&args),
        other => bail!("{other} is not supported: MLX needs a Mac with Apple Silicon, or Linux"),
    }
}
