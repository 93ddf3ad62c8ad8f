//! The chores of the workspace, each one a module with `Args` and `run`.
//!
//! None of them needs MLX to be built: `setup` is what brings it.

pub mod compare;
pub mod decode;
pub mod fetch;
pub mod fixtures;
pub mod setup;
pub mod versus;

mod exec;
mod files;
mod pip;
mod progress;
mod workspace;
