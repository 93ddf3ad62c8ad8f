//! A download as it is seen: a line when it starts, a bar while it runs, a line when it is done.
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use console::numbers::plural;
use console::report::tell;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

/// The state of one download. On a terminal there is a bar; elsewhere (a log file, CI) the bar
/// hides itself and only the two lines remain.
pub(super) struct Transfer {
    bar: ProgressBar,
    /// What is downloaded; `None` if nobody is to be told.
    what: Option<String>,
    total: u64,
    started: Instant,
    /// Bytes on disk by file.
    seen: Mutex<HashMap<String, u64>>,
    /// The most tries that any file has broken in.
    cuts: AtomicUsize,
}

impl Transfer {
    pub(super) fn start(what: &str, files: usize, total: u64) -> Self {
        tell(&format!(
            "Downloading {what}: {files} {}, {}",
            plural(files, "file"),
            DecimalBytes(total)
        ));
        // indicatif draws on stderr, and nothing at all if that is not a terminal.
        let bar = ProgressBar::new(total);
        let style = "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self::new(bar, Some(what.to_string()), total)
    }

    /// A download too small to be worth a line.
    pub(super) fn hidden() -> Self {
        Self::new(ProgressBar::hidden(), None, 0)
    }

    fn new(bar: ProgressBar, what: Option<String>, total: u64) -> Self {
        Self {
            bar,
            what,
            total,
            started: Instant::now(),
            seen: Mutex::default(),
            cuts: AtomicUsize::new(0),
        }
    }

    /// `file` has `bytes` of its bytes on disk.
    pub(super) fn file_at(&self, file: &str, bytes: u64) {
        // A poisoned lock would mean a panic while counting; the bar is not worth another one.
        let Ok(mut seen) = self.seen.lock() else {
            return;
        };
        match seen.get_mut(file) {
            Some(known) => *known = bytes,
            None => drop(seen.insert(file.to_string(), bytes)),
        }
        self.bar
            .set_position(seen.values().sum::<u64>().min(self.total));
    }

    /// The connection broke in the `attempt`-th try of a file. When it does, it mostly does for several
    /// files at once: one line above the bar is enough for them.
    pub(super) fn cut(&self, attempt: usize) {
        if self.cuts.fetch_max(attempt, Ordering::Relaxed) < attempt {
            let line = "The connection was cut: going on";
            self.bar.suspend(|| tell(line));
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        let Some(what) = &self.what else { return };
        let seconds = self.started.elapsed().as_secs_f64();
        tell(&format!(
            "Downloaded {what}: {} in {seconds:.1} s",
            DecimalBytes(self.total)
        ));
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
