//! MLX's quantization in all of its modes.
//!
//! mlx-rs has the same three operations, but only in affine mode.

use std::ffi::CString;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype, Stream};
use mlx_sys as sys;

use super::{SUCCESS, report_errors};
use crate::config::GroupQuantization;

/// A matrix in pieces, as MLX's operations take it.
#[derive(Debug, Clone, Copy)]
pub struct Pieces<'a> {
    /// Codes `[…, out, in·bits/32]`, u32.
    pub weight: &'a Array,
    /// `[…, out, in/G]`
    pub scales: &'a Array,
    /// `[…, out, in/G]`, in affine mode only.
    pub biases: Option<&'a Array>,
    /// How they were packed.
    pub group: GroupQuantization,
}

/// Packs `w` `[…, out, in]` → codes, scales and, in affine mode, biases.
///
/// # Errors
/// If G does not divide the last axis, or if MLX does not have the packing.
pub fn quantize(w: &Array, group: GroupQuantization) -> Result<(Array, Array, Option<Array>)> {
    report_errors()?;
    let (size, bits, mode) = parameters(group)?;
    let stream = Stream::thread_local_or_default();
    // SAFETY: the array, the name and the stream outlive the call; the vector is ours from its making to
    // its `free`, as is the empty array, which stands for none.
    unsafe {
        let mut parts = sys::mlx_vector_array_new();
        let none = sys::mlx_array_new();
        let status = sys::mlx_quantize(
            &mut parts,
            w.as_ptr(),
            size,
            bits,
            mode.as_ptr(),
            none,
            stream.as_ptr(),
        );
        sys::mlx_array_free(none);
        let arrays: Vec<Array> = (0..sys::mlx_vector_array_size(parts))
            .map(|index| {
                let mut part = sys::mlx_array_new();
                sys::mlx_vector_array_get(&mut part, parts, index);
                Array::from_ptr(part)
            })
            .collect();
        sys::mlx_vector_array_free(parts);
        let refused = || format!("MLX cannot pack {:?} as {group}", w.shape());
        ensure!(status == SUCCESS, refused());
        let mut arrays = arrays.into_iter();
        let (weight, scales) = arrays.next().zip(arrays.next()).with_context(refused)?;
        Ok((weight, scales, arrays.next()))
    }
}

/// The numbers of a packed matrix `[…, out, in]`, in `dtype`.
///
/// # Errors
/// If the pieces do not fit each other.
pub fn dequantize(
    pieces: &Pieces,
    global_scale: Option<&Array>,
    dtype: Option<Dtype>,
) -> Result<Array> {
    report_errors()?;
    let (size, bits, mode) = parameters(pieces.group)?;
    let stream = Stream::thread_local_or_default();
    let dtype = sys::mlx_optional_dtype {
        value: dtype.unwrap_or(Dtype::Float32).into(),
        has_value: dtype.is_some(),
    };
    // SAFETY: the arrays, the name and the stream outlive the call; the empty array, which stands for one
    // that is not there, is ours; `numbers` is a new array, which becomes the caller's.
    unsafe {
        let none = sys::mlx_array_new();
        let mut numbers = sys::mlx_array_new();
        let status = sys::mlx_dequantize(
            &mut numbers,
            pieces.weight.as_ptr(),
            pieces.scales.as_ptr(),
            pieces.biases.map_or(none, Array::as_ptr),
            size,
            bits,
            mode.as_ptr(),
            global_scale.map_or(none, Array::as_ptr),
            dtype,
            stream.as_ptr(),
        );
        sys::mlx_array_free(none);
        let numbers = Array::from_ptr(numbers);
        ensure!(
            status == SUCCESS,
            "MLX cannot unpack {:?} with scales {:?} as {}",
            pieces.weight.shape(),
            pieces.scales.shape(),
            pieces.group
        );
        Ok(numbers)
    }
}

/// `x Wᵀ`: x `[…, in]` → `[…, out]`, in the type of x, or in f32 if the scales are f32.
///
/// # Errors
/// If the pieces do not fit each other or x.
pub fn quantized_matmul(x: &Array, pieces: &Pieces) -> Result<Array> {
    report_errors()?;
    let (size, bits, mode) = parameters(pieces.group)?;
    let stream = Stream::thread_local_or_default();
    let transposed = true;
    // SAFETY: as in `dequantize`.
    unsafe {
        let none = sys::mlx_array_new();
        let mut product = sys::mlx_array_new();
        let status = sys::mlx_quantized_matmul(
            &mut product,
            x.as_ptr(),
            pieces.weight.as_ptr(),
            pieces.scales.as_ptr(),
            pieces.biases.map_or(none, Array::as_ptr),
            transposed,
            size,
            bits,
            mode.as_ptr(),
            stream.as_ptr(),
        );
        sys::mlx_array_free(none);
        let product = Array::from_ptr(product);
        ensure!(
            status == SUCCESS,
            "MLX cannot multiply {:?} with {:?} of {}",
            x.shape(),
            pieces.weight.shape(),
            pieces.group
        );
        Ok(product)
    }
}

