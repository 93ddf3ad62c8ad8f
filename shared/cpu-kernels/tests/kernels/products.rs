//! Rows times a matrix of every kind.

use cpu_kernels::{Level, product};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::chance::{Chance, for_each, near, roundings, same_bits};
use crate::matrices::{Example, Kind};

/// A product to try: x `[M, K]` with a matrix `[N, K]`.
struct Case {
    x: Vec<f32>,
    matrix: Example,
    m: usize,
    n: usize,
    k: usize,
    chance: Chance,
}

impl Case {
    fn product(&self, level: Level) -> Vec<f32> {
        product(level, &self.x, &self.matrix.rows(0..self.n))
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.x[row * self.k..][..self.k]
    }
}

/// Tries products of every kind and of odd sizes on all levels.
fn for_each_product(
    draw: fn(&mut Chance, usize) -> Vec<f32>,
    test: impl Fn(&mut Case, Level) -> TestCaseResult,
) {
    for (seed, kind) in Kind::all().into_iter().enumerate() {
        let sizes = (1..=100_usize, 1..=130_usize, 1..=400_usize, any::<u64>());
        for_each(8, seed as u8, &sizes, |(m, n, k, seed)| {
            let (k, mut chance) = (kind.columns(k), Chance(seed));
            let mut case = Case {
                x: draw(&mut chance, m * k),
                matrix: Example::new(kind, n, k, &mut chance, draw),
                m,
                n,
                k,
                chance,
            };
            Level::all().try_for_each(|level| test(&mut case, level))
        });
    }
}

#[test]
fn a_product_is_off_by_a_few_roundings_of_its_terms() {
    for_each_product(Chance::floats, |case, level| {
        let y = case.product(level);
        prop_assert_eq!(y.len(), case.m * case.n);
        for (at, y) in y.into_iter().enumerate() {
            let (want, size) = case.matrix.dot(at % case.n, case.row(at / case.n));
            near(y, want, roundings(case.k), size)?;
        }
        Ok(())
    });
}

#[test]
fn a_product_of_whole_numbers_is_exact() {
    for_each_product(Chance::whole, |case, level| {
        for (at, y) in case.product(level).into_iter().enumerate() {
            let (want, size) = case.matrix.dot(at % case.n, case.row(at / case.n));
            prop_assert!(
                size < f64::from(1 << 24),
                "the test's own sums are too large"
            );
            prop_assert_eq!(f64::from(y), want);
        }
        Ok(())
    });
}

#[test]
fn a_row_gives_the_same_bits_alone_and_in_a_batch_of_any_size() {
    for_each_product(Chance::floats, |case, level| {
        let y = case.product(level);
        let matrix = case.matrix.rows(0..case.n);
        for (row, y) in y.chunks_exact(case.n).enumerate() {
            same_bits(y, &product(level, case.row(row), &matrix))?;
        }
        let first = case.chance.below(case.m);
        let last = first + 1 + case.chance.below(case.m - first);
        let some = product(level, &case.x[first * case.k..last * case.k], &matrix);
        same_bits(&some, &y[first * case.n..last * case.n])
    });
}

#[test]
fn a_row_of_the_matrix_gives_the_same_bits_alone_and_in_any_piece() {
    for_each_product(Chance::floats, |case, level| {
        let y = case.product(level);
        let cut = case.chance.below(case.n);
        for rows in [0..cut, cut..cut + 1, cut..case.n] {
            let part = product(level, &case.x, &case.matrix.rows(rows.clone()));
            let want = y.chunks_exact(case.n).flat_map(|y| &y[rows.clone()]);
            same_bits(&part, &want.copied().collect::<Vec<_>>())?;
        }
        Ok(())
    });
}

#[test]
fn infinity_or_nan_in_a_row_is_seen_there_and_in_no_other_row() {
    for_each_product(Chance::floats, |case, level| {
        let sound = case.product(level);
        let (at, bad) = (case.chance.below(case.x.len()), case.chance.below(3));
        let before = std::mem::replace(
            &mut case.x[at],
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][bad],
        );
        let y = case.product(level);
        case.x[at] = before;
        for (row, (y, sound)) in y.chunks_exact(case.n).zip(sound.chunks(case.n)).enumerate() {
            if row == at / case.k {
                prop_assert!(y.iter().all(|y| !y.is_finite()), "{y:?}");
            } else {
                same_bits(y, sound)?;
            }
        }
        Ok(())
    });
}
