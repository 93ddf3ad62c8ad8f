//! Attention of a few queries over a cache.

use std::ops::Range;

use crate::between::{exp, max};
use crate::columns::Near;
use crate::dense::dot;
use crate::element::{Element, Floats, load};
use crate::level::{Kernel, Level};
use crate::pool;
use crate::vector::{LANES, SIXTEEN, Vector};

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
/// # Cost
/// A query reads the keys and values that it sees. Those of a prompt share what they read, some of them at a time,
/// and the scores of these are all that is in memory at once.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn attention(level: Level, call: &Attention<'_>) -> Vec<f32> {
    call.check();
    let mut out = vec![0.0; call.q.len()];
    let d = call.head_dim;
    let (rows, heads) = (call.q.len() / d, call.keys.len());
    let per_head = rows / heads; // H / Hkv · L rows of q see the same keys
    let positions = call.lengths.iter().copied().max().unwrap_or(0);
    // The heads of one query read their keys once; of a prompt there are enough rows to share them out evenly.
    let unit = if call.queries == 1 { per_head } else { 1 };
    let bytes = 8 * positions * d * unit;
    pool::in_pieces(&mut out, unit * d, rows / unit, bytes, |first, out| {
        level.run(Rows {
            level,
            call,
            first: first * unit,
            per_head,
            out,
        });
    });
    out
}

/// Some rows of q, from `first` on.
struct Rows<'a> {
    level: Level,
    call: &'a Attention<'a>,
    first: usize,
    per_head: usize,
    out: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let (call, d) = (self.call, self.call.head_dim);
        let (mut row, mut out) = (self.first, self.out);
        let room = &mut Room::new(self.level, call);
        while !out.is_empty() {
            let head = row / self.per_head;
            let left = (self.per_head * (head + 1) - row).min(out.len() / d);
            let together = if call.queries == 1 {
                1
            } else {
                left.min(QUERIES)
            };
            let (near, rest) = out.split_at_mut(together * d);
            let rows = row..row + together;
            match (call.keys[head], call.values[head]) {
                (Floats::F32(k), Floats::F32(w)) => block(v, call, head, rows, k, w, room, near),
                (Floats::Bf16(k), Floats::Bf16(w)) => block(v, call, head, rows, k, w, room, near),
                (Floats::F16(k), Floats::F16(w)) => block(v, call, head, rows, k, w, room, near),
                _ => unreachable!("keys and values are of one type"),
            }
            (row, out) = (row + together, rest);
        }
    }
}

/// Queries that share what is read.
const QUERIES: usize = 32;

/// Positions whose values are widened at once, and stay in the second cache.
const NEAR_VALUES: usize = 256;

/// What a block of queries writes to, again and again.
struct Room {
    level: Level,
    /// Of each query with each position that one of them sees.
    scores: Vec<f32>,
    /// For the products with keys; one query alone needs none of it.
    near: Option<Near>,
    /// Some values, widened.
    values: Vec<f32>,
}

impl Room {
    fn new(level: Level, call: &Attention<'_>) -> Self {
        Self {
            level,
            scores: Vec::new(),
            near: (call.queries > 1).then(|| Near::new(level, call.head_dim)),
            values: Vec::new(),
        }
    }
}

/// Queries `[n, D]` over the positions that each sees.
#[inline(always)]
#[expect(clippy::too_many_arguments)]
fn block<V: Vector, E: Element>(
    v: V,
    call: &Attention<'_>,
    head: usize,
    rows: Range<usize>,
    keys: &[E],
    values: &[E],
    room: &mut Room,
    out: &mut [f32],
) {
    let d = call.head_dim;
    let q = &call.q[rows.start * d..rows.end * d];
    let mut union = call.seen(head, rows.start % call.queries);
    for row in rows.clone().skip(1) {
        let seen = call.seen(head, row % call.queries);
        union = union.start.min(seen.start)..union.end.max(seen.end);
    }
    let n = union.len();
    all_scores(v, q, &keys[union.start * d..union.end * d], d, room);
    let mut sums = [0.0; QUERIES];
    for (at, (row, sum)) in rows.clone().zip(&mut sums).enumerate() {
        let seen = call.seen(head, row % call.queries);
        let scores = &mut room.scores[at * n..][seen.start - union.start..seen.end - union.start];
        // A loop instead of a closure: what is not inlined is not translated for the level.
        for score in scores.iter_mut() {
            *score *= call.scale;
        }
        *sum = softmax(v, scores);
    }
    let values = &values[union.start * d..union.end * d];
    if q.len() == d {
        weighted_sum(v, &room.scores, values, out);
    } else {
        let seen: Vec<Range<usize>> = rows
            .map(|row| call.seen(head, row % call.queries))
            .map(|seen| seen.start - union.start..seen.end - union.start)
            .collect();
        weighted_sums_of_all(v, &seen, values, room, out);
    }
    for (out, sum) in out.chunks_exact_mut(d).zip(sums) {
        for number in out {
            *number /= sum;
        }
    }
}

