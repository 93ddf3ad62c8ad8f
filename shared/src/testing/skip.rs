//! Tests that need what no build brings: a fetched model, a browser.

use std::ffi::OsStr;
use std::io::Write;

/// Says why the running test is skipped.
///
/// A newcomer's `cargo test` passes without the models. With `CI=true` it must not: a skipped test
/// would be a lie there.
///
/// # Panics
/// With the reason, if `CI` is `true`.
pub fn skipped(reason: &str) {
    assert!(!is_true(std::env::var_os("CI").as_deref()), "{reason}");
    // Not `eprintln`, whose text the test runner hides when a test passes. The line stands right
    // behind the name of the test.
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// What GitHub, GitLab and `.ci/run` set. An empty one is how a shell says that it is not set.
fn is_true(variable: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_is_true() {
        assert!(is_true(Some(OsStr::new("true"))));
        assert!(!is_true(Some(OsStr::new(""))));
        assert!(!is_true(Some(OsStr::new("false"))));
        assert!(!is_true(None));
    }
}
