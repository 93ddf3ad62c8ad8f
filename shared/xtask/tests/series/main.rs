//! The chores that keep the parts one series, on a small series of files.

#![allow(clippy::unwrap_used)] // a test is where a panic is the report

mod check;
mod diff;
mod propagate;
mod readme;
mod tree;