/// `q · k` of each query `[n, D]` with each key `[S, D]` → `[n, S]`.
#[inline(always)]
fn all_scores<V: Vector, E: Element>(v: V, q: &[f32], keys: &[E], d: usize, room: &mut Room) {
    let n = keys.len() / d;
    room.scores.resize(q.len() / d * n, 0.0);
    match &mut room.near {
        Some(near) if q.len() > d => near.products(room.level, q, keys, &mut room.scores),
        _ => {
            for (score, key) in room.scores.iter_mut().zip(keys.chunks_exact(d)) {
                *score = dot(v, key, q);
            }
        }
    }
}

/// The sum of each query over the values `[S, D]` that it sees, added to `out` `[n, D]`.
#[inline(always)]
fn weighted_sums_of_all<V: Vector, E: Element>(
    v: V,
    seen: &[Range<usize>],
    values: &[E],
    room: &mut Room,
    out: &mut [f32],
) {
    let d = out.len() / seen.len();
    let n = values.len() / d;
    for first in (0..n).step_by(NEAR_VALUES) {
        let near = first..n.min(first + NEAR_VALUES);
        room.values.resize(near.len() * d, 0.0);
        for (wide, value) in room.values.iter_mut().zip(&values[near.start * d..]) {
            *wide = value.widen();
        }
        let scores = room.scores.chunks(TOGETHER * n);
        let tiles = seen.chunks(TOGETHER).zip(scores);
        for ((seen, scores), out) in tiles.zip(out.chunks_mut(TOGETHER * d)) {
            tile(v, room.level, seen, scores, near.clone(), &room.values, out);
        }
    }
}

/// Queries that share the values that are loaded.
const TOGETHER: usize = 4;

/// A few queries over the positions `near`, whose values are given. Each sum is in the order of the positions.
#[inline(always)]
fn tile<V: Vector>(
    v: V,
    level: Level,
    seen: &[Range<usize>],
    scores: &[f32],
    near: Range<usize>,
    values: &[f32],
    out: &mut [f32],
) {
    let (d, n) = (out.len() / seen.len(), scores.len() / seen.len());
    let cut = |seen: &Range<usize>| {
        let start = seen.start.clamp(near.start, near.end);
        start..seen.end.clamp(start, near.end)
    };
    let mut all = near.clone();
    for seen in seen {
        let seen = cut(seen);
        all = all.start.max(seen.start)..all.end.min(seen.end);
    }
    let shared = seen.len() == TOGETHER && d.is_multiple_of(SIXTEEN) && !all.is_empty();
    let mut rows = [scores; TOGETHER];
    for (at, (seen, out)) in seen.iter().zip(out.chunks_exact_mut(d)).enumerate() {
        let (seen, weights) = (cut(seen), &scores[at * n..][..n]);
        let before = if shared { seen.start..all.start } else { seen };
        let from = before.start - near.start..before.end - near.start;
        weighted_sum(
            v,
            &weights[before],
            &values[from.start * d..from.end * d],
            out,
        );
        if shared {
            rows[at] = &weights[all.clone()];
        }
    }
    if !shared {
        return;
    }
    level.run_wide(SharedSums {
        weights: rows,
        values: &values[(all.start - near.start) * d..(all.end - near.start) * d],
        out,
    });
    for (at, (seen, out)) in seen.iter().zip(out.chunks_exact_mut(d)).enumerate() {
        let after = all.end..cut(seen).end;
        let from = after.start - near.start..after.end - near.start;
        weighted_sum(
            v,
            &scores[at * n..][after],
            &values[from.start * d..from.end * d],
            out,
        );
    }
}

