//! The chores of the workspace.

mod fetch;
mod fixtures;
mod setup;
mod versus;

fn main() {}
