//! The threads that share a product.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder, Yield};

/// Bytes that are worth a thread's attention: to wake one takes as long as to read these.
const WORTH: usize = 64 << 10;

/// Pieces per thread, so that one which is late takes fewer of them.
const PIECES: usize = 4;

/// Threads that anybody can mean. Each costs its stack, and a slip of the hand could ask for millions.
const MOST: usize = 1024;

/// How many threads multiply: `OMP_NUM_THREADS`, as for the BLAS, but at most 1024; else one for each core.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let asked = std::env::var("OMP_NUM_THREADS").ok();
        let asked = asked.and_then(|threads| threads.trim().parse().ok());
        let cores = || std::thread::available_parallelism().map(usize::from).ok();
        let asked = asked.filter(|threads| *threads > 0);
        asked.or_else(cores).unwrap_or(1).min(MOST)
    })
}

/// Fills `y` `[M, N]` in pieces of some of the N columns: `fill` is given the first column of a piece
/// and its numbers, the M of one column side by side. `bytes`: what a column costs to read.
pub(crate) fn for_each_chunk(
    y: &mut [f32],
    m: usize,
    bytes: usize,
    fill: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    let n = y.len() / m.max(1);
    if m == 1 {
        return in_pieces(y, 1, n, bytes, fill);
    }
    let mut transposed = vec![0.0; y.len()];
    in_pieces(&mut transposed, m, n, bytes * m, fill);
    for (row, y) in y.chunks_exact_mut(n.max(1)).enumerate() {
        for (column, y) in y.iter_mut().enumerate() {
            *y = transposed[column * m + row];
        }
    }
}

/// Fills `y` `[N, width]` in pieces of some of the N; `bytes`: what one of them costs.
pub(crate) fn in_pieces<T: Send>(
    y: &mut [T],
    width: usize,
    n: usize,
    bytes: usize,
    fill: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    if y.is_empty() {
        return;
    }
    let pieces = (n * bytes / WORTH).clamp(1, PIECES * threads());
    let each = n.div_ceil(pieces).max(1);
    with_pool(|pool| match pool {
        Some(pool) if pieces > 1 => pool.run(|| {
            let pieces = y.par_chunks_mut(each * width).enumerate();
            pieces.for_each(|(piece, y)| fill(piece * each, y));
        }),
        _ => fill(0, y),
    });
}

/// What `add_up` says of pieces of `each` numbers, added up by all threads.
pub(crate) fn sum(
    numbers: &[u64],
    each: usize,
    add_up: impl Fn(&[u64]) -> u64 + Send + Sync,
) -> u64 {
    let wrapping = |a: u64, b: u64| a.wrapping_add(b);
    with_pool(|pool| match pool {
        Some(pool) => pool.run(|| {
            let sums = numbers.par_chunks(each).map(&add_up);
            sums.reduce(|| 0, wrapping)
        }),
        None => numbers.chunks(each).map(&add_up).fold(0, wrapping),
    })
}

/// How long the other threads look for work after the last product before they fall asleep: longer than
/// what stands between two products of a layer. To wake one takes 50 µs, as long as many a product does.
const AWAKE: Duration = Duration::from_micros(200);

thread_local! {
    static POOL: OnceCell<Option<Pool>> = const { OnceCell::new() };
}

/// The threads that the calling one is a member of: it works, too, instead of waiting asleep for the
/// others, which would take longer than a small product does.
struct Pool {
    threads: ThreadPool,
    awake: Arc<Awake>,
}

/// What keeps the other threads from falling asleep between two products.
struct Awake {
    start: Instant,
    /// Nanoseconds from `start` to the last product.
    last: AtomicU64,
    /// Threads that look for work.
    threads: AtomicUsize,
}

impl Pool {
    fn new() -> Option<Self> {
        let builder = ThreadPoolBuilder::new().num_threads(threads());
        let awake = Awake {
            start: Instant::now(),
            last: AtomicU64::new(0),
            threads: AtomicUsize::new(0),
        };
        Some(Self {
            threads: builder.use_current_thread().build().ok()?,
            awake: Arc::new(awake),
        })
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.wake();
        let result = self.threads.install(work);
        self.awake.touch();
        result
    }

    /// Wakes the other threads, unless they are awake.
    fn wake(&self) {
        let awake = &self.awake;
        awake.touch();
        if awake.threads.load(Ordering::Acquire) > 0 {
            return;
        }
        let others = self.threads.current_num_threads() - 1;
        awake.threads.store(others, Ordering::Release);
        let awake = Arc::clone(awake);
        self.threads.spawn_broadcast(move |member| {
            if member.index() > 0 {
                awake.look_for_work();
                awake.threads.fetch_sub(1, Ordering::Release);
            }
        });
    }
}

impl Awake {
    fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Gives the core to whoever asks for it, another program included.
    fn look_for_work(&self) {
        while self.now().saturating_sub(self.last.load(Ordering::Relaxed)) < AWAKE.as_nanos() as u64
        {
            if rayon::yield_now() != Some(Yield::Executed) {
                thread::yield_now();
            }
        }
    }
}

fn with_pool<T>(run: impl FnOnce(Option<&Pool>) -> T) -> T {
    let several = || (threads() > 1).then(Pool::new).flatten();
    POOL.with(|pool| run(pool.get_or_init(several).as_ref()))
}
