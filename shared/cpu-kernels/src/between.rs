//! What stands between two products: for a few rows these are numbers in the CPU's caches.

use std::marker::PhantomData;

use half::{bf16, f16};

use crate::dense::dot;
use crate::element::{Element, Float};
use crate::level::{Kernel, Level};
use crate::pool;
use crate::vector::{LANES, Vector};

/// `x / √(mean(x²) + ε) · w` for each row of `weight.len()` numbers. arXiv 1910.07467.
///
/// # Panics
/// If x is not whole rows.
pub fn norm(level: Level, x: &mut [f32], weight: &[f32], eps: f32) {
    let (numbers, width) = (x.len(), weight.len());
    assert!(
        numbers.is_multiple_of(width),
        "{numbers} numbers in rows of {width}"
    );
    pool::in_pieces(x, width, numbers / width, 8 * width, |_, x| {
        level.run(Norm { x, weight, eps });
    });
}

struct Norm<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        for row in self.x.chunks_exact_mut(self.weight.len()) {
            let mean = dot(v, row, row) / row.len() as f32;
            let factor = 1.0 / (mean + self.eps).sqrt();
            for (x, weight) in row.iter_mut().zip(self.weight) {
                *x = *x * factor * weight;
            }
        }
    }
}

/// `a + b`, into `a`.
///
/// # Panics
/// If the lengths differ.
pub fn add(level: Level, a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "numbers to add");
    let n = a.len();
    pool::in_pieces(a, 1, n, 8, |first, a| {
        let b = &b[first..][..a.len()];
        level.run(Add { a, b });
    });
}

struct Add<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        for (a, b) in self.a.iter_mut().zip(self.b) {
            *a += b;
        }
    }
}

/// `silu(gate) · up`, into `gate`; `silu(x) = x / (1 + e⁻ˣ)`. arXiv 2002.05202.
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(level: Level, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "numbers of the gate");
    let n = gate.len();
    pool::in_pieces(gate, 1, n, 16, |first, gate| {
        let up = &up[first..][..gate.len()];
        level.run(SwiGlu { gate, up });
    });
}

struct SwiGlu<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

/// `ln Σ eˣ`, and where `round(x − that)` is largest, the first place if there are several.
///
/// `round` is what the type of the numbers makes of an f32. The sum is rounded as well: whoever computes with
/// arrays of that type rounds both.
pub fn log_sum_and_best(level: Level, x: &[f32], float: Float) -> (f32, usize) {
    let round = |value: f32| match float {
        Float::F32 => value,
        Float::Bf16 => bf16::round(value).widen(),
        Float::F16 => f16::round(value).widen(),
    };
    let total = round(level.run(LogSum { x }));
    let best = match float {
        Float::F32 => level.run(Best::<f32>::new(x, total)),
        Float::Bf16 => level.run(Best::<bf16>::new(x, total)),
        Float::F16 => level.run(Best::<f16>::new(x, total)),
    };
    (total, best)
}

struct LogSum<'a> {
    x: &'a [f32],
}

impl Kernel for LogSum<'_> {
    type Output = f32;

    /// From the largest one down, so that nothing overflows. A number that is none shows in the sum.
    #[inline(always)]
    fn run<V: Vector>(self, _: V) -> f32 {
        let largest = max(self.x);
        let (blocks, rest) = self.x.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for block in blocks {
            for lane in 0..LANES {
                sums[lane] += exp(block[lane] - largest);
            }
        }
        let sums = sums.iter().copied();
        let sum: f32 = sums.chain(rest.iter().map(|x| exp(x - largest))).sum();
        largest + sum.ln()
    }
}

struct Best<'a, E> {
    x: &'a [f32],
    total: f32,
    element: PhantomData<E>,
}

impl<'a, E> Best<'a, E> {
    fn new(x: &'a [f32], total: f32) -> Self {
        Self {
            x,
            total,
            element: PhantomData,
        }
    }
}

impl<E: Element> Kernel for Best<'_, E> {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self, _: V) -> usize {
        let (blocks, rest) = self.x.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for block in blocks {
            for lane in 0..LANES {
                lanes[lane] = lanes[lane].max(E::round(block[lane] - self.total).widen());
            }
        }
        let rest = rest.iter().map(|x| E::round(x - self.total).widen());
        let best = lanes
            .into_iter()
            .chain(rest)
            .fold(f32::NEG_INFINITY, f32::max);
        let mut rounded = self.x.iter().map(|x| E::round(x - self.total).widen());
        rounded.position(|x| x == best).unwrap_or(0)
    }
}

/// eˣ without a call or a branch, so that eight are found at once: `2ⁿ · e^r` with `|r| ≤ ln 2 / 2`, and a
/// polynomial for `e^r` (the coefficients of Cephes' `expf`). Off by less than one unit of the last digit
/// (all numbers were tried). Below −87.3 it gives `e^−87.3`, a normal number still; above 88.37 infinity, which is
/// 0.35 early.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.7);
    let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    e * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// Cosines and sines of one position, one of each for every pair.
#[derive(Debug, Clone)]
pub struct Turn {
    /// `[D/2]`
    pub cos: Vec<f32>,
    /// `[D/2]`
    pub sin: Vec<f32>,
}

/// Rotates each pair of the first `2 · cos.len()` numbers of a head. arXiv 2104.09864.
///
/// `neighbours`: the pairs are neighbours, not `cos.len()` apart.
///
/// # Panics
/// If there are fewer pairs than angles.
pub fn rotate(head: &mut [f32], turn: &Turn, neighbours: bool) {
    let half = turn.cos.len();
    assert!(
        2 * half <= head.len() && half == turn.sin.len(),
        "{half} pairs of {}",
        head.len()
    );
    let angles = turn.cos.iter().zip(&turn.sin);
    if neighbours {
        for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
            let [a, b] = *pair;
            *pair = [a * cos - b * sin, a * sin + b * cos];
        }
        return;
    }
    let (first, second) = head.split_at_mut(half);
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// The largest of the numbers.
#[inline(always)]
pub(crate) fn max(numbers: &[f32]) -> f32 {
    let (blocks, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].max(block[lane]);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |max, number| max.max(*number))
}
