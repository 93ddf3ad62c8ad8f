//! The chores of the workspace, each one a module with `Args` and `run`.
//!
//! None of them needs MLX to be built: `setup` is what brings it.

pub mod check;
pub mod compare;
pub mod diff;
pub mod fetch;
pub mod fixtures;
pub mod propagate;
pub mod readme;
pub mod setup;

mod change;
mod dot_mlx;
mod files;
mod finding;
mod git;
mod pip;
mod series;
mod source;
