//! Takes part 6's own files, and puts a switch into them for each fault that is planted. With all switches off they do
//! what they do in part 6.

use std::path::Path;
use std::{env, fs};

include!("src/plants.rs");

const FILES: &[&str] = &[
    "ahead.rs",
    "answer.rs",
    "ask.rs",
    "batch.rs",
    "books.rs",
    "cache.rs",
    "desk.rs",
    "engine.rs",
    "generate.rs",
    "handle.rs",
    "keys_values.rs",
    "kinds.rs",
    "limits.rs",
    "nodes.rs",
    "plan.rs",
    "prealloc.rs",
    "prefix.rs",
    "prompts.rs",
    "quantized_cache.rs",
    "reuse.rs",
    "rotating.rs",
    "scheduler.rs",
    "sequence.rs",
    "slots.rs",
    "stepped.rs",
    "store.rs",
    "text.rs",
    "trial.rs",
];

fn main() {
    println!("cargo::rerun-if-changed=src/plants.rs");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for file in FILES {
        let path = Path::new("../src").join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // An included file cannot begin with its own documentation.
        let kept = text.lines().filter(|line| !line.starts_with("//!"));
        let mut text: String = kept.map(|line| format!("{line}\n")).collect();
        for (name, _, from, to) in PLANTS.iter().filter(|(_, of, ..)| of == file) {
            let found = text.matches(from).count();
            assert!(
                found == 1,
                "{file} has {found} times `{from}`: plant {name:?} anew, in src/plants.rs"
            );
            text = text.replace(from, &switch(name, from, to));
        }
        fs::write(Path::new(&out).join(file), text).expect("writing to OUT_DIR");
    }
}

/// Of an expression or of a statement.
fn switch(name: &str, from: &str, to: &str) -> String {
    let planted = format!("crate::is_planted({name:?})");
    if to.contains("PLANTED") {
        return to.replace("PLANTED", &planted);
    }
    let switch = format!("if {planted} {{ {to} }} else {{ {from} }}");
    if from.ends_with(';') {
        switch
    } else {
        format!("({switch})")
    }
}
