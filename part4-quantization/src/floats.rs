//! The float modes, mxfp4, mxfp8 and nvfp4: a code is a small float, and the scale of a group is one byte.
//!
//! In mxfp4 and mxfp8 the byte is an exponent, so a scale is a power of two; in nvfp4 it is a float itself.
//! There is no bias. MLX packs the codes. What it does not look for is the best scale: see [`Floats::fitted`].

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::Array;
use rayon::prelude::*;
use shared::config::{GroupQuantization, Mode};
use shared::ffi;
use shared::layers::to_f32;

use crate::finite::check_finite;
use crate::quantize::pack;

/// How the scale of a group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Fit {
    /// As MLX does it: from the largest value alone.
    #[default]
    Mlx,
    /// Of that scale and its two neighbours the one with the smallest error.
    Best,
}

/// `[out, in]` → codes `[out, in · bits / 32]` and scales `[out, in / G]`, one byte each.
///
/// # Errors
/// If G does not divide the rows, or if no code can stand for a number: with its place.
pub fn quantize(weight: &Array, group: GroupQuantization, fit: Fit) -> Result<(Array, Array)> {
    let (rows, columns) = (weight.dim(0), weight.dim(-1));
    ensure!(
        (columns as usize).is_multiple_of(group.group_size),
        "groups of {} do not divide rows of {columns}",
        group.group_size
    );
    let values = to_f32(weight)?;
    check_finite(&values, 0, columns as usize)?;
    check_range(&values, 0, columns as usize, group)?;
    let (words, scales, _) = ffi::quantized::quantize(weight, group)?;
    if fit == Fit::Mlx {
        return Ok((words, scales));
    }
    let floats = Floats::of(group).context("affine codes are no floats")?;
    scales.eval()?;
    let (words, scales) = floats.quantize(&values, scales.try_as_slice::<u8>()?);
    let shape = |columns: usize| [rows, columns as i32];
    let (size, bits) = (group.group_size, group.bits);
    Ok((
        Array::from_slice(&words, &shape(columns as usize * bits / 32)),
        Array::from_slice(&scales, &shape(columns as usize / size)),
    ))
}

/// What the codes of a float mode stand for, and the bytes of its scales.
#[derive(Debug, Clone)]
pub struct Floats {
    group: GroupQuantization,
    /// Of each code without its sign, the highest bit: in ascending order, as codes of floats are.
    values: Vec<f32>,
    /// Of each byte; NaN for one that is none.
    scales: Vec<f32>,
}

impl Floats {
    /// None for affine codes.
    pub fn of(group: GroupQuantization) -> Option<Self> {
        let e2m1 = || (0..8).map(|code| float(code, 1, 1)).collect();
        let e4m3 = || (0..127).map(|code| float(code, 3, 7)).collect();
        let powers = || (0..255).map(|byte| 2_f32.powi(byte - 127)).collect();
        let (values, mut scales): (Vec<f32>, Vec<f32>) = match group.mode {
            Mode::Affine => return None,
            Mode::Mxfp4 => (e2m1(), powers()),
            Mode::Mxfp8 => (e4m3(), powers()),
            Mode::Nvfp4 => (e2m1(), e4m3()),
        };
        scales.resize(256, f32::NAN);
        Some(Self {
            group,
            values,
            scales,
        })
    }

    /// Words and scales of whole groups, beside the scales that MLX has for them.
    fn quantize(&self, values: &[f32], by_mlx: &[u8]) -> (Vec<u32>, Vec<u8>) {
        let (size, bits) = (self.group.group_size, self.group.bits);
        let mut words = vec![0; values.len() * bits / 32];
        let mut scales = by_mlx.to_vec();
        let parts = (
            values.par_chunks(size),
            words.par_chunks_mut(size * bits / 32),
            &mut scales,
        );
        let parts = parts.into_par_iter().with_min_len(1024);
        parts.for_each(|(values, words, scale)| {
            *scale = self.fitted(values, *scale);
            pack(self.codes(values, *scale), bits, words);
        });
        (words, scales)
    }

    /// The scale of a group with the smallest error: the given one, or a neighbour.
    ///
    /// MLX makes the largest value the largest float, and rounds that scale. Rounded down, it is too small for
    /// the largest value, which is clipped; rounded up, floats are spent on values that nobody has. Which of
    /// the two costs more depends on the other values of the group, so all of them are tried.
    pub fn fitted(&self, values: &[f32], byte: u8) -> u8 {
        let error = |byte: u8| -> f64 {
            let scale = self.scales[usize::from(byte)];
            let errors = values.iter().map(|value| {
                let nearest = self.values[self.nearest(value / scale)];
                f64::from(value.abs() - scale * nearest)
            });
            errors.map(|error| error * error).sum()
        };
        let neighbours = [byte, byte.saturating_sub(1), byte.saturating_add(1)];
        let errors = neighbours.map(|byte| (error(byte), byte));
        // The first of equal ones, and NaN is larger than any number.
        let best = errors.into_iter().min_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map_or(byte, |(_, byte)| byte)
    }

    /// The codes of a group under one of the bytes.
    pub fn codes(&self, values: &[f32], byte: u8) -> impl Iterator<Item = u32> {
        let (scale, sign) = (self.scales[usize::from(byte)], self.group.bits - 1);
        values.iter().map(move |value| {
            let code = self.nearest(value / scale) as u32;
            let negative = *value < 0.0 && code > 0; // there is no −0, as in MLX on a CPU
            code | u32::from(negative) << sign
        })
    }

    /// The code of the value next to the size of `x`; the lower one half way between two.
    fn nearest(&self, x: f32) -> usize {
        let size = x.abs();
        let above = self.values.partition_point(|value| *value < size);
        let last = self.values.len() - 1;
        if above == 0 || above > last {
            return above.min(last);
        }
        let half = f32::midpoint(self.values[above - 1], self.values[above]);
        if size <= half { above - 1 } else { above }
    }

    /// What a group's codes stand for.
    pub fn numbers(&self, codes: impl Iterator<Item = u32>, byte: u8) -> impl Iterator<Item = f32> {
        let (scale, sign) = (self.scales[usize::from(byte)], 1 << (self.group.bits - 1));
        codes.map(move |code| {
            let size = scale * self.values[(code & (sign - 1)) as usize];
            if code & sign == 0 { size } else { -size }
        })
    }
}

/// A float without a sign, of a code with so many bits after the point; the exponent is stored plus `bias`,
/// and 0 stands for numbers too small for a 1 before the point.
fn float(code: i32, mantissa: i32, bias: i32) -> f32 {
    let (exponent, fraction) = (code >> mantissa, code & ((1 << mantissa) - 1));
    let (exponent, fraction) = match exponent {
        0 => (1, fraction),
        _ => (exponent, fraction | 1 << mantissa),
    };
    fraction as f32 * 2_f32.powi(exponent - bias - mantissa)
}

/// Values that are larger than all that a float mode has, in any scale, would be clipped without a word:
/// only in nvfp4, whose scales end at 448.
///
/// # Errors
/// With its place, counted from `first_row`.
pub fn check_range(
    values: &[f32],
    first_row: usize,
    columns: usize,
    group: GroupQuantization,
) -> Result<()> {
    const MOST: f32 = 6.0 * 448.0;
    let beyond = |value: &f32| group.mode == Mode::Nvfp4 && value.abs() > MOST;
    let Some(at) = values.iter().position(beyond) else {
        return Ok(());
    };
    bail!(
        "row {}, column {} is {}, and nvfp4 ends at {MOST}: take another mode",
        first_row + at / columns,
        at % columns,
        values[at]
    )
}
