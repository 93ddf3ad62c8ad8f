//! The chores of the workspace, each one a module with `Args` and `run`.

pub mod fixtures;
pub mod versus;
