//! The numbers of a checkpoint, read from its files a few rows at a time: for a conversion, which needs each
//! of them once and never all of them at once. Blocks of a GGUF file become numbers, or codes as MLX has them.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ::safetensors::{Dtype, SafeTensors, tensor::Metadata};
use anyhow::{Context, Result, bail, ensure};
use console::cli::FloatType;
use console::files;
use half::{bf16, f16};
use repacking::Repacked;
use repacking::blocks::{Form, Kind, repack, unpack};

use super::{Checkpoint, safetensors};
use crate::gguf::{GgufHeader, GgufType, hugging_face_name, is_paired};
use crate::hub::ModelFiles;

/// Open files, and where in them each tensor lies that has numbers.
#[derive(Debug)]
pub struct RowReader {
    sources: Vec<Source>,
    places: HashMap<String, Place>,
}

#[derive(Debug)]
enum Source {
    Memory(&'static [u8]),
    File(File, PathBuf),
}

#[derive(Debug, Clone)]
struct Place {
    source: usize,
    /// The first byte.
    start: u64,
    stored: Stored,
    shape: Vec<usize>,
    /// D, if the rows of a head are stored in pairs.
    paired: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Stored {
    Floats(FloatType),
    Blocks(Kind),
}

impl Stored {
    /// Bytes of a row of so many numbers.
    fn width(self, columns: usize) -> usize {
        match self {
            Self::Floats(float) => columns * float.bytes(),
            Self::Blocks(kind) => columns / kind.numbers() * kind.bytes(),
        }
    }

    /// The type that holds its numbers, or the scales of its codes, as loading gives them.
    fn float(self) -> FloatType {
        let form = match self {
            Self::Floats(float) => return float,
            Self::Blocks(kind) => kind.form(),
        };
        match form {
            Form::Affine {
                exact_in_16_bits: false,
                ..
            } => FloatType::F32,
            _ => FloatType::F16,
        }
    }
}

impl RowReader {
    /// Opens the files of a checkpoint.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let mut reader = Self {
            sources: Vec::new(),
            places: HashMap::new(),
        };
        match &checkpoint.files {
            ModelFiles::Embedded(model) => {
                let (start, header) = SafeTensors::read_metadata(model.weights())
                    .context("the embedded model is damaged")?;
                reader.sources.push(Source::Memory(model.weights()));
                reader.add_shard(8 + start as u64, &header);
            }
            files @ ModelFiles::Directory(_) => {
                for path in files.shards()? {
                    let (start, header) = safetensors::header(&path)?;
                    reader.open_file(&path)?;
                    reader.add_shard(start, &header);
                }
            }
            ModelFiles::Gguf(path) => {
                reader.open_file(path)?;
                let header = checkpoint.gguf.as_ref();
                reader.add_gguf(header.context("the file has no header")?, checkpoint);
            }
        }
        Ok(reader)
    }

    fn open_file(&mut self, path: &Path) -> Result<()> {
        let source = Source::File(files::open(path)?, path.to_owned());
        self.sources.push(source);
        Ok(())
    }

    fn add_shard(&mut self, start: u64, header: &Metadata) {
        for (name, tensor) in header.tensors() {
            let float = match tensor.dtype {
                Dtype::F32 => FloatType::F32,
                Dtype::F16 => FloatType::F16,
                Dtype::BF16 => FloatType::Bf16,
                _ => continue, // codes, or what nothing reads
            };
            let place = Place {
                source: self.sources.len() - 1,
                start: start + tensor.data_offsets.0 as u64,
                stored: Stored::Floats(float),
                shape: tensor.shape.clone(),
                paired: None,
            };
            self.places.insert(name, place);
        }
    }

