//! Arrays to numbers and back.

use anyhow::Result;
use cpu_kernels::{Float, Floats, to_bf16, to_f16};
use half::{bf16, f16};
use mlx_rs::{Array, Dtype};

/// The type, if it is a float.
pub(super) fn float(dtype: Dtype) -> Option<Float> {
    match dtype {
        Dtype::Float32 => Some(Float::F32),
        Dtype::Bfloat16 => Some(Float::Bf16),
        Dtype::Float16 => Some(Float::F16),
        _ => None,
    }
}

pub(super) fn is_float(array: &Array) -> bool {
    float(array.dtype()).is_some()
}

/// The numbers where MLX keeps them, of an array that is stored row after row; None if it is of another
/// type. An array that was only described is evaluated.
pub(super) fn floats(array: &Array) -> Result<Option<Floats<'_>>> {
    Ok(match float(array.dtype()) {
        Some(Float::F32) => Some(Floats::F32(array.try_as_slice::<f32>()?)),
        Some(Float::Bf16) => Some(Floats::Bf16(array.try_as_slice::<bf16>()?)),
        Some(Float::F16) => Some(Floats::F16(array.try_as_slice::<f16>()?)),
        None => None,
    })
}

/// A copy of the numbers as f32, row after row whatever the strides; None if it is of another type.
pub(super) fn numbers(array: &Array) -> Result<Option<Vec<f32>>> {
    if let Some(wide) = try_numbers(array)? {
        return Ok(Some(wide));
    }
    if !is_float(array) {
        return Ok(None);
    }
    try_numbers(&array.contiguous()?)
}

fn try_numbers(array: &Array) -> Result<Option<Vec<f32>>> {
    // The wait, if the numbers are not there yet.
    array.eval()?;
    Ok(floats(array).ok().flatten().map(Floats::to_f32))
}

/// The numbers as an array of this type.
pub(super) fn array(numbers: &[f32], shape: &[i32], dtype: Dtype) -> Result<Array> {
    Ok(match float(dtype) {
        Some(Float::Bf16) => Array::from_slice(&to_bf16(numbers), shape),
        Some(Float::F16) => Array::from_slice(&to_f16(numbers), shape),
        _ => Array::from_slice(numbers, shape),
    })
}
