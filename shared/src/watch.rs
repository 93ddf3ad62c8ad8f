//! Programs of others on a leash: a chat template and the steps of a `tokenizer.json` come with a
//! downloaded model, a grammar comes from a client, and nobody here has read them.
//!
//! Such a program runs on a thread of its own, whose memory is counted and whose time is limited. A
//! panic becomes an error. A thread cannot be stopped from outside, so one that goes beyond its limits
//! is left where it is: it stops for good at its next allocation, keeps what it has until the process
//! ends, and the caller gets an error.
//!
//! # What is left
//! A loop that allocates nothing keeps its core busy until the process ends, and a stack that
//! overflows ends the process: whoever runs something here has to bound how deep it can recurse. A
//! service that takes models from strangers would use a process per program, which can be killed; here
//! a run has one model, and a process that loads MLX anew for every prompt would cost more than it
//! protects.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use console::interrupt::{Interrupted, check_interrupted};

/// What a program of others may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that it holds at a time.
    pub memory: usize,
    /// Until its result is there.
    pub time: Duration,
}

/// Stack of the thread in bytes. It is address space: only what is used is paid for.
const STACK: usize = 256 << 20;

/// By this name the panic hook knows the threads whose panics are told by their caller.
const NAME: &str = "program of others";

/// How often the caller looks whether the memory is used up or Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(20);

/// Runs `work` within `limits`; `what` begins the sentence of an error, `advice` ends it.
///
/// `work` must not hold a lock of the whole process while it allocates: if it is stopped there, nobody gets that lock
/// any more. An error of `anyhow` does, while it records a backtrace for `RUST_BACKTRACE=1`. So errors leave `work`
/// as their library made them, and become sentences here outside.
///
/// # Cost
/// A thread, some 50 µs.
///
/// # Errors
/// If it goes beyond its limits or panics.
pub fn run<T: Send + 'static>(
    what: &str,
    advice: &str,
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    keep_panics_quiet();
    let account = Arc::new(Account::new(limits.memory));
    let (sender, receiver) = mpsc::channel();
    let own = Arc::clone(&account);
    let work = move || {
        let outcome = own.pay_for(|| panic::catch_unwind(AssertUnwindSafe(work)));
        // Nobody waits any more if it took too long.
        let _ = sender.send(outcome);
    };
    let thread = thread::Builder::new()
        .name(NAME.to_owned())
        .stack_size(STACK)
        .spawn(work)
        .with_context(|| format!("starting a thread for {what}"))?;
    // Dropped, it would be detached, and glibc 2.36 looks at a thread once more after that: if it has ended
    // meanwhile, its stack is gone and the process crashes, once in some hundred thousand short programs.
    let thread = ManuallyDrop::new(thread);
    let outcome = wait(limits, &account, &receiver).map_err(|end| match end {
        End::Interrupted(interrupted) => anyhow!(interrupted),
        End::Limit(limit) => anyhow!("{what} {limit}{advice}"),
    })?;
    // It has nothing left to do, and its panics are in the outcome.
    let _ = ManuallyDrop::into_inner(thread).join();
    outcome.map_err(|panic| anyhow!("{what} crashed: {}{advice}", words(&*panic)))
}

/// Why a result is not waited for any longer.
enum End {
    Interrupted(Interrupted),
    Limit(String),
}

fn wait<T>(limits: Limits, account: &Account, receiver: &mpsc::Receiver<T>) -> Result<T, End> {
    let beyond = |limit: String| Err(End::Limit(limit));
    let end = Instant::now() + limits.time;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(outcome) => return Ok(outcome),
            Err(RecvTimeoutError::Disconnected) => {
                return beyond("ended without a result".to_owned());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if account.overdrawn.load(Ordering::Relaxed) {
            return beyond(format!("takes more than {} MB", limits.memory / 1_000_000));
        }
        if Instant::now() >= end {
            account.close();
            // The limit of a long text is no round number.
            let seconds = (limits.time.as_secs_f32() * 10.0).round() / 10.0;
            return beyond(format!("takes longer than {seconds} s"));
        }
        if let Err(interrupted) = check_interrupted() {
            account.close();
            return Err(End::Interrupted(interrupted));
        }
    }
}

/// What a panic said. A library puts values into its messages: the reader of an error gets a line.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason given")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// A panic of these threads is an error of their caller, who tells it: not a second time on stderr.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(NAME) {
                usual(info);
            }
        }));
    });
}

