use mlx_rs::{fast, ops, random};

use super::*;
use crate::ffi::quantized::{Pieces, dequantize, quantize};
use crate::layers::{Mask, swiglu, to_f32};
use crate::weights::{Dense, QuantizedTriple};

const TYPES: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

fn normal(shape: &[i32], dtype: Dtype, seed: u64) -> Array {
    let key = random::key(seed).unwrap();
    let numbers = random::normal::<f32>(shape, None, None, &key).unwrap();
    numbers.as_dtype(dtype).unwrap()
}

/// The largest distance that two ways of rounding to the type of `a` may have.
fn assert_near(ours: &Array, mlx: &Array, adding_up: f32) {
    assert_eq!((ours.shape(), ours.dtype()), (mlx.shape(), mlx.dtype()));
    let rounding = match ours.dtype() {
        Dtype::Bfloat16 => 1.0 / 64.0,
        Dtype::Float16 => 1.0 / 512.0,
        _ => 2e-6,
    };
    let (ours, mlx) = (to_f32(ours).unwrap(), to_f32(mlx).unwrap());
    for (a, b) in ours.iter().zip(&mlx) {
        let allowed = rounding * b.abs() + adding_up * (1.0 + rounding * 64.0);
        assert!((a - b).abs() <= allowed, "{a} and {b}");
    }
}

fn packed(rows: i32, columns: i32, group_size: i32, bits: i32, dtype: Dtype) -> QuantizedTriple {
    let dense = normal(&[rows, columns], dtype, 3);
    let (weight, scales, biases) = ops::quantize(&dense, group_size, bits).unwrap();
    for array in [&weight, &scales, &biases] {
        array.eval().unwrap();
    }
    QuantizedTriple::affine(weight, scales, biases, group_size, bits)
}

/// The matrix as floats of f32, multiplied by MLX in f32.
fn by_mlx(x: &Array, dense: &Array) -> Array {
    let wide = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
    let y = ops::matmul(wide(x), wide(dense).t()).unwrap();
    y.as_dtype(x.dtype()).unwrap()
}

#[test]
fn a_product_with_any_matrix_is_mlxs_for_one_row_a_few_and_many() {
    if !is_on() {
        return;
    }
    for (dtype, rows) in TYPES
        .into_iter()
        .flat_map(|t| [1, 2, 32, 33, 70].map(|rows| (t, rows)))
    {
        let x = normal(&[1, rows, 192], dtype, 1);
        let weight = normal(&[70, 192], dtype, 2);
        let matrix = Matrix::Dense(Dense::new(weight.clone()).unwrap());
        let y = product(&x, &matrix, None).unwrap().unwrap();
        assert_near(&y, &by_mlx(&x, &weight), 1e-4);
        for bits in [2, 3, 4, 5, 6, 8] {
            let q = packed(70, 192, 64, bits, dtype);
            let wide = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
            let (scales, biases) = (wide(&q.scales), wide(q.biases.as_ref().unwrap()));
            let dense = ops::dequantize(&q.weight, scales, &biases, 64, bits).unwrap();
            let y = product(&x, &Matrix::Quantized(q), None).unwrap().unwrap();
            assert_near(&y, &by_mlx(&x, &dense), 1e-4);
        }
    }
}

/// A matrix of a float mode, and its numbers.
fn packed_as(mode: Mode, rows: i32, global_scale: Option<f32>) -> (Matrix, Array) {
    let group = mode.only_packing().unwrap();
    let (weight, scales, _) = quantize(&normal(&[rows, 192], Dtype::Float32, 2), group).unwrap();
    weight.eval().unwrap();
    scales.eval().unwrap();
    let pieces = Pieces {
        weight: &weight,
        scales: &scales,
        biases: None,
        group,
    };
    let global_scale = global_scale.map(Array::from_f32);
    let dense = dequantize(&pieces, global_scale.as_ref(), Some(Dtype::Float32)).unwrap();
    let q = QuantizedTriple {
        weight,
        scales,
        biases: None,
        global_scale,
        group_size: group.group_size as i32,
        bits: group.bits as i32,
        mode,
        dtype: Dtype::Float32,
    };
    (Matrix::Quantized(q), dense)
}

