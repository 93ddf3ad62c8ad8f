//! Attention of a few queries over a cache.

use std::ops::Range;

use cpu_kernels::{Attention, Float, Floats, Level, attention};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::chance::{Chance, ROUNDING, for_each, near, roundings, same_bits};
use crate::matrices::{FLOATS, Stored};

/// What is attended to: `heads` of keys and values, each looked at by `shared` heads of queries.
#[derive(Debug, Clone, Copy)]
struct Shape {
    heads: usize,
    shared: usize,
    queries: usize,
    positions: usize,
    head_dim: usize,
    causal: bool,
    window: Option<usize>,
}

struct Case {
    shape: Shape,
    /// Those of each head, as if it were a row.
    lengths: Vec<usize>,
    q: Vec<f32>,
    keys: Stored,
    values: Stored,
    scale: f32,
}

impl Case {
    fn new(shape: Shape, float: Float, seed: u64) -> Self {
        let (mut chance, d) = (Chance(seed), shape.head_dim);
        let cached = shape.heads * shape.positions * d;
        let mut unit = |n: usize| -> Vec<f32> { (0..n).map(|_| 2.0 * chance.unit()).collect() };
        let shortest = if shape.causal { shape.queries } else { 1 };
        let some = |head: usize| (seed >> (7 * head)) as usize % (shape.positions - shortest + 1);
        Self {
            lengths: (0..shape.heads).map(|head| shortest + some(head)).collect(),
            q: unit(shape.heads * shape.shared * shape.queries * d),
            keys: Stored::new(&unit(cached), float),
            values: Stored::new(&unit(cached), float),
            scale: 1.0 / (d as f32).sqrt(),
            shape,
        }
    }

    /// A head of keys or of values, without the positions that are not in `seen`.
    fn head<'a>(&self, of: &'a Stored, head: usize, seen: Range<usize>) -> Floats<'a> {
        let (first, d) = (head * self.shape.positions, self.shape.head_dim);
        of.view((first + seen.start) * d..(first + seen.end) * d)
    }

    fn attend(&self, level: Level, lengths: &[usize]) -> Vec<f32> {
        let (shape, s) = (self.shape, self.shape.positions);
        let heads = |of| (0..shape.heads).map(move |head| self.head(of, head, 0..s));
        let call = Attention {
            q: &self.q,
            keys: heads(&self.keys).collect(),
            values: heads(&self.values).collect(),
            head_dim: shape.head_dim,
            queries: shape.queries,
            scale: self.scale,
            lengths,
            causal: shape.causal,
            window: shape.window,
        };
        attention(level, &call)
    }

    /// The row `row` of q, its head of keys, and which positions it sees where heads have these lengths.
    fn row(&self, row: usize, lengths: &[usize]) -> (&[f32], usize, Range<usize>) {
        let Shape {
            shared,
            queries,
            head_dim,
            causal,
            window,
            ..
        } = self.shape;
        let head = row / (shared * queries);
        let later = queries - 1 - row % queries;
        let end = lengths[head % lengths.len()] - if causal { later } else { 0 };
        let first = end - window.unwrap_or(end).min(end);
        let q = &self.q[row * head_dim..][..head_dim];
        (q, head, first..end)
    }

    /// The row alone: one head, one query, no mask.
    fn attend_alone(&self, level: Level, row: usize, lengths: &[usize]) -> Vec<f32> {
        let (q, head, seen) = self.row(row, lengths);
        let call = Attention {
            q,
            keys: vec![self.head(&self.keys, head, seen.clone())],
            values: vec![self.head(&self.values, head, seen.clone())],
            head_dim: self.shape.head_dim,
            queries: 1,
            scale: self.scale,
            lengths: &[seen.len()],
            causal: false,
            window: None,
        };
        attention(level, &call)
    }

    /// Fails unless `out` is the row of the formula, in f64, but for the errors of f32.
    fn check(&self, row: usize, lengths: &[usize], out: &[f32]) -> TestCaseResult {
        let (q, head, seen) = self.row(row, lengths);
        let visible = seen.len();
        let (d, scale) = (self.shape.head_dim, f64::from(self.scale));
        let wide = |row: Floats<'_>| row.to_f32().into_iter().map(f64::from);
        let keys: Vec<f64> = wide(self.head(&self.keys, head, seen.clone())).collect();
        let values: Vec<f64> = wide(self.head(&self.values, head, seen)).collect();
        let terms = |key: &[f64]| -> Vec<f64> {
            key.iter()
                .zip(q)
                .map(|(k, q)| scale * k * f64::from(*q))
                .collect()
        };
        let terms: Vec<Vec<f64>> = keys.chunks(d).map(terms).collect();
        let scores = terms.iter().map(|terms| terms.iter().sum::<f64>());
        let largest = scores.clone().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();

        // An error of a score is a relative one of its weight, as are those of e^x.
        let size = |terms: &Vec<f64>| terms.iter().map(|term| term.abs()).sum::<f64>();
        let score = (roundings(d) + 3.0) * terms.iter().map(size).fold(0.0, f64::max);
        let weight = score + 2.0;
        // The weights and the weighted values are added up one after the other.
        let all = 2.0 * weight + 2.0 * visible as f64 + roundings(visible);
        for (at, out) in out.iter().enumerate() {
            let parts = weights.iter().zip(values.chunks(d));
            let parts = parts.map(|(weight, value)| weight * value[at] / sum);
            let (want, size) = parts.fold((0.0, 0.0), |(want, size), part| {
                (want + part, size + part.abs())
            });
            near(*out, want, all, size)?;
        }
        prop_assert!(all * ROUNDING < 1e-2, "the bound says nothing");
        Ok(())
    }
}

