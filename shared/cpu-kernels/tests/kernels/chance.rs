//! Numbers by chance, and how far a sum in f32 may be off.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

/// Half a unit of the last digit of an f32 in `[1, 2)`: what a rounding may add to each unit of a result.
pub(crate) const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;

/// The smallest f32 above zero: what a rounding may add to a result that has no digits left.
const TINY: f64 = 1.401_298_464_324_817e-45;

/// Tries `cases` values, the same ones each time; `seed` gives others.
pub(crate) fn for_each<S: Strategy>(
    cases: u32,
    seed: u8,
    values: &S,
    test: impl Fn(S::Value) -> TestCaseResult,
) where
    S::Value: Debug,
{
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(values, test)
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Roundings that a term of a sum of `n` goes through: 32 terms or more are added side by side, then the
/// partial sums to each other and the last few terms one by one.
pub(crate) fn roundings(n: usize) -> f64 {
    (n / 32 + 24) as f64
}

/// Fails unless `got` is as near to `want` as a sum of terms of that size (`Σ |term|`) has to be.
pub(crate) fn near(got: f32, want: f64, roundings: f64, size: f64) -> TestCaseResult {
    let error = (f64::from(got) - want).abs();
    let allowed = roundings * (ROUNDING * size + TINY);
    prop_assert!(
        error <= allowed,
        "{got} is not {want}: {error:e} > {allowed:e}"
    );
    Ok(())
}

/// Fails unless both have the same bits.
pub(crate) fn same_bits(got: &[f32], want: &[f32]) -> TestCaseResult {
    prop_assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        prop_assert!(
            got.to_bits() == want.to_bits(),
            "{got} is not {want} at {at}"
        );
    }
    Ok(())
}

/// The generator SplitMix64: proptest draws sizes and a seed, and thousands of numbers are drawn here,
/// which is faster.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n − 1`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Between −1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Numbers of very different sizes, 2⁻⁸ to 2⁸.
    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        let mut float = || self.unit() * 2_f32.powi(self.below(17) as i32 - 8);
        (0..n).map(|_| float()).collect()
    }

    /// Whole numbers from −8 to 8, which every type can hold, as it can their products and sums.
    pub(crate) fn whole(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.below(17) as f32 - 8.0).collect()
    }
}