/// The memory that a thread may still take.
struct Account {
    left: AtomicIsize,
    overdrawn: AtomicBool,
    /// Nothing more is paid. Not a value of `left`, which its thread could be writing just then.
    closed: AtomicBool,
}

thread_local! {
    /// To whose account allocations go; null for every thread but those of [`run`].
    static ACCOUNT: Cell<*const Account> = const { Cell::new(ptr::null()) };
}

impl Account {
    fn new(bytes: usize) -> Self {
        Self {
            left: AtomicIsize::new(isize::try_from(bytes).unwrap_or(isize::MAX)),
            overdrawn: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Counts what `work` allocates on this thread.
    fn pay_for<T>(&self, work: impl FnOnce() -> T) -> T {
        ACCOUNT.set(self);
        let outcome = work();
        ACCOUNT.set(ptr::null());
        outcome
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        if left >= 0 && !self.closed.load(Ordering::Relaxed) {
            self.left.store(left, Ordering::Relaxed);
            return;
        }
        self.overdrawn.store(true, Ordering::Relaxed);
        // An allocation has no way to fail that a program survives. So it never returns.
        loop {
            thread::sleep(Duration::MAX);
        }
    }

    fn give_back(&self, bytes: usize) {
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The system's allocator, which asks the account of a thread that has one. Others pay for a look at
/// a thread-local pointer.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn account() -> Option<&'static Account> {
    let account = ACCOUNT.get();
    // SAFETY: `pay_for` sets it for the time in which it borrows the account, and a thread that never
    // comes back from `take` never gives its share of the account up.
    unsafe { account.as_ref() }
}

// SAFETY: the system's allocator does all the work, with the arguments as they came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(account) = account() {
            account.take(layout.size());
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(account) = account() {
            account.take(layout.size());
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(account) = account() {
            account.take(size);
            account.give_back(layout.size());
        }
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(account) = account() {
            account.give_back(layout.size());
        }
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        memory: 10_000_000,
        time: Duration::from_millis(200),
    };

    fn refused<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> String {
        let outcome = run("it", "", SMALL, work).map(|_| ());
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn what_stays_within_its_limits_gives_its_result() {
        let many = || (0..100).map(|_| vec![1_u8; 1_000_000].len()).sum::<usize>();
        let patient = Limits {
            time: Duration::from_secs(20),
            ..SMALL
        };
        assert_eq!(run("it", "", patient, many).unwrap(), 100_000_000);
    }

    #[test]
    fn memory_is_refused_before_it_is_taken_at_once_and_bit_by_bit() {
        assert_eq!(
            refused(|| vec![1_u8; 1 << 40].len()),
            "it takes more than 10 MB"
        );
        let growing = || -> String {
            let mut text = String::new();
            loop {
                text.push_str("and so on");
            }
        };
        assert_eq!(refused(growing), "it takes more than 10 MB");
    }

    #[test]
    fn a_loop_without_an_end_is_left_alone() {
        static ENOUGH: AtomicBool = AtomicBool::new(false);
        let endless = || {
            while !ENOUGH.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        assert_eq!(refused(endless), "it takes longer than 0.2 s");
        ENOUGH.store(true, Ordering::Relaxed);
    }

    /// A program that takes and gives back without an end must not open its account again, whenever it
    /// is closed.
    #[test]
    fn an_account_that_is_closed_stays_closed() {
        static ROUNDS: [AtomicIsize; 200] = [const { AtomicIsize::new(0) }; 200];
        for rounds in &ROUNDS {
            let account = Arc::new(Account::new(1000));
            let own = Arc::clone(&account);
            thread::spawn(move || {
                loop {
                    own.take(100);
                    own.give_back(100);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
            while rounds.load(Ordering::Relaxed) < 1000 {
                thread::yield_now();
            }
            account.close();
        }
        thread::sleep(Duration::from_millis(50));
        let counts = || {
            ROUNDS
                .each_ref()
                .map(|rounds| rounds.load(Ordering::Relaxed))
        };
        let before = counts();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(before, counts());
    }

    #[test]
    fn the_time_in_a_message_is_a_round_number() {
        let limits = Limits {
            time: Duration::from_micros(200_120),
            ..SMALL
        };
        let sleeps = || thread::sleep(Duration::from_secs(1));
        let error = run("it", "", limits, sleeps).unwrap_err();
        assert_eq!(error.to_string(), "it takes longer than 0.2 s");
    }

    #[test]
    fn a_panic_is_one_line() {
        let panics = || -> usize { panic!("no such\n  thing: {}", 7) };
        assert_eq!(refused(panics), "it crashed: no such thing: 7");
    }
}
