//! Ctrl-C: one flag for the whole process, asked between two steps.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::{consts::SIGINT, flag};

/// Set by the first Ctrl-C.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether Ctrl-C was pressed. A loop asks between two steps, ends as if it had reached its end, and
/// the run reports what there is; [`run`](crate::cli::run) then exits with 130.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The error of work that has nothing to show when it is interrupted; [`run`](crate::cli::run) exits with 130 and
/// prints nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by Ctrl-C")]
pub struct Interrupted;

/// [`interrupted`] as an error, for work between whose steps `?` is enough.
///
/// # Errors
///
/// [`Interrupted`], if Ctrl-C was pressed.
pub fn check_interrupted() -> Result<(), Interrupted> {
    if interrupted() {
        Err(Interrupted)
    } else {
        Ok(())
    }
}

/// From now on the first Ctrl-C sets the flag and the second one ends the process.
///
/// In this order: when the signal comes, a flag that is set already ends the process, and only then
/// is the flag set.
pub fn watch() -> io::Result<()> {
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&INTERRUPTED))?;
    flag::register(SIGINT, Arc::clone(&INTERRUPTED))?;
    Ok(())
}
