//! A few groups of one row: the weights, what they become, and what comes back.

use std::ops::Range;

use anyhow::{Context, Result};
use mlx_rs::{Array, Dtype};
use serde::Serialize;
use shared::config::GroupQuantization;
use shared::layers::to_f32;

use super::follow::{Followed, Subject};
use super::parse::Place;
use crate::quantize::{Grid, Rounding, quantize, unpack};

/// What `--show` shows; the page gets it as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Specimen {
    /// The model's name.
    pub model: String,
    /// The matrix, by its name in the checkpoint.
    pub module: String,
    /// The row in it.
    pub row: usize,
    /// The columns that were asked for.
    pub columns: Range<usize>,
    /// The type of the weights, and so of the scales and biases: `f32`, `f16` or `bf16`.
    pub dtype: &'static str,
    /// Bits of one code.
    pub bits: usize,
    /// G
    pub group_size: usize,
    /// The groups in `columns`.
    pub groups: Vec<Group>,
    /// The row around them, so that the page can form groups of every size.
    pub window: Window,
    /// What the error becomes further on.
    pub followed: Option<Followed>,
}

/// A piece of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Window {
    /// Its first column.
    pub start: usize,
    /// The whole row's width.
    pub width: usize,
    /// The weights.
    pub values: Vec<f32>,
}

/// G neighbours with their scale and bias.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Column of the first weight.
    pub column: usize,
    /// The weights.
    pub values: Vec<f32>,
    /// As it is stored.
    pub scale: f32,
    /// As it is stored.
    pub bias: f32,
    /// One per weight, read from the words.
    pub codes: Vec<u32>,
    /// G·bits/32 of them.
    pub words: Vec<u32>,
    /// `scale · code + bias`, in f32.
    pub unpacked: Vec<f32>,
}

impl Specimen {
    /// Packs the row of `module` that `place` names.
    ///
    /// # Errors
    /// If the place is not in the matrix, or not made of whole groups.
    pub fn take(
        subject: &Subject,
        module: &str,
        place: &Place,
        group: GroupQuantization,
    ) -> Result<Self> {
        let weight = subject.weight(module)?;
        let shape = [weight.dim(0) as usize, weight.dim(1) as usize];
        place.check(module, shape, group.group_size)?;
        let row = weight.take_axis(Array::from_int(place.row as i32), 0)?;
        let values = to_f32(&row)?;
        let start = place.columns.start - place.columns.start % 128;
        let end = place.columns.end.next_multiple_of(128).min(shape[1]);
        Ok(Self {
            model: subject.model.clone(),
            module: module.to_owned(),
            row: place.row,
            columns: place.columns.clone(),
            dtype: dtype_name(row.dtype()),
            bits: group.bits,
            group_size: group.group_size,
            groups: groups(&row, group, place.columns.clone())?,
            window: Window {
                start,
                width: shape[1],
                values: values
                    .get(start..end)
                    .context("the row is shorter")?
                    .to_vec(),
            },
            followed: None,
        })
    }
}

/// The groups of `row` `[in]` that lie in `columns`.
pub fn groups(row: &Array, group: GroupQuantization, columns: Range<usize>) -> Result<Vec<Group>> {
    let GroupQuantization {
        group_size, bits, ..
    } = group;
    let row = row.reshape(&[1, -1])?;
    let (words, scales, biases) = quantize(&row, group, Rounding::Cpu)?;
    let (values, scales, biases) = (to_f32(&row)?, to_f32(&scales)?, to_f32(&biases)?);
    let words: Vec<u32> = words.reshape(&[-1])?.to_vec_exact()?;
    let words = words.chunks(group_size * bits / 32);
    let stored = scales.into_iter().zip(biases);
    let parts = values.chunks(group_size).zip(words).zip(stored);
    let all = (0..).step_by(group_size).zip(parts);
    let all = all.map(|(column, ((values, words), (scale, bias)))| {
        let codes: Vec<u32> = unpack(words, bits).collect();
        let grid = grid(scale, bias, bits);
        Group {
            column,
            values: values.to_vec(),
            scale,
            bias,
            unpacked: codes.iter().map(|code| grid.value(*code)).collect(),
            codes,
            words: words.to_vec(),
        }
    });
    Ok(all
        .filter(|group| columns.contains(&group.column))
        .collect())
}

/// The points that stored numbers stand for.
fn grid(scale: f32, bias: f32, bits: usize) -> Grid {
    Grid {
        scale,
        bias,
        top: last_code(bits) as f32,
        rounding: Rounding::Cpu,
    }
}

/// As `--dtype` spells it.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float16 => "f16",
        Dtype::Bfloat16 => "bf16",
        _ => "f32",
    }
}

/// What the recipe saw in a group, for those who want to follow it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// The smallest weight.
    pub low: f32,
    /// The largest weight.
    pub high: f32,
    /// The one of the two that is larger in size: it is code 0, without an error of its own.
    pub edge: f32,
    /// `(high − low) / (2^bits − 1)`, before zero is moved onto a code.
    pub step: f32,
    /// The code of zero, which may lie beyond the last one.
    pub zero: f32,
}

impl Group {
    /// The point that each code stands for, as it is stored.
    pub fn points(&self, bits: usize) -> impl Iterator<Item = f32> {
        let grid = grid(self.scale, self.bias, bits);
        (0..=last_code(bits)).map(move |code| grid.value(code))
    }

    /// The numbers in between, which are not stored.
    pub fn recipe(&self, bits: usize) -> Recipe {
        let low = self.values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = self
            .values
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let step = ((high - low) / last_code(bits) as f32).max(1e-7);
        let edge = if low.abs() > high.abs() { low } else { high };
        let exact = Grid::of(&self.values, bits, Rounding::Cpu);
        Recipe {
            low,
            high,
            edge,
            step,
            zero: (exact.bias / exact.scale).abs().round(),
        }
    }

    /// `unpacked − weight`, weight by weight.
    pub fn errors(&self) -> impl Iterator<Item = f32> {
        let pairs = self.unpacked.iter().zip(&self.values);
        pairs.map(|(unpacked, value)| unpacked - value)
    }
}

/// `2^bits − 1`
pub fn last_code(bits: usize) -> u32 {
    (1 << bits) - 1
}

/// √ of the mean square.
pub fn rms(values: impl Iterator<Item = f32>) -> f64 {
    let (mut sum, mut n) = (0.0, 0);
    for value in values {
        sum += f64::from(value).powi(2);
        n += 1;
    }
    (sum / f64::from(n.max(1))).sqrt()
}

/// `part / whole`, where 0 of 0 is nothing.
pub fn share(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { part / whole }
}
