//! The chores of the workspace, each one a module with `Args` and `run`.
//!
//! None of them needs MLX to be built: `setup` is what brings it.

pub mod check;
pub mod compare;
pub mod decode;
pub mod diff;
pub mod exec;
pub mod fetch;
pub mod files;
pub mod fixtures;
pub mod propagate;
pub mod readme;
pub mod setup;
pub mod versus;
pub mod workspace;

mod change;
mod git;
mod pip;
mod series;
mod source;
