//! From a model's weights to packed ones: MLX's affine quantization.
//!
//! A group of G neighbours in a row shares a grid of 2^bits points, `scale · code + bias`, and each weight
//! becomes the number of the point next to it. It happens between loading and building: the model only sees
//! that some of its matrices are packed.
//!
//! Everything is computed in f32, as MLX does it: on the host, since a conversion happens once.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use mlx_rs::Array;
use rayon::prelude::*;
use shared::config::{GroupQuantization, Mode, ModelConfig, Quantization};
use shared::layers::to_f32;
use shared::weights::Weights;

use crate::finite::check_finite;
use crate::floats::{self, Fit};

/// Whose codes to make: MLX's kernels differ where a weight lies half way between two points, and in
/// groups below zero. Neither is better; on a bf16 model they disagree about some 0.5 % of the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// A half goes to the even code.
    #[default]
    Cpu,
    /// A half goes away from zero, and no group ends below 0: so MLX's Metal and CUDA kernels.
    Gpu,
}

impl Rounding {
    fn round(self, value: f32) -> f32 {
        match self {
            Self::Cpu => value.round_ties_even(),
            Self::Gpu => value.round(),
        }
    }

    /// What the search for the largest value begins with.
    fn smallest_maximum(self) -> f32 {
        match self {
            Self::Cpu => f32::NEG_INFINITY,
            Self::Gpu => 0.0,
        }
    }
}

/// The points that the weights of one group can have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// From one point to the next; below 0 where code 0 is the largest value.
    pub scale: f32,
    /// The point of code 0.
    pub bias: f32,
    /// The last code, 2^bits − 1.
    pub top: f32,
    /// How a weight between two points goes to one.
    pub rounding: Rounding,
}

impl Grid {
    /// The grid of one group.
    ///
    /// Two of its points are exact: the value farthest from zero, the edge, is code 0, and zero itself has a
    /// code, because the steps from the edge to zero are made a whole number. The other end pays for it: the
    /// last point may miss it by half a step.
    pub fn of(values: &[f32], bits: usize, rounding: Rounding) -> Self {
        let top = ((1_u32 << bits) - 1) as f32;
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        let max = values.iter().copied();
        let max = max.fold(rounding.smallest_maximum(), f32::max);
        // Not 0, or a group of equal values would divide by it.
        let step = ((max - min) / top).max(1e-7);
        let (edge, step) = if min.abs() > max.abs() {
            (min, step)
        } else {
            (max, -step)
        };
        let steps_to_zero = rounding.round(edge / step);
        // No whole step away from zero: the grid begins at zero itself.
        let (scale, bias) = if steps_to_zero == 0.0 {
            (step, 0.0)
        } else {
            (edge / steps_to_zero, edge)
        };
        Self {
            scale,
            bias,
            top,
            rounding,
        }
    }

    /// The code of the point next to `value`.
    pub fn code(&self, value: f32) -> u32 {
        let steps = self.rounding.round((value - self.bias) / self.scale);
        steps.clamp(0.0, self.top) as u32
    }

    /// The value that a code stands for.
    pub fn value(&self, code: u32) -> f32 {
        self.scale * code as f32 + self.bias
    }
}

/// Writes codes as one string of bits, the low ones first: the code with index k begins at bit `k · bits`.
/// With 3, 5 and 6 bits a code may begin in one word and end in the next.
pub fn pack(codes: impl IntoIterator<Item = u32>, bits: usize, words: &mut [u32]) {
    let (mut waiting, mut held) = (0_u64, 0);
    let mut words = words.iter_mut();
    for code in codes {
        waiting |= u64::from(code) << held;
        held += bits;
        if held >= 32
            && let Some(word) = words.next()
        {
            *word = waiting as u32;
            waiting >>= 32;
            held -= 32;
        }
    }
}

/// The codes in a string of bits.
pub fn unpack(words: &[u32], bits: usize) -> impl Iterator<Item = u32> {
    let bit = move |at: usize| words[at / 32] >> (at % 32) & 1;
    let code = move |index: usize| (0..bits).map(|k| bit(index * bits + k) << k).sum();
    (0..words.len() * 32 / bits).map(code)
}

