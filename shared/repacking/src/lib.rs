//! Weights that other programs packed, as MLX has them.
//!
//! GGUF's [blocks] and the [columns] of AWQ and GPTQ → codes with scales and biases, or numbers. This crate
//! knows bytes only, no files and no MLX, and is optimised in dev builds, too: a model has billions of codes.

pub mod blocks;
pub mod columns;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Affine codes, as MLX has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Repacked {
    /// The codes of all groups as one string of bits, low bits first: `bits` words for each group.
    pub codes: Vec<u32>,
    /// One for each group: a number is `scale · code + bias`.
    pub scales: Vec<f32>,
    /// One for each group.
    pub biases: Vec<f32>,
}

/// The nearest floats of 16 bits; None if a number is beyond their range.
pub fn to_f16(numbers: &[f32]) -> Option<Vec<f16>> {
    let mut rounded = vec![f16::ZERO; numbers.len()];
    rounded.convert_from_f32_slice(numbers);
    let mut pairs = numbers.iter().zip(&rounded);
    let fits = pairs.all(|(number, rounded)| rounded.is_finite() || !number.is_finite());
    fits.then_some(rounded)
}

/// The nearest floats of 16 bits that have the range of f32.
pub fn to_bf16(numbers: &[f32]) -> Vec<bf16> {
    let mut rounded = vec![bf16::ZERO; numbers.len()];
    rounded.convert_from_f32_slice(numbers);
    rounded
}
