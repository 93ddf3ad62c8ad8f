//! Tests that need what no build brings: a fetched model, a browser.

use std::ffi::OsStr;
use std::io::Write;

/// Says why the running test is skipped.
///
/// A newcomer's `cargo test` passes without the models. Where `CI` is set it must not: a skipped
/// test would be a lie there.
///
/// # Panics
/// With the reason, if `CI` is set and not empty.
pub fn skipped(reason: &str) {
    assert!(!is_set(std::env::var_os("CI").as_deref()), "{reason}");
    // Not `eprintln`, whose text the test runner hides when a test passes. The line stands right
    // behind the name of the test.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// As in the shell's `[ -n "$CI" ]`.
fn is_set(variable: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_set_but_empty_counts_as_unset() {
        assert!(is_set(Some(OsStr::new("true"))));
        assert!(!is_set(Some(OsStr::new(""))));
        assert!(!is_set(None));
    }
}