    fn add_gguf(&mut self, header: &GgufHeader, checkpoint: &Checkpoint) {
        let config = &checkpoint.config;
        for tensor in &header.tensors {
            let stored = match tensor.kind {
                GgufType::F32 => Stored::Floats(FloatType::F32),
                GgufType::F16 => Stored::Floats(FloatType::F16),
                GgufType::BF16 => Stored::Floats(FloatType::Bf16),
                GgufType::Packed(kind) => Stored::Blocks(kind),
                GgufType::Other(_) => continue,
            };
            let place = Place {
                source: self.sources.len() - 1,
                start: header.data_offset + tensor.offset,
                stored,
                shape: tensor.shape.clone(),
                paired: is_paired(&config.model_type, &tensor.name).then_some(config.head_dim),
            };
            self.places.insert(hugging_face_name(&tensor.name), place);
        }
    }

    /// The type of a tensor in its file; of blocks the one that their numbers or scales are loaded in.
    ///
    /// # Errors
    /// If there is no such tensor with numbers.
    pub fn float(&self, name: &str) -> Result<FloatType> {
        Ok(self.place(name)?.stored.float())
    }

    /// Rows of a tensor, `[rows · columns]`, rounded to `float`. A vector has rows of one number.
    ///
    /// # Errors
    /// If there are no such rows, or the file cannot be read.
    pub fn read(&self, name: &str, rows: Range<usize>, float: FloatType) -> Result<Vec<f32>> {
        let place = self.place(name)?;
        let bytes = self.bytes(name, place, rows)?;
        let (mut values, from) = match place.stored {
            Stored::Floats(float) => (floats(&bytes, float), float),
            Stored::Blocks(kind) => (unpack(kind, &bytes), FloatType::F32),
        };
        if float != from {
            round(&mut values, float);
        }
        Ok(values)
    }

    /// The codes of rows with their scales and biases, nothing of them rounded; None where MLX has no such
    /// codes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn repack(&self, name: &str, rows: Range<usize>) -> Result<Option<Repacked>> {
        let place = self.place(name)?;
        let Stored::Blocks(kind) = place.stored else {
            return Ok(None);
        };
        Ok(repack(kind, &self.bytes(name, place, rows)?))
    }

    fn bytes(&self, name: &str, place: &Place, rows: Range<usize>) -> Result<Vec<u8>> {
        let [all, columns] = rows_and_columns(&place.shape);
        ensure!(
            rows.start <= rows.end && rows.end <= all,
            "tensor {name} has no rows {rows:?}"
        );
        let width = place.stored.width(columns);
        let mut bytes = vec![0; rows.len() * width];
        let reading = || format!("reading tensor {name}");
        match place.paired {
            None => self.fill(place, rows.start * width, &mut bytes),
            Some(head_dim) => {
                bytes
                    .chunks_exact_mut(width)
                    .zip(rows)
                    .try_for_each(|(bytes, row)| {
                        self.fill(place, stored(row, head_dim) * width, bytes)
                    })
            }
        }
        .with_context(reading)?;
        Ok(bytes)
    }

    fn place(&self, name: &str) -> Result<&Place> {
        match self.places.get(name) {
            Some(place) => Ok(place),
            None => bail!("the checkpoint has no numbers called {name}"),
        }
    }

    fn fill(&self, place: &Place, at: usize, bytes: &mut [u8]) -> Result<()> {
        let start = place.start + at as u64;
        match &self.sources[place.source] {
            Source::Memory(all) => {
                let from = start as usize;
                let found = all.get(from..from + bytes.len());
                bytes.copy_from_slice(found.context("it lies beyond the end")?);
                Ok(())
            }
            Source::File(file, path) => file
                .read_exact_at(bytes, start)
                .with_context(|| format!("reading {}", path.display())),
        }
    }
}

/// A vector is a column.
fn rows_and_columns(shape: &[usize]) -> [usize; 2] {
    match shape {
        [] => [1, 1],
        [rows] => [*rows, 1],
        [outer @ .., columns] => [outer.iter().product(), *columns],
    }
}

fn round(values: &mut [f32], float: FloatType) {
    for value in values {
        *value = match float {
            FloatType::F32 => *value,
            FloatType::F16 => f16::from_f32(*value).to_f32(),
            FloatType::Bf16 => bf16::from_f32(*value).to_f32(),
        };
    }
}

/// Where a row of q or k is stored: the two halves of a head one after the other become pairs.
fn stored(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, index) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * index + half
}

