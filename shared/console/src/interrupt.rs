//! Ctrl-C: one flag for the whole process, asked between two steps.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// A flag that says: end soon.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// The flag that [`watch`] lets Ctrl-C set.
static PROCESS: LazyLock<Interrupt> = LazyLock::new(Interrupt::default);

impl Interrupt {
    /// That of this process; a clone is the same flag.
    pub fn of_process() -> Self {
        PROCESS.clone()
    }

    /// From now on `kill` and a terminal that is closed set the flag, too: for a program that has
    /// others to end before it goes.
    ///
    /// # Errors
    /// If the system does not let us watch for the signals.
    pub fn watch_every_end(&self) -> io::Result<()> {
        flag::register(SIGTERM, Arc::clone(&self.0))?;
        flag::register(SIGHUP, Arc::clone(&self.0))?;
        Ok(())
    }

    /// Sets the flag: Ctrl-C is a key, and no signal, while a terminal is in raw mode.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was set; from now on it is not. For a program that goes on after Ctrl-C.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The same as an error, for work between whose steps `?` is enough.
    ///
    /// # Errors
    /// [`Interrupted`], if it is set.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_set() {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }
}

/// Whether Ctrl-C was pressed. A loop asks between two steps, ends as if it had reached its end, and
/// the run reports what there is; [`run`](crate::cli::run) then exits with 130.
pub fn interrupted() -> bool {
    PROCESS.is_set()
}

/// The error of work that has nothing to show when it is interrupted; [`run`](crate::cli::run) exits
/// with 130 and prints nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by Ctrl-C")]
pub struct Interrupted;

/// [`interrupted`] as an error, for work between whose steps `?` is enough.
///
/// # Errors
/// [`Interrupted`], if Ctrl-C was pressed.
pub fn check_interrupted() -> Result<(), Interrupted> {
    PROCESS.check()
}

/// From now on the first Ctrl-C sets the flag of this process and the second one ends it.
///
/// In this order: when the signal comes, a flag that is set already ends the process, and only then
/// is the flag set.
///
/// # Errors
/// If the system does not let us watch for it.
pub fn watch() -> io::Result<()> {
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&PROCESS.0))?;
    flag::register(SIGINT, Arc::clone(&PROCESS.0))?;
    Ok(())
}
