//! What the crate computes, against the formulas in f64, on every set of instructions of this machine.
//!
//! Numbers are drawn by chance from fixed seeds: a failure comes again.

mod attention;
mod between;
mod chance;
mod lengths;
mod matrices;
mod numbers;
mod packing;
mod products;
mod threads;
