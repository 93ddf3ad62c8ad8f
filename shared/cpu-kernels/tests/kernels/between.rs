//! What stands between two products.

use cpu_kernels::{Float, Level, Turn, add, log_sum_and_best, norm, rotate, swiglu};
use half::{bf16, f16};
use proptest::prelude::*;

use crate::chance::{Chance, for_each, near, roundings, same_bits};

/// Units of the last digit that `e^x` is off by, and what the quotient around it adds.
const SWIGLU_ROUNDINGS: f64 = 2.0 + 4.0;

/// Below it no `e^x` is smaller, and what is above its negative is infinite.
const LOWEST: f64 = -87.3;

#[test]
fn a_sum_is_that_of_each_pair_of_numbers() {
    for_each(200, 0, &(0..=100_usize, any::<u64>()), |(n, seed)| {
        let mut chance = Chance(seed);
        let (a, b) = (chance.floats(n), chance.floats(n));
        let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        for level in Level::all() {
            let mut sum = a.clone();
            add(level, &mut sum, &b);
            same_bits(&sum, &want)?;
        }
        Ok(())
    });
}

#[test]
fn each_row_is_divided_by_its_root_mean_square() {
    let sizes = (1..=5_usize, 1..=700_usize, -20..=20, any::<u64>());
    for_each(300, 1, &sizes, |(rows, width, power, seed)| {
        let (mut chance, eps) = (Chance(seed), 1e-5_f32);
        let weight = chance.floats(width);
        let mut x = chance.floats(rows * width);
        x.iter_mut().for_each(|x| *x *= 2_f32.powi(power));
        for level in Level::all() {
            let mut y = x.clone();
            norm(level, &mut y, &weight, eps);
            for (x, y) in x.chunks(width).zip(y.chunks(width)) {
                let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                let root = (squares / width as f64 + f64::from(eps)).sqrt();
                for ((x, y), weight) in x.iter().zip(y).zip(&weight) {
                    let want = f64::from(*x) / root * f64::from(*weight);
                    near(*y, want, roundings(width), want.abs())?;
                }
                let mut alone = x.to_vec();
                norm(level, &mut alone, &weight, eps);
                same_bits(&alone, y)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_row_of_zeros_stays_one() {
    for level in Level::all() {
        let mut x = [0.0; 19];
        norm(level, &mut x, &[3.0; 19], 1e-6);
        assert_eq!(x, [0.0; 19]);
    }
}

/// `gate / (1 + e^−gate)`
fn silu(gate: f32) -> f64 {
    f64::from(gate) / (1.0 + (-f64::from(gate)).exp())
}

#[test]
fn the_gate_is_its_formula_wherever_e_to_the_x_is_a_number() {
    let sizes = (0..=200_usize, -10..=7, any::<u64>());
    for_each(500, 2, &sizes, |(n, power, seed)| {
        let mut chance = Chance(seed);
        let up = chance.floats(n);
        let gate: Vec<f32> = (0..n).map(|_| chance.unit() * 2_f32.powi(power)).collect();
        for level in Level::all() {
            let mut y = gate.clone();
            swiglu(level, &mut y, &up);
            for ((y, gate), up) in y.iter().zip(&gate).zip(&up) {
                let want = silu(*gate) * f64::from(*up);
                // Where e^−gate is infinite, the result is 0 instead of less than this.
                let lost = if f64::from(*gate) < LOWEST {
                    1e-35
                } else {
                    0.0
                };
                let error = (f64::from(*y) - want).abs() - lost * f64::from(up.abs());
                let (error, want) = (error.max(0.0) as f32, want.abs());
                near(error, 0.0, SWIGLU_ROUNDINGS, want)?;
            }
        }
        Ok(())
    });
}

#[test]
fn gates_of_any_size_are_open_or_shut() {
    let gates = [100.0, 1e5, 1e20, 1e38, f32::MAX];
    for level in Level::all() {
        for gate in gates {
            let mut both = [gate, -gate];
            swiglu(level, &mut both, &[0.5, 0.5]);
            assert_eq!(both, [gate / 2.0, 0.0]);
        }
        let mut odd = [f32::INFINITY, f32::NAN, 1.0];
        swiglu(level, &mut odd, &[1.0, 1.0, f32::NAN]);
        assert!(odd[0] == f32::INFINITY && odd[1].is_nan() && odd[2].is_nan());
    }
}

/// Numbers from `low` to `high`, the same ones each time.
fn through(low: f32, high: f32) -> Vec<f32> {
    let mut chance = Chance(3);
    let width = high - low;
    let mut numbers: Vec<f32> = (0..200_000)
        .map(|step| low + width * (step as f32 + 0.5 * chance.unit()) / 200_000.0)
        .filter(|number| (low..=high).contains(number))
        .collect();
    numbers.extend([low, high]);
    numbers
}

#[test]
fn e_to_the_x_is_off_by_one_unit_of_the_last_digit() {
    // From 2²⁵ on, 1 + e^x is e^x, and what is left is one division.
    let x = through(17.4, 88.37);
    for level in Level::all() {
        let mut y: Vec<f32> = x.iter().map(|x| -x).collect();
        // So that no result is too small for all its digits.
        swiglu(level, &mut y, &vec![-(2_f32.powi(64)); x.len()]);
        for (x, y) in x.iter().zip(y) {
            let e = f64::from(*x) * 2_f64.powi(64) / f64::from(y);
            let want = f64::from(*x).exp();
            let unit = 2_f64.powi(want.log2().floor() as i32 - 23);
            let division = 0.5 * want * f64::from(f32::EPSILON) / unit;
            let units = (e - want).abs() / unit;
            assert!(
                units <= 1.0 + division,
                "e^{x}: {e} is {units} units from {want}"
            );
        }
    }
}

#[test]
fn a_head_is_turned_pair_by_pair_and_its_rest_stays() {
    let sizes = (0..=40_usize, 0..=20_usize, any::<bool>(), any::<u64>());
    for_each(500, 4, &sizes, |(pairs, rest, neighbours, seed)| {
        let mut chance = Chance(seed);
        let angles: Vec<f32> = (0..pairs).map(|_| chance.unit() * 100.0).collect();
        let (sin, cos) = angles.iter().map(|angle| angle.sin_cos()).unzip();
        let turn = Turn { cos, sin };
        let before = chance.floats(2 * pairs + rest);
        let mut head = before.clone();
        rotate(&mut head, &turn, neighbours);
        for pair in 0..pairs {
            let at = if neighbours { 2 * pair } else { pair };
            let other = if neighbours { at + 1 } else { at + pairs };
            let (a, b) = (f64::from(before[at]), f64::from(before[other]));
            let (cos, sin) = (f64::from(turn.cos[pair]), f64::from(turn.sin[pair]));
            let size = |p: f64, q: f64| p.abs() + q.abs();
            near(head[at], a * cos - b * sin, 2.0, size(a * cos, b * sin))?;
            near(head[other], a * sin + b * cos, 2.0, size(a * sin, b * cos))?;
        }
        same_bits(&head[2 * pairs..], &before[2 * pairs..])
    });
}

/// Scores as a model gives them, and worse ones.
fn scores(chance: &mut Chance, n: usize) -> Vec<f32> {
    let spread = [0.1, 8.0, 200.0][chance.below(3)];
    let mut scores: Vec<f32> = chance.floats(n).iter().map(|x| spread * x).collect();
    for _ in 0..chance.below(4) {
        scores[chance.below(n)] = f32::NEG_INFINITY;
    }
    scores
}

#[test]
fn the_likeliest_score_is_that_of_the_rounded_log_probabilities() {
    for_each(200, 7, &(1..=300_usize, any::<u64>()), |(n, seed)| {
        let mut chance = Chance(seed);
        let wide = scores(&mut chance, n);
        for float in [Float::F32, Float::Bf16, Float::F16] {
            let round = |x: f32| match float {
                Float::F32 => x,
                Float::Bf16 => bf16::from_f32(x).to_f32(),
                Float::F16 => f16::from_f32(x).to_f32(),
            };
            let x: Vec<f32> = wide.iter().map(|x| round(*x)).collect();
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if largest == f32::NEG_INFINITY {
                continue;
            }
            let wide = |x: &f32| f64::from(*x);
            let sum: f64 = x.iter().map(|x| (wide(x) - wide(&largest)).exp()).sum();
            let want = wide(&largest) + sum.ln();
            for level in Level::all() {
                let (total, best) = log_sum_and_best(level, &x, float);
                let digits = [2e-7, 4e-3, 5e-4][float as usize];
                prop_assert!(
                    (f64::from(total) - want).abs()
                        <= digits * (wide(&largest).abs() + want.abs() + 1.0)
                );
                let rounded: Vec<f32> = x.iter().map(|x| round(x - total)).collect();
                let largest = rounded.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(Some(best), rounded.iter().position(|x| *x == largest));
            }
        }
        Ok(())
    });
}

#[test]
fn scores_that_are_no_numbers_show_in_the_sum() {
    for bad in [f32::NAN, f32::INFINITY] {
        for at in [0, 5, 20] {
            let mut x = vec![1.0; 21];
            x[at] = bad;
            for level in Level::all() {
                assert!(!log_sum_and_best(level, &x, Float::F32).0.is_finite());
            }
        }
    }
    let none = [f32::NEG_INFINITY; 9];
    assert!(
        !log_sum_and_best(Level::best(), &none, Float::F32)
            .0
            .is_finite()
    );
}
