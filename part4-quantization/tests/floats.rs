//! The float modes: MLX's codes, and scales that are never worse than MLX's.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use mlx_rs::{Array, Device, Dtype, Stream, random, with_stream};
use part4_quantization::floats::{Fit, Floats, quantize};
use part4_quantization::quantize::{pack, unpack};
use proptest::prelude::*;
use shared::config::{GroupQuantization, Mode};
use shared::ffi::quantized::{Pieces, dequantize};
use shared::layers::to_f32;

fn groups() -> [GroupQuantization; 3] {
    [Mode::Mxfp4, Mode::Mxfp8, Mode::Nvfp4].map(|mode| mode.only_packing().unwrap())
}

/// MLX packs with one recipe on a CPU and with another on a GPU, where there is a −0.
fn on_cpu<T>(work: impl FnOnce() -> T) -> T {
    with_stream(&Stream::new_with_device(&Device::cpu()), work)
}

fn normal(rows: i32) -> Array {
    let key = random::key(7).unwrap();
    let values = random::normal::<f32>(&[rows, 128], None, None, &key).unwrap();
    values.multiply(Array::from_f32(0.05)).unwrap()
}

fn words(array: &Array) -> Vec<u32> {
    array.eval().unwrap();
    array.try_as_slice::<u32>().unwrap().to_vec()
}

fn bytes(array: &Array) -> Vec<u8> {
    array.eval().unwrap();
    array.try_as_slice::<u8>().unwrap().to_vec()
}

fn numbers(packed: &(Array, Array), group: GroupQuantization) -> Vec<f32> {
    let pieces = Pieces {
        weight: &packed.0,
        scales: &packed.1,
        biases: None,
        group,
    };
    to_f32(&dequantize(&pieces, None, Some(Dtype::Float32)).unwrap()).unwrap()
}

/// The squared error of each group.
fn errors(values: &[f32], numbers: &[f32], group: GroupQuantization) -> Vec<f64> {
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let error = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(square).sum();
    let size = group.group_size;
    values
        .chunks(size)
        .zip(numbers.chunks(size))
        .map(error)
        .collect()
}

#[test]
fn codes_under_mlxs_scales_are_mlxs_and_stand_for_its_numbers() {
    let weight = normal(40);
    let values = to_f32(&weight).unwrap();
    for group in groups() {
        let floats = Floats::of(group).unwrap();
        let mlx = on_cpu(|| quantize(&weight, group, Fit::Mlx)).unwrap();
        let (theirs, scales) = (words(&mlx.0), bytes(&mlx.1));
        let (size, n) = (group.group_size, group.group_size * group.bits / 32);
        let unpacked = numbers(&mlx, group);
        for (index, scale) in scales.into_iter().enumerate() {
            let values = &values[index * size..][..size];
            let mut ours = vec![0; n];
            pack(floats.codes(values, scale), group.bits, &mut ours);
            let theirs = &theirs[index * n..][..n];
            assert_eq!(ours, theirs, "{group}, group {index}");
            let codes = unpack(theirs, group.bits);
            let numbers: Vec<f32> = floats.numbers(codes, scale).collect();
            assert_eq!(numbers, unpacked[index * size..][..size], "{group}");
        }
    }
}

#[test]
fn no_other_power_of_two_fits_normal_weights_better() {
    let values = to_f32(&normal(8)).unwrap();
    for mode in [Mode::Mxfp4, Mode::Mxfp8] {
        let group = mode.only_packing().unwrap();
        let floats = Floats::of(group).unwrap();
        let best = on_cpu(|| quantize(&normal(8), group, Fit::Best)).unwrap();
        for (index, scale) in bytes(&best.1).into_iter().enumerate() {
            let values = &values[index * 32..][..32];
            let error = |scale: u8| {
                let numbers: Vec<f32> =
                    floats.numbers(floats.codes(values, scale), scale).collect();
                errors(values, &numbers, group)[0]
            };
            for other in 100..140 {
                assert!(error(scale) <= error(other), "{group}: {scale}, {other}");
            }
        }
    }
}

/// A group of 32 of some kind, in steps that a float mode often hits half way.
fn group_of_32() -> impl Strategy<Value = Vec<f32>> {
    let many = |value: BoxedStrategy<f32>| prop::collection::vec(value, 32).boxed();
    prop_oneof![
        many((-4.0_f32..4.0).boxed()),
        many((-24_i32..25).prop_map(|n| n as f32 / 4.0).boxed()),
        many(Just(0.0).boxed()),
        many(Just(-0.3).boxed()),
        many((-1e-5_f32..1e-5).boxed()),
        (many((-0.1_f32..0.1).boxed()), 0_usize..32, -400_f32..400.0).prop_map(
            |(mut values, at, value)| {
                values[at] = value;
                values
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_best_scale_is_never_worse_than_mlxs(
        rows in prop::collection::vec(group_of_32(), 1..6),
        mode in prop::sample::select(&[Mode::Mxfp4, Mode::Mxfp8, Mode::Nvfp4][..]),
    ) {
        let group = mode.only_packing().unwrap();
        let values = rows.concat();
        let weight = Array::from_slice(&values, &[rows.len() as i32, 32]);
        let errors = |fit| {
            let packed = on_cpu(|| quantize(&weight, group, fit)).unwrap();
            errors(&values, &numbers(&packed, group), group)
        };
        for (best, mlx) in errors(Fit::Best).into_iter().zip(errors(Fit::Mlx)) {
            prop_assert!(best <= mlx * (1.0 + 1e-6), "{} and {}", best, mlx);
        }
    }
}

/// Of normal weights. With 8 bits the rounded scale clips nothing that matters.
#[test]
fn the_best_scale_takes_a_part_of_the_error_away_with_4_bits() {
    let weight = normal(400);
    let values = to_f32(&weight).unwrap();
    for (group, at_most) in groups().into_iter().zip([0.93, 1.0, 0.97]) {
        let error = |fit| {
            let packed = quantize(&weight, group, fit).unwrap();
            errors(&values, &numbers(&packed, group), group)
                .iter()
                .sum::<f64>()
        };
        let share = error(Fit::Best) / error(Fit::Mlx);
        println!("{group}: {share}");
        assert!(share <= at_most, "{group}: {share}");
    }
}

#[test]
fn what_no_float_can_stand_for_is_refused_with_its_place() {
    for (group, value, says) in [
        (groups()[0], f32::NAN, "row 1, column 40 is NaN"),
        (groups()[1], f32::INFINITY, "row 1, column 40 is inf"),
        (
            groups()[2],
            -2689.0,
            "row 1, column 40 is -2689, and nvfp4 ends at 2688",
        ),
    ] {
        let mut values = vec![0.5; 3 * 64];
        values[64 + 40] = value;
        let weight = Array::from_slice(&values, &[3, 64]);
        let error = quantize(&weight, group, Fit::Mlx).unwrap_err().to_string();
        assert!(error.starts_with(says), "{error}");
    }
    let narrow = Array::zeros::<f32>(&[2, 48]).unwrap();
    let error = quantize(&narrow, groups()[0], Fit::Best).unwrap_err();
    assert_eq!(error.to_string(), "groups of 32 do not divide rows of 48");
}
