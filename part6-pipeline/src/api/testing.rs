//! What the tests of all requests need.

use std::fmt::Debug;

use super::{ApiError, Bounds};

/// Those of a small server.
pub(super) const BOUNDS: Bounds = Bounds {
    n: 4,
    prompts: 4,
    temperature: 1.0,
    vocabulary: 100,
};

/// Which field was refused, and in which words.
pub(super) fn refused<T: Debug>(read: Result<T, ApiError>) -> (String, String) {
    let error = read.unwrap_err();
    assert_eq!(error.status, 400);
    (error.error.param.unwrap_or_default(), error.error.message)
}
