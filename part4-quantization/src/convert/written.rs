//! The new directory: a few rows at a time are read, packed and written.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use console::cli::FloatType;
use console::files::NewDirectory;
use console::interrupt::check_interrupted;
use mlx_rs::{Array, transforms};
use rayon::prelude::*;
use shared::checkpoint::{
    Checkpoint, CheckpointWriter, Element, NewTensor, RowReader, TensorInfo, mlx_dtype,
};
use shared::config::{GroupQuantization, Mode, Quantization};

use crate::finite::check_finite;
use crate::floats::{self, Fit, check_range};
use crate::quantize::{Grid, Rounding, quantize_rows};

/// Weights that are worked on at once: 17 MB in f32.
const PIECE: usize = 4 << 20;
/// The same for float modes: MLX compares each weight with 16 numbers.
const PIECE_OF_FLOATS: usize = 1 << 20;

/// Bytes of a file of weights, as in mlx-lm.
const SHARD: u64 = 5 << 30;

/// A checkpoint, and what is to be made of it.
pub(super) struct Conversion<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) reader: RowReader,
    pub(super) quantization: &'a Quantization,
    pub(super) rounding: Rounding,
    pub(super) fit: Fit,
    pub(super) compare_rounding: bool,
    /// The text of its `README.md`.
    pub(super) card: String,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    /// Of all tensors.
    pub(super) bytes: u64,
    /// Codes that were made.
    pub(super) packed: u64,
    /// Those that the other rounding would change, if they were counted.
    pub(super) differing: u64,
}