fn floats(bytes: &[u8], float: FloatType) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks();
    let (fours, _) = bytes.as_chunks();
    match float {
        FloatType::F32 => fours.iter().map(|&four| f32::from_le_bytes(four)).collect(),
        FloatType::F16 => pairs
            .iter()
            .map(|&pair| f16::from_le_bytes(pair).to_f32())
            .collect(),
        FloatType::Bf16 => pairs
            .iter()
            .map(|&pair| bf16::from_le_bytes(pair).to_f32())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub;
    use crate::layers::to_f32;
    use crate::testing::fixtures;

    /// Every float that both have.
    fn compare(checkpoint: &Checkpoint) -> usize {
        let reader = RowReader::open(checkpoint).unwrap();
        let loaded = checkpoint.load_weights().unwrap().into_tensors();
        let mut compared = 0;
        for (name, place) in &reader.places {
            if matches!(place.stored, Stored::Blocks(_)) {
                continue; // loading gives codes
            }
            let [rows, _] = rows_and_columns(&place.shape);
            let read = |rows| reader.read(name, rows, FloatType::F32).unwrap();
            let mut found = read(0..rows / 2);
            found.extend(read(rows / 2..rows));
            if let Some(array) = loaded.get(name) {
                assert_eq!(found, to_f32(array).unwrap(), "{name}");
                compared += 1;
            }
        }
        compared
    }

    #[test]
    fn rows_are_those_that_loading_gives_whatever_the_format() {
        let tiny = Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap();
        assert_eq!(compare(&tiny), tiny.tensors.len());
        for (name, at_least) in [("llama-sharded", 20), ("llama-bf16", 20), ("gguf-llama", 3)] {
            let compared = compare(&fixtures::checkpoint(name).unwrap());
            assert!(compared >= at_least, "{name}: {compared}");
        }
    }

    #[test]
    fn codes_of_blocks_and_their_numbers_are_those_that_loading_gives() {
        for name in ["gguf-k", "gguf-llama", "gguf-qwen2"] {
            let checkpoint = fixtures::checkpoint(name).unwrap();
            let reader = RowReader::open(&checkpoint).unwrap();
            let loaded = checkpoint.load_weights().unwrap().into_tensors();
            let mut codes = 0;
            for (name, place) in &reader.places {
                let (array, [rows, _]) = (&loaded[name], rows_and_columns(&place.shape));
                let Some(repacked) = reader.repack(name, 0..rows).unwrap() else {
                    let float = reader.float(name).unwrap();
                    let numbers = reader.read(name, 0..rows, float).unwrap();
                    assert_eq!(numbers, to_f32(array).unwrap(), "{name}");
                    continue;
                };
                codes += 1;
                let second = reader.repack(name, rows / 2..rows).unwrap().unwrap();
                assert!(repacked.codes.ends_with(&second.codes));
                assert_eq!(
                    repacked.codes,
                    array.try_as_slice::<u32>().unwrap(),
                    "{name}"
                );
                let part = |part| &loaded[&name.replace(".weight", part)];
                assert_eq!(repacked.scales, to_f32(part(".scales")).unwrap(), "{name}");
                assert_eq!(repacked.biases, to_f32(part(".biases")).unwrap(), "{name}");
            }
            assert!(codes > 3, "{name}");
        }
    }

    #[test]
    fn pairs_become_halves() {
        let order: Vec<usize> = (0..8).map(|row| stored(row, 4)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[test]
    fn rows_that_are_not_there_are_refused() {
        let tiny = Checkpoint::open("tiny", hub::locate("tiny", None).unwrap()).unwrap();
        let reader = RowReader::open(&tiny).unwrap();
        assert!(
            reader
                .read("model.norm.weight", 0..257, FloatType::F32)
                .is_err()
        );
        assert!(
            reader
                .read("model.norm.bias", 0..1, FloatType::F32)
                .is_err()
        );
        assert_eq!(reader.float("model.norm.weight").unwrap(), FloatType::Bf16);
    }
}