/// Queries that see the same positions: weights `[S]` of each, values `[S, D]`, added to `out` `[TOGETHER, D]`.
struct SharedSums<'a> {
    weights: [&'a [f32]; TOGETHER],
    values: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SharedSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self {
            weights,
            values,
            out,
        } = self;
        let [a, b, c, e] = weights;
        let d = out.len() / TOGETHER;
        let mut at = 0;
        while at < d {
            if d - at >= 2 * SIXTEEN {
                shared_sums::<V, 2>(v, [a, b, c, e], values, d, at, out);
                at += 2 * SIXTEEN;
            } else {
                shared_sums::<V, 1>(v, [a, b, c, e], values, d, at, out);
                at += SIXTEEN;
            }
        }
    }
}

/// `P` times sixteen of the D numbers.
#[inline(always)]
fn shared_sums<V: Vector, const P: usize>(
    v: V,
    weights: [&[f32]; TOGETHER],
    values: &[f32],
    d: usize,
    at: usize,
    out: &mut [f32],
) {
    let mut sums = [[v.splat_16(0.0); P]; TOGETHER];
    for m in 0..TOGETHER {
        let from = out[m * d + at..].as_chunks().0;
        for p in 0..P {
            sums[m][p] = v.sixteen(from[p]);
        }
    }
    let n = weights[0].len();
    let [w0, w1, w2, w3] = weights;
    let (w1, w2, w3) = (&w1[..n], &w2[..n], &w3[..n]);
    for (index, value) in values.chunks_exact(d).enumerate().take(n) {
        let weights = [w0[index], w1[index], w2[index], w3[index]];
        let value = &value[at..][..P * SIXTEEN].as_chunks().0;
        let mut near = [v.splat_16(0.0); P];
        for p in 0..P {
            near[p] = v.sixteen(value[p]);
        }
        for m in 0..TOGETHER {
            let weight = v.splat_16(weights[m]);
            for p in 0..P {
                sums[m][p] = v.multiply_add_16(weight, near[p], sums[m][p]);
            }
        }
    }
    for m in 0..TOGETHER {
        let to = out[m * d + at..].as_chunks_mut().0;
        for p in 0..P {
            to[p] = v.sixteen_numbers(sums[m][p]);
        }
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

/// `Σ weight · value`: weights `[S]`, values `[S, D]`, added to `out` `[D]`.
#[inline(always)]
fn weighted_sum<V: Vector, E: Element>(v: V, weights: &[f32], values: &[E], out: &mut [f32]) {
    let width = out.len();
    let (eights, rest) = out.as_chunks_mut::<LANES>();
    let mut at = 0;
    for four in eights.chunks_mut(4) {
        if let Ok(four) = <&mut [[f32; LANES]; 4]>::try_from(&mut *four) {
            weighted_sums(v, weights, values, width, at, four);
        } else {
            for (index, one) in four.iter_mut().enumerate() {
                weighted_sums(
                    v,
                    weights,
                    values,
                    width,
                    at + index,
                    std::array::from_mut(one),
                );
            }
        }
        at += 4;
    }
    let first = width - rest.len();
    for (at, out) in rest.iter_mut().enumerate() {
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            *out += weight * value[first + at].widen();
        }
    }
}

/// The same for N neighbouring eights of the D numbers: several sums, because one waits four cycles for the
/// addition before it.
#[inline(always)]
fn weighted_sums<V: Vector, E: Element, const N: usize>(
    v: V,
    weights: &[f32],
    values: &[E],
    width: usize,
    at: usize,
    out: &mut [[f32; LANES]; N],
) {
    let mut sums = [v.zero(); N];
    for (sum, out) in sums.iter_mut().zip(out.iter()) {
        *sum = v.floats(*out);
    }
    for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
        let weight = v.splat(*weight);
        let value = &value[at * LANES..][..N * LANES];
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = v.multiply_add(weight, load(v, value, index), *sum);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = v.numbers(sum);
    }
}
