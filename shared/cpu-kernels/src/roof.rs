//! How fast this machine reads memory: no decode step on its CPU is faster than that.

use std::hint::black_box;
use std::time::Instant;

use crate::pool;

/// Numbers that a thread reads before it asks for more.
const PIECE: usize = 1 << 16;

/// Reads of the whole buffer; the best one counts, since whatever else is at work only takes away.
const PASSES: usize = 4;

/// Bytes a second that all threads of a product read together from `bytes` of memory, which should be
/// more than the caches hold. None if there is no such memory.
///
/// # Cost
/// To get 512 MB from the system takes a quarter of a second, to read them four times another one at 10 GB/s
/// or less: mostly less than half a second in all.
pub fn bandwidth(bytes: usize) -> Option<f64> {
    let mut words = Vec::new();
    words.try_reserve_exact(bytes / 8).ok()?;
    words.resize(bytes / 8, 1_u64); // written, or all pages would be the same one
    let read = || {
        let start = Instant::now();
        black_box(pool::sum(&words, PIECE, add_up));
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    let best = (0..PASSES).map(|_| read()).fold(0.0, f64::max);
    (best.is_finite() && best > 0.0).then_some(best)
}

fn add_up(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 8];
    for words in words.as_chunks::<8>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}