impl Conversion<'_> {
    /// Makes the directory, or nothing; `progress` is told how many weights are done.
    pub(super) fn write(&self, out: &Path, progress: &dyn Fn(u64)) -> Result<Done> {
        let directory = NewDirectory::beside(out)?;
        let place = directory.path();
        // First what can fail at once.
        self.checkpoint.write_companions(place, self.quantization)?;
        fs::write(place.join("README.md"), &self.card).context("writing README.md")?;
        let tensors = self.new_tensors()?;
        let mut done = Done {
            bytes: tensors.iter().map(NewTensor::bytes).sum(),
            ..Done::default()
        };
        let parameters = self.checkpoint.parameters();
        let mut writer = CheckpointWriter::create(place, &tensors, parameters, SHARD)?;
        for tensor in self.tensors() {
            if self.keeps_codes(tensor) {
                self.copy_codes(tensor, &mut writer, progress)
                    .with_context(|| format!("converting tensor {}", tensor.name))?;
                continue;
            }
            for values in self.pieces(tensor)? {
                check_interrupted()?;
                let values = values?;
                let writing = || format!("converting tensor {}", tensor.name);
                self.write_piece(tensor, &values, &mut writer, &mut done)
                    .with_context(writing)?;
                progress(values.len() as u64);
            }
        }
        writer.finish()?;
        directory.finish()?;
        Ok(done)
    }

    fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.checkpoint.elements().map(|(tensor, _)| tensor)
    }

    fn float(&self, tensor: &TensorInfo) -> Result<FloatType> {
        match self.checkpoint.float_of_conversion() {
            Some(float) => Ok(float),
            None => self.reader.float(&tensor.name),
        }
    }

    /// The module that a tensor is the matrix of, if that is to be packed.
    fn packing<'t>(&self, tensor: &'t TensorInfo) -> Option<(&'t str, GroupQuantization)> {
        let module = tensor.name.strip_suffix(".weight")?;
        let group = self.quantization.of(module)?;
        (tensor.shape.len() == 2).then_some((module, group))
    }

    /// Whether the codes are those of the file.
    fn keeps_codes(&self, tensor: &TensorInfo) -> bool {
        let group = self.packing(tensor).map(|(_, group)| group);
        super::blocks::are_kept(tensor, group)
    }

    /// Of blocks, as MLX has them.
    fn copy_codes(
        &self,
        tensor: &TensorInfo,
        writer: &mut CheckpointWriter,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let (name, float) = (&tensor.name, self.float(tensor)?);
        let (module, _) = self.packing(tensor).context("it is not packed")?;
        let columns = columns(tensor);
        let rows = tensor.shape.iter().product::<usize>() / columns;
        let step = (PIECE / columns).max(1);
        for start in (0..rows).step_by(step) {
            check_interrupted()?;
            let end = rows.min(start + step);
            let repacked = self.reader.repack(name, start..end)?;
            let repacked = repacked.context("MLX has no such codes")?;
            writer.write_words(name, &repacked.codes)?;
            for (part, values) in [("scales", &repacked.scales), ("biases", &repacked.biases)] {
                check_scales(values, float).with_context(|| format!("its {part}"))?;
                writer.write_floats(&format!("{module}.{part}"), values)?;
            }
            progress(((end - start) * columns) as u64);
        }
        Ok(())
    }

    fn new_tensors(&self) -> Result<Vec<NewTensor>> {
        let mut all = Vec::new();
        for tensor in self.tensors() {
            let new = |name: &str, element, shape: &[usize]| NewTensor {
                name: name.to_owned(),
                element,
                shape: shape.to_vec(),
            };
            let float = Element::Float(self.float(tensor)?);
            let (Some((module, group)), [rows, columns]) =
                (self.packing(tensor), &tensor.shape[..])
            else {
                all.push(new(&tensor.name, float, &tensor.shape));
                continue;
            };
            let groups = [*rows, columns / group.group_size];
            let (scales, biases) = (format!("{module}.scales"), format!("{module}.biases"));
            let words = [*rows, columns * group.bits / 32];
            all.push(new(&tensor.name, Element::Word, &words));
            if group.mode == Mode::Affine {
                all.push(new(&scales, float, &groups));
                all.push(new(&biases, float, &groups));
            } else {
                all.push(new(&scales, Element::Byte, &groups));
            }
        }
        Ok(all)
    }

    /// Some rows of a tensor after the other.
    fn pieces(&self, tensor: &TensorInfo) -> Result<impl Iterator<Item = Result<Vec<f32>>>> {
        let (name, float) = (&tensor.name, self.float(tensor)?);
        let columns = columns(tensor);
        let rows = tensor.shape.iter().product::<usize>() / columns;
        let floats = |(_, group): (&str, GroupQuantization)| group.mode != Mode::Affine;
        let piece = match self.packing(tensor) {
            Some(packing) if floats(packing) => PIECE_OF_FLOATS,
            _ => PIECE,
        };
        let step = (piece / columns).max(1);
        Ok((0..rows).step_by(step).map(move |start| {
            let values = self
                .reader
                .read(name, start..rows.min(start + step), float)?;
            let check = || {
                check_finite(&values, start, columns)?;
                let packing = self.packing(tensor);
                packing.map_or(Ok(()), |(_, group)| {
                    check_range(&values, start, columns, group)
                })
            };
            check().with_context(|| format!("reading tensor {name}"))?;
            Ok(values)
        }))
    }

    fn write_piece(
        &self,
        tensor: &TensorInfo,
        values: &[f32],
        writer: &mut CheckpointWriter,
        done: &mut Done,
    ) -> Result<()> {
        let Some((module, group)) = self.packing(tensor) else {
            return writer.write_floats(&tensor.name, values);
        };
        done.packed += values.len() as u64;
        if group.mode != Mode::Affine {
            return self.write_floats(tensor, values, module, group, writer);
        }
        let packed = quantize_rows(values, columns(tensor), group, self.rounding)?;
        writer.write_words(&tensor.name, &packed.words)?;
        writer.write_floats(&format!("{module}.scales"), &packed.scales)?;
        writer.write_floats(&format!("{module}.biases"), &packed.biases)?;
        if self.compare_rounding {
            done.differing += differing_codes(values, group);
        }
        Ok(())
    }

    /// MLX packs them in the type of the weights, in which it rounds.
    fn write_floats(
        &self,
        tensor: &TensorInfo,
        values: &[f32],
        module: &str,
        group: GroupQuantization,
        writer: &mut CheckpointWriter,
    ) -> Result<()> {
        let columns = columns(tensor);
        let rows = [(values.len() / columns) as i32, columns as i32];
        let weight = Array::from_slice(values, &rows).as_dtype(mlx_dtype(self.float(tensor)?))?;
        let (words, scales) = floats::quantize(&weight, group, self.fit)?;
        transforms::eval([&words, &scales])?;
        writer.write_words(&tensor.name, words.try_as_slice()?)?;
        writer.write_bytes(&format!("{module}.scales"), scales.try_as_slice()?)
    }
}

/// Refuses what its type has no room for.
fn check_scales(values: &[f32], float: FloatType) -> Result<()> {
    let most = match float {
        FloatType::F16 => 65504.0,
        FloatType::F32 | FloatType::Bf16 => f32::MAX / 2.0,
    };
    match values
        .iter()
        .find(|value| value.is_nan() || value.abs() > most)
    {
        Some(value) => bail!(
            "{value} has no place in {float:?}: the file is damaged, or its scales are too large, and \
             --dtype f32 holds them"
        ),
        None => Ok(()),
    }
}

/// How many codes of rows depend on the device that packs them.
fn differing_codes(values: &[f32], group: GroupQuantization) -> u64 {
    let groups = values.par_chunks(group.group_size).with_min_len(1024);
    let differing = groups.map(|values| {
        let [cpu, gpu] =
            [Rounding::Cpu, Rounding::Gpu].map(|rounding| Grid::of(values, group.bits, rounding));
        let differs = |value: &&f32| cpu.code(**value) != gpu.code(**value);
        values.iter().filter(differs).count() as u64
    });
    differing.sum()
}

/// Numbers in a row; a vector is a column.
fn columns(tensor: &TensorInfo) -> usize {
    match tensor.shape[..] {
        [.., _, columns] => columns.max(1),
        _ => 1,
    }
}