#[test]
fn a_product_with_a_matrix_of_a_float_mode_is_mlxs_with_few_rows_and_many() {
    if !is_on() {
        return;
    }
    for (mode, global_scale) in [
        (Mode::Mxfp4, None),
        (Mode::Mxfp8, None),
        (Mode::Nvfp4, None),
        (Mode::Nvfp4, Some(3.0)),
    ] {
        let (matrix, dense) = packed_as(mode, 70, global_scale);
        for (dtype, rows) in TYPES
            .into_iter()
            .flat_map(|t| [1, 32, 33, 70].map(|rows| (t, rows)))
        {
            let (x, bias) = (normal(&[1, rows, 192], dtype, 1), normal(&[70], dtype, 4));
            let Some(y) = product(&x, &matrix, Some(&bias)).unwrap() else {
                assert!(rows <= 32 && dtype == Dtype::Float32);
                assert!(mode == Mode::Mxfp8 || global_scale.is_some());
                continue;
            };
            let wide = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
            let sum = by_mlx(&wide(&x), &dense).add(wide(&bias)).unwrap();
            assert_near(&y, &sum.as_dtype(dtype).unwrap(), 1e-4);
        }
    }
}

#[test]
fn bytes_of_scales_stand_for_what_mlx_makes_of_them() {
    if !is_on() {
        return;
    }
    for (mode, halves) in [(Mode::Mxfp4, &HALF_POWERS), (Mode::Nvfp4, &HALF_FLOATS)] {
        let group = mode.only_packing().unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        let words = group.group_size * group.bits / 32;
        let pieces = Pieces {
            weight: &Array::from_slice(&vec![0x2222_2222_u32; 256 * words], &[256, words as i32]), // all 1
            scales: &Array::from_slice(&bytes, &[256, 1]),
            biases: None,
            group,
        };
        let ones = to_f32(&dequantize(&pieces, None, Some(Dtype::Float32)).unwrap()).unwrap();
        for ((byte, one), half) in bytes
            .iter()
            .zip(ones.chunks(group.group_size))
            .zip(halves.iter())
        {
            let same = one[0] == 2.0 * half || one[0].is_nan() && half.is_nan();
            assert!(same, "{mode:?}, byte {byte}: {} and {half}", one[0]);
        }
    }
}

#[test]
fn the_tiles_of_a_large_matrix_without_a_loop_stand_side_by_side() {
    if !is_on() {
        return;
    }
    let rows = 2 * (TILE / 4 / 192) as i32 + 5; // two whole tiles, and a third
    let (matrix, dense) = packed_as(Mode::Mxfp8, rows, None);
    let x = normal(&[3, 11, 192], Dtype::Float32, 1);
    let y = product(&x, &matrix, None).unwrap().unwrap();
    assert_near(&y, &by_mlx(&x, &dense), 1e-4);
}

