//! Attention of a few queries over a cache.

use std::ops::Range;

use crate::between::{exp, max};
use crate::dense::dot;
use crate::element::{Element, Floats, load};
use crate::level::{Kernel, Level};
use crate::pool;
use crate::vector::{LANES, Vector};

/// What a call looks at; H query heads share Hkv heads of keys and values, neighbours the same one.
#[derive(Debug)]
pub struct Attention<'a> {
    /// `[B, H, L, D]`, row after row.
    pub q: &'a [f32],
    /// The keys of each head: B · Hkv slices of `[S, D]`.
    pub keys: Vec<Floats<'a>>,
    /// The values of each head: B · Hkv slices of `[S, D]`.
    pub values: Vec<Floats<'a>>,
    /// D
    pub head_dim: usize,
    /// L
    pub queries: usize,
    /// What `q · k` is multiplied with.
    pub scale: f32,
    /// How many of the S positions a row has: one number for all rows, or one for each of the B.
    pub lengths: &'a [usize],
    /// Query i sees the positions up to its own, the queries being the last L that a row has; else all that
    /// the row has.
    pub causal: bool,
    /// Of these a query sees the latest, at most this many; `None`: all of them.
    pub window: Option<usize>,
}

impl Attention<'_> {
    fn check(&self) {
        let (heads, d, l) = (self.keys.len(), self.head_dim, self.queries);
        assert_eq!(heads, self.values.len(), "heads of keys and of values");
        let rows = self.q.len().is_multiple_of(heads * l * d);
        assert!(
            rows,
            "{} numbers for {heads} heads, {l} × {d}",
            self.q.len()
        );
        let positions = self.keys[0].len() / d;
        let mut both = self.keys.iter().chain(&self.values);
        let float = self.keys[0].float();
        let same = both.all(|head| head.len() == positions * d && head.float() == float);
        assert!(same, "heads that are not all {positions} × {d} {float:?}");
        let lengths = self.lengths;
        let rows = !lengths.is_empty() && heads.is_multiple_of(lengths.len());
        assert!(rows, "{} lengths for {heads} heads", lengths.len());
        for length in lengths {
            let seen = !self.causal || l <= *length;
            assert!(seen, "{l} queries at the end of {length} positions");
            assert!(
                *length <= positions,
                "{length} positions in a cache of {positions}"
            );
        }
    }

    /// What a query of this head of keys looks at.
    fn seen(&self, head: usize, query: usize) -> Range<usize> {
        let heads_per_row = self.keys.len() / self.lengths.len();
        let mut end = self.lengths[head / heads_per_row];
        if self.causal {
            end -= self.queries - 1 - query;
        }
        let first = self.window.map_or(0, |window| end.saturating_sub(window));
        first..end
    }
}

/// `softmax(scale · q kᵀ) v` → `[B, H, L, D]`. arXiv 1706.03762 §3.2.1.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn attention(level: Level, call: &Attention<'_>) -> Vec<f32> {
    call.check();
    let mut out = vec![0.0; call.q.len()];
    let (d, l) = (call.head_dim, call.queries);
    let (rows, heads) = (call.q.len() / d, call.keys.len());
    let per_head = rows / heads; // H / Hkv · L rows of q see the same keys
    let positions = call.lengths.iter().copied().max().unwrap_or(0);
    let bytes = 8 * positions * d * per_head;
    pool::in_pieces(&mut out, per_head * d, heads, bytes, |first, out| {
        level.run(Heads {
            call,
            first,
            per_head,
            positions,
            queries: l,
            out,
        });
    });
    out
}

struct Heads<'a> {
    call: &'a Attention<'a>,
    /// The first head of keys and values.
    first: usize,
    per_head: usize,
    positions: usize,
    queries: usize,
    out: &'a mut [f32],
}

impl Kernel for Heads<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let call = self.call;
        let d = call.head_dim;
        let mut scores = Vec::with_capacity(self.positions);
        for (row, out) in self.out.chunks_exact_mut(d).enumerate() {
            let row = self.first * self.per_head + row;
            let head = row / self.per_head;
            let seen = call.seen(head, row % self.queries);
            let q = &call.q[row * d..][..d];
            let scale = call.scale;
            let scores = &mut scores;
            match (call.keys[head], call.values[head]) {
                (Floats::F32(k), Floats::F32(v_)) => one(v, q, k, v_, seen, scale, scores, out),
                (Floats::Bf16(k), Floats::Bf16(v_)) => one(v, q, k, v_, seen, scale, scores, out),
                (Floats::F16(k), Floats::F16(v_)) => one(v, q, k, v_, seen, scale, scores, out),
                _ => unreachable!("keys and values are of one type"),
            }
        }
    }
}

/// One query `[D]` over the positions in `seen`.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
fn one<V: Vector, E: Element>(
    v: V,
    q: &[f32],
    keys: &[E],
    values: &[E],
    seen: Range<usize>,
    scale: f32,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let seen = seen.start * q.len()..seen.end * q.len();
    scores.clear();
    // Loops instead of closures: what is not inlined is not translated for the level.
    for key in keys[seen.clone()].chunks_exact(q.len()) {
        scores.push(scale * dot(v, key, q));
    }
    let sum = softmax(v, scores);
    weighted_sum(v, scores, &values[seen], out);
    for number in out {
        *number /= sum;
    }
}

/// `e^(score − largest)` in place; returns their sum.
#[inline(always)]
fn softmax<V: Vector>(v: V, scores: &mut [f32]) -> f32 {
    let largest = max(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let (blocks, rest) = scores.as_chunks::<LANES>();
    let mut sums = v.zero();
    for block in blocks {
        sums = v.add(sums, v.floats(*block));
    }
    let sum = v.sum(sums);
    rest.iter().fold(sum, |sum, score| sum + score)
}

/// `Σ weight · value`: weights `[S]`, values `[S, D]` → `[D]`.
#[inline(always)]
fn weighted_sum<V: Vector, E: Element>(v: V, weights: &[f32], values: &[E], out: &mut [f32]) {
    let width = out.len();
    let (lanes, rest) = out.as_chunks_mut::<LANES>();
    for (at, out) in lanes.iter_mut().enumerate() {
        let mut sum = v.zero();
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            sum = v.multiply_add(v.splat(*weight), load(v, value, at), sum);
        }
        *out = v.numbers(sum);
    }
    let first = width - rest.len();
    for (at, out) in rest.iter_mut().enumerate() {
        let values = values
            .chunks_exact(width)
            .map(|value| value[first + at].widen());
        *out = weights
            .iter()
            .zip(values)
            .map(|(weight, value)| weight * value)
            .sum();
    }
}