/// Rows that are packed.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// `[rows, columns · bits / 32]`
    pub words: Vec<u32>,
    /// `[rows, columns / G]`, not rounded to the type in which they are stored.
    pub scales: Vec<f32>,
    /// As the scales.
    pub biases: Vec<f32>,
}

/// Packs a matrix `[rows, columns]`, row after row.
///
/// The codes are chosen for scales and biases in f32. Stored in 16 bits they move the grid a little, and a
/// code may no longer be the nearest: MLX does not look again.
///
/// # Errors
/// If G does not divide the columns, or if a number is not finite: with its place. One such number would make
/// NaN of its whole group, and MLX says nothing.
pub fn quantize_rows(
    values: &[f32],
    columns: usize,
    group: GroupQuantization,
    rounding: Rounding,
) -> Result<Packed> {
    let (size, bits) = (group.group_size, group.bits);
    ensure!(
        columns.is_multiple_of(size),
        "groups of {size} do not divide rows of {columns}"
    );
    check_finite(values, 0, columns)?;
    // 32 weights and their multiples fill whole words, so a group never shares a word with the next.
    let words = size * bits / 32;
    let groups = values.len() / size;
    let mut packed = Packed {
        words: vec![0; groups * words],
        scales: vec![0.0; groups],
        biases: vec![0.0; groups],
    };
    let parts = (
        values.par_chunks(size),
        packed.words.par_chunks_mut(words),
        &mut packed.scales,
        &mut packed.biases,
    );
    let parts = parts.into_par_iter().with_min_len(1024);
    parts.for_each(|(values, words, scale, bias)| {
        let grid = Grid::of(values, bits, rounding);
        pack(values.iter().map(|&value| grid.code(value)), bits, words);
        (*scale, *bias) = (grid.scale, grid.bias);
    });
    Ok(packed)
}

/// `[out, in]` → codes `[out, in · bits / 32]`, scales and biases `[out, in / G]` in the type of the weight.
///
/// # Errors
/// As [`quantize_rows`].
pub fn quantize(
    weight: &Array,
    group: GroupQuantization,
    rounding: Rounding,
) -> Result<(Array, Array, Array)> {
    let [rows, columns] = *weight.shape() else {
        anyhow::bail!(
            "it has the shape {:?}, not rows and columns",
            weight.shape()
        );
    };
    let packed = quantize_rows(&to_f32(weight)?, columns as usize, group, rounding)?;
    let array = |values: &[f32]| {
        let array = Array::from_slice(values, &[rows, columns / group.group_size as i32]);
        array.as_dtype(weight.dtype())
    };
    let words = [rows, columns * group.bits as i32 / 32];
    Ok((
        Array::from_slice(&packed.words, &words),
        array(&packed.scales)?,
        array(&packed.biases)?,
    ))
}

/// Packs the matrices of a model between loading and building, as `plan` says for each module; the embedding,
/// and so a head that is tied to it, too. What is not a matrix stays as it is. `fit` is of the float modes.
///
/// # Errors
/// As [`quantize`], with the name of the tensor.
pub fn quantize_weights(
    config: &ModelConfig,
    weights: Weights,
    plan: &Quantization,
    fit: Fit,
) -> Result<(ModelConfig, Weights)> {
    let mut tensors = HashMap::new();
    for (name, weight) in weights.into_tensors() {
        let module = name.strip_suffix(".weight");
        let module = module.filter(|_| weight.ndim() == 2);
        let Some((module, group)) = module.and_then(|m| Some((m, plan.of(m)?))) else {
            tensors.insert(name, weight);
            continue;
        };
        let quantizing = || format!("quantizing {name}");
        let (words, scales) = if group.mode == Mode::Affine {
            let packed = quantize(&weight, group, Rounding::Cpu).with_context(quantizing)?;
            tensors.insert(format!("{module}.biases"), packed.2);
            (packed.0, packed.1)
        } else {
            floats::quantize(&weight, group, fit).with_context(quantizing)?
        };
        tensors.insert(format!("{module}.scales"), scales);
        tensors.insert(name, words);
    }
    let config = ModelConfig {
        quantization: Some(plan.clone()),
        ..config.clone()
    };
    let weights = Weights::new(tensors, &config);
    Ok((config, weights))
}