#[test]
fn rows_of_another_width_are_an_error_with_a_matrix_of_a_float_mode() {
    let (matrix, _) = packed_as(Mode::Mxfp8, 70, None);
    if is_on() {
        for rows in [33, 66] {
            let x = normal(&[1, rows, 96], Dtype::Bfloat16, 1); // 66 · 96 = 33 · 192
            assert!(product(&x, &matrix, None).is_err(), "{rows} rows");
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    if !is_on() {
        return;
    }
    for dtype in TYPES {
        let x = normal(&[1, 7, 192], dtype, 1);
        for matrix in [
            Matrix::Dense(Dense::new(normal(&[33, 192], dtype, 2)).unwrap()),
            Matrix::Quantized(packed(33, 192, 32, 4, dtype)),
            packed_as(Mode::Mxfp4, 33, None).0,
            packed_as(Mode::Nvfp4, 33, None).0,
        ] {
            let all = to_f32(&product(&x, &matrix, None).unwrap().unwrap()).unwrap();
            for (row, all) in all.chunks(33).enumerate() {
                let row = row as i32;
                let row = ops::split_at_indices(&x, &[row, row + 1], 1)
                    .unwrap()
                    .remove(1);
                let alone = product(&row, &matrix, None).unwrap().unwrap();
                assert_eq!(to_f32(&alone).unwrap(), all);
            }
        }
    }
}

#[test]
fn a_bias_is_added_before_the_product_is_rounded() {
    if !is_on() {
        return;
    }
    for (dtype, rows) in [
        (Dtype::Float32, 3),
        (Dtype::Bfloat16, 3),
        (Dtype::Bfloat16, 40),
    ] {
        let (x, bias) = (normal(&[1, rows, 64], dtype, 1), normal(&[10], dtype, 4));
        let weight = normal(&[10, 64], dtype, 2);
        let matrix = Matrix::Dense(Dense::new(weight.clone()).unwrap());
        let y = product(&x, &matrix, Some(&bias)).unwrap().unwrap();
        let wide = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
        let sum = by_mlx(&wide(&x), &weight).add(wide(&bias)).unwrap();
        assert_near(&y, &sum.as_dtype(dtype).unwrap(), 1e-4);
    }
}

#[test]
fn a_view_with_strides_is_multiplied_as_its_numbers_stand() {
    if !is_on() {
        return;
    }
    let weight = normal(&[5, 6], Dtype::Float32, 2);
    let matrix = Matrix::Dense(Dense::new(weight.clone()).unwrap());
    let long = normal(&[1, 6, 9], Dtype::Float32, 1);
    let across = long.swap_axes(1, 2).unwrap(); // [1, 9, 6]
    let part = ops::split_at_indices(&across, &[2, 5], 1)
        .unwrap()
        .remove(1); // [1, 3, 6]
    for x in [across, part] {
        let y = product(&x, &matrix, None).unwrap().unwrap();
        assert_near(&y, &by_mlx(&x, &weight), 1e-5);
    }
}

#[test]
fn another_width_is_an_error() {
    let matrix = Matrix::Dense(Dense::new(normal(&[5, 6], Dtype::Float32, 2)).unwrap());
    if is_on() {
        assert!(product(&normal(&[1, 1, 7], Dtype::Float32, 1), &matrix, None).is_err());
    }
}

#[test]
fn rows_of_a_table_are_those_of_the_ids_and_no_others() {
    if !is_on() {
        return;
    }
    let ids = Array::from_slice(&[3_u32, 0, 3], &[1, 3]);
    for dtype in TYPES {
        let weight = normal(&[4, 64], dtype, 2);
        let table = Matrix::Dense(Dense::new(weight.clone()).unwrap());
        let y = rows(&table, &ids).unwrap().unwrap();
        assert_eq!(
            to_f32(&y).unwrap(),
            to_f32(&weight.take_axis(&ids, 0).unwrap()).unwrap()
        );
        assert!(rows(&table, &Array::from_slice(&[4_u32], &[1, 1])).is_err());
        let packed = Matrix::Quantized(packed(4, 64, 32, 4, dtype));
        assert!(rows(&packed, &ids).unwrap().is_none());
    }
}

#[test]
fn norm_sum_and_gate_are_mlxs() {
    for dtype in TYPES {
        let (a, b) = (normal(&[2, 3, 40], dtype, 1), normal(&[2, 3, 40], dtype, 2));
        let weight = normal(&[40], dtype, 3);
        if let Some(y) = norm(&a, &weight, 1e-5).unwrap() {
            assert_near(&y, &fast::rms_norm(&a, Some(&weight), 1e-5).unwrap(), 1e-5);
        }
        if let Some(y) = add(&a, &b).unwrap() {
            assert_near(&y, &a.add(&b).unwrap(), 0.0);
        }
        let silu = a.multiply(ops::sigmoid(&a).unwrap()).unwrap();
        assert_near(&swiglu(&a, &b).unwrap(), &silu.multiply(&b).unwrap(), 1e-2);
    }
}

#[test]
fn moving_numbers_on_the_host_moves_them_as_mlx_does() {
    let x = normal(&[1, 1, 12], Dtype::Float32, 1);
    x.eval().unwrap();
    let heads = crate::ops::reshape(&x, &[1, 1, -1, 4]).unwrap();
    assert_eq!(heads.shape(), [1, 1, 3, 4]);
    let first = crate::ops::transpose_axes(&heads, &[0, 2, 1, 3]).unwrap();
    assert_eq!(first.shape(), [1, 3, 1, 4]);
    assert_eq!(to_f32(&first).unwrap(), to_f32(&x).unwrap());
    let several = normal(&[1, 2, 3, 4], Dtype::Float32, 1);
    let ours = crate::ops::transpose_axes(&several, &[0, 2, 1, 3]).unwrap();
    let mlx = several.transpose_axes(&[0, 2, 1, 3]).unwrap();
    assert_eq!(to_f32(&ours).unwrap(), to_f32(&mlx).unwrap());
    assert!(crate::ops::reshape(&x, &[5, -1]).is_err());
    if let Some(pieces) = split(&x, &[4, 5]).unwrap() {
        let mlx = ops::split_at_indices(&x, &[4, 5], -1).unwrap();
        for (piece, mlx) in pieces.iter().zip(&mlx) {
            assert_eq!(piece.shape(), mlx.shape());
            assert_eq!(to_f32(piece).unwrap(), to_f32(mlx).unwrap());
        }
    }
}

#[test]
fn attention_over_a_view_into_a_longer_cache_is_mlxs() {
    for dtype in TYPES {
        for (l, mask) in [
            (1, Mask::None),
            (5, Mask::Causal),
            (40, Mask::Causal),
            (1, Mask::causal(1, 50, Some(8)).unwrap()),
            (5, Mask::causal(5, 50, Some(8)).unwrap()),
            (40, Mask::causal(40, 50, Some(8)).unwrap()),
            (1, Mask::rows(&[50, 7], None).unwrap()),
            (1, Mask::rows(&[7, 50], Some(9)).unwrap()),
        ] {
            let q = normal(&[2, 6, l, 16], dtype, 1);
            let room = normal(&[2, 3, 64, 16], dtype, 2);
            let k = ops::split_at_indices(&room, &[50], 2).unwrap().remove(0);
            let v = k.square().unwrap();
            let Some(y) = attention(&q, &k, &v, 0.25, &mask).unwrap() else {
                assert!(!is_on() || (l > 32 && dtype == Dtype::Float32));
                continue;
            };
            let wide = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
            let (q, k, v) = (wide(&q), wide(&k), wide(&v));
            let mlx = fast::scaled_dot_product_attention(q, k, v, 0.25, mask.as_sdpa(), None);
            assert_near(&y, &mlx.unwrap().as_dtype(dtype).unwrap(), 1e-4);
        }
    }
}

#[test]
fn a_row_of_attention_has_the_same_bits_alone_and_among_longer_ones() {
    if !is_on() {
        return;
    }
    let lengths = [1, 33, 64, 20];
    for (dtype, window) in TYPES
        .into_iter()
        .flat_map(|t| [None, Some(16)].map(|w| (t, w)))
    {
        let q = normal(&[4, 6, 1, 16], dtype, 1);
        let [k, v] = [2, 3].map(|seed| normal(&[4, 3, 64, 16], dtype, seed));
        let mask = Mask::rows(&lengths, window).unwrap();
        let all = attention(&q, &k, &v, 0.25, &mask).unwrap().unwrap();
        let all = to_f32(&all).unwrap();
        for (row, (length, all)) in (0..).zip(lengths.into_iter().zip(all.chunks(6 * 16))) {
            let own = |x: &Array, s| {
                let row = ops::split_at_indices(x, &[row, row + 1], 0)
                    .unwrap()
                    .remove(1);
                ops::split_at_indices(&row, &[s], 2).unwrap().remove(0)
            };
            let (q, k, v) = (own(&q, 1), own(&k, length), own(&v, length));
            let mask = Mask::causal(1, length, window).unwrap();
            let alone = attention(&q, &k, &v, 0.25, &mask).unwrap().unwrap();
            assert_eq!(to_f32(&alone).unwrap(), all);
        }
    }
}

#[test]
fn lengths_that_are_not_those_of_the_rows_are_an_error() {
    let q = normal(&[2, 6, 1, 16], Dtype::Float32, 1);
    let k = normal(&[2, 3, 9, 16], Dtype::Float32, 2);
    for lengths in [&[9, 10][..], &[9, 8, 7], &[9, 0]] {
        let mask = Mask::rows(lengths, None).unwrap();
        assert!(!is_on() || attention(&q, &k, &k, 0.25, &mask).is_err());
    }
}

#[test]
fn keys_that_are_stored_position_by_position_give_the_same_bits() {
    let q = normal(&[2, 6, 1, 16], Dtype::Float32, 1);
    let k = normal(&[2, 3, 9, 16], Dtype::Float32, 2);
    let across = k.swap_axes(1, 2).unwrap().contiguous().unwrap(); // [2, 9, 3, 16]
    across.eval().unwrap();
    let view = across.swap_axes(1, 2).unwrap();
    let attend = |k| attention(&q, k, k, 0.25, &Mask::None).unwrap();
    let both = [attend(&k), attend(&view)].map(|y| y.map(|y| to_f32(&y).unwrap()));
    assert_eq!(both[0].is_some(), is_on());
    assert_eq!(both[0], both[1]);
}