/// Each row against the formula, and against itself alone.
fn check(shape: Shape, float: Float, seed: u64) -> TestCaseResult {
    let case = Case::new(shape, float, seed);
    let of_all = [shape.positions];
    let each = |level| [&of_all, &case.lengths[..]].map(|lengths| (level, lengths));
    for (level, lengths) in Level::all().flat_map(each) {
        let out = case.attend(level, lengths);
        prop_assert_eq!(out.len(), case.q.len());
        for (row, out) in out.chunks(shape.head_dim).enumerate() {
            case.check(row, lengths, out)?;
            same_bits(out, &case.attend_alone(level, row, lengths))?;
        }
    }
    Ok(())
}

fn check_all_types(shape: Shape, seed: u64) -> TestCaseResult {
    let mut floats = FLOATS.into_iter();
    floats.try_for_each(|float| check(shape, float, seed))
}

#[test]
fn attention_is_its_formula_and_a_query_gives_the_same_bits_alone_and_among_others() {
    let shapes = (
        (1..=4_usize, 1..=4_usize, 1..=9_usize),
        (
            0..=90_usize,
            1..=80_usize,
            any::<bool>(),
            prop::option::of(1..=60_usize),
        ),
    );
    let shapes = (shapes, any::<u64>());
    for_each(
        150,
        5,
        &shapes,
        |(((heads, shared, queries), more), seed)| {
            let (earlier, head_dim, causal, window) = more;
            let shape = Shape {
                heads,
                shared,
                queries,
                positions: queries + earlier,
                head_dim,
                causal,
                window,
            };
            check_all_types(shape, seed)
        },
    );
}

#[test]
fn attention_over_a_long_cache_is_its_formula() {
    for (queries, causal, window) in [
        (1, true, None),
        (3, true, Some(2500)),
        (3, true, None),
        (2, false, None),
    ] {
        let shape = Shape {
            heads: 3,
            shared: 3,
            queries,
            positions: 3001,
            head_dim: 64,
            causal,
            window,
        };
        check_all_types(shape, 8).unwrap();
    }
}

/// One query `[1]` that meets these keys, with these values.
fn one_number(level: Level, keys: &[f32], values: &[f32]) -> f32 {
    let call = Attention {
        q: &[1.0],
        keys: vec![Floats::F32(keys)],
        values: vec![Floats::F32(values)],
        head_dim: 1,
        queries: 1,
        scale: 1.0,
        lengths: &[keys.len()],
        causal: true,
        window: None,
    };
    attention(level, &call)[0]
}

#[test]
fn the_largest_of_huge_scores_takes_all() {
    for level in Level::all() {
        for huge in [200.0, 1e4, 1e10, 1e30, 1e38] {
            for (low, high) in [(-huge, huge), (-huge, -huge / 2.0), (huge / 2.0, huge)] {
                let mut keys = [low; 21];
                for winner in [0, 7, 8, 15, 16, 20] {
                    keys[winner] = high;
                    let values: Vec<f32> = (1..=21).map(|value| value as f32).collect();
                    let got = one_number(level, &keys, &values);
                    assert_eq!(got, values[winner], "{low} and {high}");
                    keys[winner] = low;
                }
            }
        }
    }
}

#[test]
fn equal_scores_share_whatever_their_size() {
    for level in Level::all() {
        for score in [-3e38, -1e4, 0.0, 88.0, 3e38] {
            let got = one_number(level, &[score; 16], &[[1.0; 8], [3.0; 8]].concat());
            assert_eq!(got, 2.0, "{score}");
        }
    }
}

#[test]
fn a_weight_is_e_to_the_difference_of_scores() {
    // One position in two says 1, one says 0: e^x / (1 + e^x).
    for level in Level::all() {
        for step in 0..20_000 {
            let x = -87.3 * step as f32 / 20_000.0;
            let e = f64::from(x).exp();
            let got = one_number(level, &[0.0, x], &[0.0, 1.0]);
            near(got, e / (1.0 + e), 2.0 * 2.0 + 2.0, e).unwrap();
        }
    }
}
