//! Helpers for tests of the workspace: real servers on loopback, checkpoints with a defect.

pub mod checkpoints;
pub mod convert;
pub mod fixtures;
pub mod hub_server;
pub mod process;
pub mod skip;
