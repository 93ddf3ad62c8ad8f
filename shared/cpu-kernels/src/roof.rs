//! How fast this machine reads memory.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// Bytes that are read: more than any cache holds.
const BYTES: usize = 512 << 20;

/// Bytes a second of memory that all threads read together: the best of three passes over
/// 512 MB, a quarter of a second in all.
pub fn bandwidth() -> f64 {
    let words = vec![1_u64; BYTES / 8];
    let read = || {
        let start = Instant::now();
        let sum: u64 = words.par_chunks(1 << 16).map(add_up).sum();
        black_box(sum);
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| read()).fold(0.0, f64::max)
}

fn add_up(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 8];
    for words in words.as_chunks::<8>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().sum()
}
