//! The packed words, scales and biases are those of MLX, bit for bit.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use std::collections::HashMap;

use mlx_rs::{Array, Device, DeviceType, Dtype, Stream, ops, with_stream};
use part4_quantization::quantize::{Grid, Rounding, pack, quantize, quantize_rows, unpack};
use proptest::prelude::*;
use shared::config::GroupQuantization;
use shared::testing::fixtures;

const TYPES: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];
const WIDTHS: [usize; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [usize; 3] = [32, 64, 128];

type Triple = (Array, Array, Array);

/// As integers, so that −0 is not 0.
fn bits_of(array: &Array) -> Vec<u32> {
    let word = match array.dtype() {
        Dtype::Float32 | Dtype::Uint32 => Dtype::Uint32,
        _ => Dtype::Uint16,
    };
    let words = array.view_dtype(word).unwrap();
    let words = words.as_dtype(Dtype::Uint32).unwrap();
    words.eval().unwrap();
    words.try_as_slice::<u32>().unwrap().to_vec()
}

fn assert_same(ours: &Triple, theirs: &Triple, what: &str) {
    for (part, a, b) in [
        ("words", &ours.0, &theirs.0),
        ("scales", &ours.1, &theirs.1),
        ("biases", &ours.2, &theirs.2),
    ] {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "{what}");
        assert_eq!(bits_of(a), bits_of(b), "{part} of {what}");
    }
}

fn by_mlx(weight: &Array, group: GroupQuantization) -> Triple {
    ops::quantize(weight, group.group_size as i32, group.bits as i32).unwrap()
}

fn on_cpu<T>(work: impl FnOnce() -> T) -> T {
    with_stream(&Stream::new_with_device(&Device::cpu()), work)
}

#[test]
fn hard_rows_are_packed_as_python_packs_them_and_as_the_formula_of_the_gpu_says() {
    let path = fixtures::directory().join("ops/affine.safetensors");
    let tensors: HashMap<String, Array> = Array::load_safetensors(path).unwrap();
    let mut settings = 0;
    for name in tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".words"))
    {
        let [kind, setting, device] = name.split('.').collect::<Vec<_>>()[..] else {
            panic!("{name}");
        };
        let (bits, group_size) = setting[1..].split_once('g').unwrap();
        let group = GroupQuantization::affine(group_size.parse().unwrap(), bits.parse().unwrap());
        let rounding = if device == "cpu" {
            Rounding::Cpu
        } else {
            Rounding::Gpu
        };
        let weight = &tensors[&format!("{kind}.w")];
        let part = |part: &str| tensors[&format!("{name}.{part}")].clone();
        let theirs = (part("words"), part("scales"), part("biases"));
        let ours = quantize(weight, group, rounding).unwrap();
        assert_same(&ours, &theirs, name);
        settings += 1;
    }
    assert_eq!(settings, 3 * 7 * 2);
}

/// A group of one of the kinds that are special.
fn hard_group() -> impl Strategy<Value = Vec<f32>> {
    let many = |value: BoxedStrategy<f32>| prop::collection::vec(value, 128).boxed();
    let normal = || (-4.0_f32..4.0).boxed();
    let spread = (1_u32..20).prop_flat_map(move |by| {
        let by = 0.5_f32.powi(by as i32 * 7);
        many((-4.0_f32..4.0).prop_map(move |x| x * by).boxed())
    });
    let outlier = (many(normal()), 0_usize..128, -6e4_f32..6e4);
    prop_oneof![
        many(normal()),
        many(Just(0.0).boxed()),
        normal().prop_map(|value| vec![value; 128]),
        many((-9.0_f32..-8.0).boxed()),
        many((0.1_f32..9.0).boxed()),
        many((-30_i32..31).prop_map(|n| n as f32 / 4.0).boxed()),
        many((-1_i32..2).prop_map(|n| n as f32).boxed()),
        many(any::<u16>().prop_map(|n| f32::from_bits(n.into())).boxed()),
        many((-40_i32..41).prop_map(|n| n as f32 * 6e-8).boxed()),
        many(prop_oneof![Just(-0.0_f32), Just(0.0)].boxed()),
        spread,
        outlier.prop_map(|(mut values, at, value)| {
            values[at] = value;
            values
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_matrix_is_packed_as_mlx_packs_it_on_a_cpu(
        rows in prop::collection::vec(hard_group(), 1..4),
        bits in prop::sample::select(&WIDTHS[..]),
        group_size in prop::sample::select(&GROUPS[..]),
        dtype in prop::sample::select(&TYPES[..]),
    ) {
        let weight = Array::from_slice(&rows.concat(), &[rows.len() as i32, 128]);
        let weight = weight.as_dtype(dtype).unwrap();
        let group = GroupQuantization::affine(group_size, bits);
        let theirs = on_cpu(|| by_mlx(&weight, group));
        let ours = quantize(&weight, group, Rounding::Cpu).unwrap();
        assert_same(&ours, &theirs, &format!("{dtype:?} {group:?}"));
    }

    /// On a machine without a GPU there is nothing to compare.
    #[test]
    fn any_matrix_is_packed_as_mlx_packs_it_on_this_gpu(
        rows in prop::collection::vec(hard_group(), 1..4),
        bits in prop::sample::select(&WIDTHS[..]),
        group_size in prop::sample::select(&GROUPS[..]),
        dtype in prop::sample::select(&TYPES[..]),
    ) {
        let device = Device::try_default().unwrap().get_type().unwrap();
        if matches!(device, DeviceType::Gpu) {
            let weight = Array::from_slice(&rows.concat(), &[rows.len() as i32, 128]);
            let weight = weight.as_dtype(dtype).unwrap();
            let group = GroupQuantization::affine(group_size, bits);
            let ours = quantize(&weight, group, Rounding::Gpu).unwrap();
            assert_same(&ours, &by_mlx(&weight, group), &format!("{dtype:?} {group:?}"));
        }
    }

    #[test]
    fn codes_come_back_out_of_their_words(
        bits in prop::sample::select(&WIDTHS[..]),
        seeds in prop::collection::vec(any::<u32>(), 32),
    ) {
        let codes: Vec<u32> = seeds.iter().map(|seed| seed % (1 << bits)).collect();
        let mut words = vec![0; bits];
        pack(codes.iter().copied(), bits, &mut words);
        prop_assert_eq!(unpack(&words, bits).collect::<Vec<_>>(), codes);
    }

    #[test]
    fn the_edge_and_zero_are_exact_and_nothing_else_is_off_by_more_than_a_step(
        values in prop::collection::vec(-4.0_f32..4.0, 64),
        bits in prop::sample::select(&WIDTHS[..]),
    ) {
        let grid = Grid::of(&values, bits, Rounding::Cpu);
        let largest = values.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
        prop_assert_eq!(grid.value(grid.code(largest)), largest);
        let tiny = 1e-5 * largest.abs();
        prop_assert!(grid.value(grid.code(0.0)).abs() <= tiny);
        for value in values {
            let error = (grid.value(grid.code(value)) - value).abs();
            prop_assert!(error <= grid.scale.abs() + tiny, "{} off by {}", value, error);
        }
    }
}

#[test]
fn what_no_grid_can_hold_is_refused_with_its_place() {
    let group = GroupQuantization::affine(32, 4);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3e38] {
        let mut values = vec![0.5; 3 * 64];
        values[64 + 40] = value;
        let error = quantize_rows(&values, 64, group, Rounding::Cpu).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("row 1, column 40 is "), "{error}");
    }
    let error = quantize_rows(&[0.0; 48], 48, group, Rounding::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "groups of 32 do not divide rows of 48");
}