fn parameters(
    group: GroupQuantization,
) -> Result<(sys::mlx_optional_int, sys::mlx_optional_int, CString)> {
    let some = |value: usize| {
        Ok::<_, std::num::TryFromIntError>(sys::mlx_optional_int {
            value: i32::try_from(value)?,
            has_value: true,
        })
    };
    let GroupQuantization {
        group_size,
        bits,
        mode,
    } = group;
    Ok((some(group_size)?, some(bits)?, CString::new(mode.name())?))
}

/// What [`QuantizedTriple::global_scale`](crate::weights::QuantizedTriple::global_scale) multiplies all
/// numbers with, divided by it: the largest code of nvfp4, 6, under its largest scale, 448.
pub const GLOBAL_SCALE: f32 = 6.0 * 448.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::layers::to_f32;
    use mlx_rs::{ops, random};

    fn normal(shape: &[i32]) -> Array {
        let key = random::key(7).unwrap();
        random::normal::<f32>(shape, None, None, &key).unwrap()
    }

    /// A packing of each mode, with the largest relative error that it may make.
    fn packings() -> [(GroupQuantization, f32); 5] {
        let only = |mode: Mode| mode.only_packing().unwrap();
        [
            (GroupQuantization::affine(64, 4), 0.2),
            (GroupQuantization::affine(32, 8), 0.02),
            (only(Mode::Mxfp4), 0.5),
            (only(Mode::Mxfp8), 0.15),
            (only(Mode::Nvfp4), 0.5),
        ]
    }

    #[test]
    fn what_is_packed_is_unpacked_and_multiplied_in_every_mode() {
        let (w, x) = (normal(&[8, 128]), normal(&[3, 128]));
        for (group, most) in packings() {
            let (weight, scales, biases) = quantize(&w, group).unwrap();
            assert_eq!(biases.is_some(), group.mode == Mode::Affine, "{group}");
            let pieces = Pieces {
                weight: &weight,
                scales: &scales,
                biases: biases.as_ref(),
                group,
            };
            let numbers = dequantize(&pieces, None, Some(Dtype::Float32)).unwrap();
            let pairs = to_f32(&w).unwrap().into_iter();
            for (w, packed) in pairs.zip(to_f32(&numbers).unwrap()) {
                assert!(
                    (w - packed).abs() <= most * w.abs().max(1.0),
                    "{group}: {packed}, not {w}"
                );
            }
            let exact = to_f32(&ops::matmul(&x, numbers.t()).unwrap()).unwrap();
            let ours = to_f32(&quantized_matmul(&x, &pieces).unwrap()).unwrap();
            for (ours, exact) in ours.iter().zip(exact) {
                assert!((ours - exact).abs() < 1e-4, "{group}: {ours}, not {exact}");
            }
        }
    }

    #[test]
    fn a_global_scale_is_that_of_the_largest_number() {
        let w = normal(&[2, 32]);
        let group = Mode::Nvfp4.only_packing().unwrap();
        let (weight, scales, _) = quantize(&w, group).unwrap();
        let pieces = Pieces {
            weight: &weight,
            scales: &scales,
            biases: None,
            group,
        };
        let numbers = |scale| to_f32(&dequantize(&pieces, scale, Some(Dtype::Float32)).unwrap());
        let plain = numbers(None).unwrap();
        let scaled = numbers(Some(&Array::from_f32(3.0))).unwrap();
        for (plain, scaled) in plain.iter().zip(scaled) {
            assert!((plain * 3.0 / GLOBAL_SCALE - scaled).abs() <= 1e-6 * plain.abs());
        }
    }

    #[test]
    fn what_mlx_cannot_pack_is_refused_in_one_line() {
        let seven = GroupQuantization::affine(64, 7);
        for (shape, group) in [
            (&[8, 100][..], GroupQuantization::affine(64, 4)),
            (&[8, 64], seven),
        ] {
            let error = format!("{:#}", quantize(&normal(shape), group).unwrap_err());
            assert!(
                error.contains("cannot pack") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}
