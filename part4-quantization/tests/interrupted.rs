//! Ctrl-C: in a process of its own, since the flag belongs to the whole process.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use clap::Parser;
use console::interrupt::{Interrupt, Interrupted};
use part4_quantization::experiment::{Args, run};

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("new");
    let args = ["part4", "convert", "--out", out.to_str().unwrap()];
    Interrupt::of_process().set();
    let error = run(Args::parse_from(args)).unwrap_err();
    assert!(
        error.chain().any(|cause| cause.is::<Interrupted>()),
        "{error:#}"
    );
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
