//! The 16-bit types, against the crate `half`.

use cpu_kernels::{Floats, Level, to_bf16, to_f16};
use half::{bf16, f16};

use crate::chance::{Chance, same_bits};
use crate::matrices::{FLOATS, Stored};

fn every_bf16() -> Vec<bf16> {
    (0..=u16::MAX).map(bf16::from_bits).collect()
}

fn every_f16() -> Vec<f16> {
    (0..=u16::MAX).map(f16::from_bits).collect()
}

/// Fails unless the numbers are the same, bit for bit but for the payload of a NaN.
fn same_numbers(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (bits, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "{bits:#06x}: {got} is not {want}");
    }
}

/// Widens in all the ways that the crate has.
fn widen_everywhere(floats: Floats<'_>, want: &[f32]) {
    same_numbers(&floats.to_f32(), want);
    for level in Level::all() {
        let mut wide = vec![1.0; want.len()];
        floats.widen(level, 0, &mut wide);
        same_numbers(&wide, want);
    }
}

#[test]
fn every_bf16_is_widened_to_the_same_number() {
    let numbers = every_bf16();
    let want: Vec<f32> = numbers.iter().map(|number| number.to_f32()).collect();
    widen_everywhere(Floats::Bf16(&numbers), &want);
}

#[test]
fn every_f16_is_widened_to_the_same_number() {
    let numbers = every_f16();
    let want: Vec<f32> = numbers.iter().map(|number| number.to_f32()).collect();
    widen_everywhere(Floats::F16(&numbers), &want);
}

#[test]
fn any_count_of_numbers_is_widened() {
    let values = Chance(1).floats(70);
    for float in FLOATS {
        let stored = Stored::new(&values, float);
        for n in 0..=values.len() {
            let floats = stored.view(0..n);
            let want: Vec<f32> = (0..n).map(|at| stored.at(at)).collect();
            same_bits(&floats.to_f32(), &want).unwrap();
            assert_eq!((floats.len(), floats.is_empty()), (n, n == 0));
            assert_eq!(floats.float(), float);
        }
    }
}

/// Numbers around every boundary of a type whose numbers are `all`: each number, the middle between it
/// and the next one, and the f32 on both sides of the middle.
fn hard(all: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut numbers: Vec<f32> = all.filter(|number| number.is_finite()).collect();
    numbers.sort_by(f32::total_cmp);
    let middles: Vec<f32> = numbers
        .windows(2)
        .map(|pair| pair[0] / 2.0 + pair[1] / 2.0)
        .collect();
    let beside = middles
        .iter()
        .flat_map(|m| [m.next_down(), *m, m.next_up()]);
    numbers.extend(beside);
    numbers
}

/// Numbers of any bits, and the ends of f32.
fn others() -> Vec<f32> {
    let mut chance = Chance(2);
    let mut numbers: Vec<f32> = (0..300_000)
        .map(|_| f32::from_bits(chance.bits() as u32))
        .collect();
    // Around the first number that an f16 cannot hold, and the middle between the last two bf16.
    for edge in [
        65504.0,
        65519.996,
        65520.0,
        65536.0,
        f32::from_bits(0x7f7f_8000),
    ] {
        numbers.extend([edge, edge.next_down(), edge.next_up()]);
    }
    // With the payload in the lower half only, which rounding must not lose.
    numbers.extend([0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff].map(f32::from_bits));
    numbers.extend([
        f32::MAX,
        f32::INFINITY,
        0.0,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
    ]);
    let negative: Vec<f32> = numbers.iter().map(|number| -number).collect();
    numbers.extend(negative);
    numbers
}

#[test]
fn rounding_to_bf16_is_to_the_nearest_and_ties_are_to_even() {
    let mut values = hard(every_bf16().into_iter().map(bf16::to_f32));
    values.extend(others());
    for (value, got) in values.iter().zip(to_bf16(&values)) {
        let want = bf16::from_f32(*value);
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "{value:e}: {got} is not {want}");
        assert_eq!(got.is_nan(), value.is_nan());
    }
}

#[test]
fn rounding_to_f16_is_to_the_nearest_and_ties_are_to_even() {
    let mut values = hard(every_f16().into_iter().map(f16::to_f32));
    values.extend(others());
    for (value, got) in values.iter().zip(to_f16(&values)) {
        // The one that is computed without the instruction for it.
        let want = f16::from_f32_const(*value);
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "{value:e}: {got} is not {want}");
        assert_eq!(got.is_nan(), value.is_nan());
    }
}
