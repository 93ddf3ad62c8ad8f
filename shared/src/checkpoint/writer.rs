//! A new checkpoint in safetensors, written piece by piece: sizes are known before any number is, so the
//! header comes first and each piece goes to its place.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo};
use anyhow::{Context, Result, bail, ensure};
use console::cli::FloatType;
use half::{bf16, f16};
use serde_json::json;

use crate::hub::{INDEX, SINGLE};

/// What a tensor is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `F32`, `F16` or `BF16`.
    Float(FloatType),
    /// Codes, in words of 32 bits.
    Word,
    /// The scales of a float mode.
    Byte,
}

impl Element {
    fn dtype(self) -> Dtype {
        match self {
            Self::Float(FloatType::F32) => Dtype::F32,
            Self::Float(FloatType::F16) => Dtype::F16,
            Self::Float(FloatType::Bf16) => Dtype::BF16,
            Self::Word => Dtype::U32,
            Self::Byte => Dtype::U8,
        }
    }
}

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name in Hugging Face's spelling.
    pub name: String,
    /// What it has at each place.
    pub element: Element,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
}

impl NewTensor {
    /// Its size in the file.
    pub fn bytes(&self) -> u64 {
        let elements: usize = self.shape.iter().product();
        (elements * self.element.dtype().bitsize() / 8) as u64
    }
}

/// The files of a checkpoint that is being written.
#[derive(Debug)]
pub struct CheckpointWriter {
    shards: Vec<Shard>,
    places: HashMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    file: File,
    path: PathBuf,
    /// Bytes of tensors that are still to come.
    missing: u64,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    /// The next byte to write.
    next: u64,
    end: u64,
    element: Element,
}

impl CheckpointWriter {
    /// Makes the files of `tensors` in `directory`, at most `shard_bytes` each unless a tensor is larger, with
    /// their index: in the layout of mlx-lm.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn create(
        directory: &Path,
        tensors: &[NewTensor],
        parameters: u64,
        shard_bytes: u64,
    ) -> Result<Self> {
        let mut writer = Self {
            shards: Vec::new(),
            places: HashMap::new(),
        };
        let (parts, mut weight_map) = (parts(tensors, shard_bytes), BTreeMap::new());
        for (index, part) in parts.iter().enumerate() {
            let name = match parts.len() {
                1 => SINGLE.to_owned(),
                all => format!("model-{:05}-of-{all:05}.safetensors", index + 1),
            };
            writer.add_shard(directory.join(&name), part)?;
            weight_map.extend(part.iter().map(|tensor| (&tensor.name, name.clone())));
        }
        let bytes: u64 = tensors.iter().map(NewTensor::bytes).sum();
        let index = json!({
            "metadata": {"total_size": bytes, "total_parameters": parameters},
            "weight_map": weight_map,
        });
        let path = directory.join(INDEX);
        fs::write(&path, pretty(&index)?).with_context(|| format!("writing {}", path.display()))?;
        Ok(writer)
    }

    fn add_shard(&mut self, path: PathBuf, tensors: &[&NewTensor]) -> Result<()> {
        let writing = || format!("writing {}", path.display());
        // Wide types first: then each tensor begins at a multiple of its elements' size.
        let mut tensors = tensors.to_vec();
        tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.element.dtype().bitsize()));
        let (mut infos, mut at) = (Vec::new(), 0);
        for tensor in &tensors {
            let end = at + tensor.bytes() as usize;
            let info = TensorInfo {
                dtype: tensor.element.dtype(),
                shape: tensor.shape.clone(),
                data_offsets: (at, end),
            };
            infos.push((tensor.name.clone(), info));
            at = end;
        }
        let format = HashMap::from([("format".to_owned(), "mlx".to_owned())]);
        let header = Metadata::new(Some(format), infos).with_context(writing)?;
        let mut header = serde_json::to_string(&header).with_context(writing)?;
        let padded = header.len().next_multiple_of(8);
        header.extend(std::iter::repeat_n(' ', padded - header.len()));
        let file = File::create_new(&path).with_context(writing)?;
        let length = (header.len() as u64).to_le_bytes();
        file.write_all_at(&length, 0).with_context(writing)?;
        file.write_all_at(header.as_bytes(), 8)
            .with_context(writing)?;
        let mut next = 8 + header.len() as u64;
        for tensor in tensors {
            let place = Place {
                shard: self.shards.len(),
                next,
                end: next + tensor.bytes(),
                element: tensor.element,
            };
            next = place.end;
            self.places.insert(tensor.name.clone(), place);
        }
        self.shards.push(Shard {
            file,
            path,
            missing: at as u64,
        });
        Ok(())
    }

    /// Writes the next numbers of a tensor of floats, rounded to its type.
    ///
    /// # Errors
    /// If there is no such tensor, if it has no room for them, or if they cannot be written.
    pub fn write_floats(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let Element::Float(float) = self.place(name)?.element else {
            bail!("tensor {name} holds codes, not floats");
        };
        let bytes: Vec<u8> = match float {
            FloatType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            FloatType::F16 => {
                let halves = values.iter().map(|&v| f16::from_f32(v));
                halves.flat_map(f16::to_le_bytes).collect()
            }
            FloatType::Bf16 => {
                let halves = values.iter().map(|&v| bf16::from_f32(v));
                halves.flat_map(bf16::to_le_bytes).collect()
            }
        };
        self.write(name, &bytes)
    }

    /// Writes the next words of codes of a tensor.
    ///
    /// # Errors
    /// As [`write_floats`](Self::write_floats).
    pub fn write_words(&mut self, name: &str, words: &[u32]) -> Result<()> {
        self.expect(name, Element::Word)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(name, &bytes)
    }

    /// Writes the next scales of a tensor of bytes.
    ///
    /// # Errors
    /// As [`write_floats`](Self::write_floats).
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.expect(name, Element::Byte)?;
        self.write(name, bytes)
    }

    fn expect(&mut self, name: &str, element: Element) -> Result<()> {
        let found = self.place(name)?.element;
        ensure!(
            found == element,
            "tensor {name} is made of {found:?}, not of {element:?}"
        );
        Ok(())
    }

    /// Ends the writing: no tensor may have a gap.
    ///
    /// # Errors
    /// If numbers are missing: the shard by name.
    pub fn finish(self) -> Result<()> {
        for shard in self.shards {
            ensure!(
                shard.missing == 0,
                "{} bytes of {} were never written",
                shard.missing,
                shard.path.display()
            );
        }
        Ok(())
    }

    fn place(&mut self, name: &str) -> Result<&mut Place> {
        let place = self.places.get_mut(name);
        place.with_context(|| format!("there is no place for a tensor {name}"))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.place(name)?;
        let (shard, at, length) = (place.shard, place.next, bytes.len() as u64);
        ensure!(at + length <= place.end, "tensor {name} has no room left");
        place.next += length;
        let shard = &mut self.shards[shard];
        shard.missing -= length;
        let writing = || format!("writing {}", shard.path.display());
        shard.file.write_all_at(bytes, at).with_context(writing)
    }
}

/// JSON as mlx-lm writes it, for people: four spaces.
///
/// # Errors
/// If `value` has a key that is no text.
pub(crate) fn pretty(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, format,
    ))?;
    Ok(text)
}

/// The tensors of each shard, in their order.
fn parts(tensors: &[NewTensor], shard_bytes: u64) -> Vec<Vec<&NewTensor>> {
    let (mut parts, mut filled) = (vec![vec![]], 0);
    for tensor in tensors {
        if filled > 0 && filled + tensor.bytes() > shard_bytes {
            parts.push(vec![]);
            filled = 0;
        }
        filled += tensor.bytes();
        if let Some(part) = parts.last_mut() {
            part.push(tensor);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, element: Element, shape: &[usize]) -> NewTensor {
        NewTensor {
            name: name.to_owned(),
            element,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn what_is_written_in_pieces_is_read_whole() {
        let place = tempfile::tempdir().unwrap();
        let tensors = [
            tensor("odd", Element::Float(FloatType::Bf16), &[3]),
            tensor("scales", Element::Byte, &[1, 3]),
            tensor("codes", Element::Word, &[2, 2]),
            tensor("wide", Element::Float(FloatType::F32), &[1, 2]),
            tensor("half", Element::Float(FloatType::F16), &[2]),
        ];
        let mut writer = CheckpointWriter::create(place.path(), &tensors, 9, 1 << 20).unwrap();
        writer.write_words("codes", &[1, 2]).unwrap();
        writer
            .write_floats("odd", &[1.0, -2.0, 1.0 + 1.0 / 256.0])
            .unwrap();
        writer.write_words("codes", &[3, u32::MAX]).unwrap();
        writer.write_bytes("scales", &[127, 1]).unwrap();
        writer.write_bytes("scales", &[254]).unwrap();
        assert!(writer.write_bytes("scales", &[5]).is_err());
        assert!(writer.write_bytes("codes", &[5; 4]).is_err());
        assert!(writer.write_words("scales", &[5]).is_err());
        writer.write_floats("wide", &[0.1, 0.2]).unwrap();
        assert!(writer.write_words("codes", &[5]).is_err());
        assert!(writer.write_floats("codes", &[5.0]).is_err());
        assert!(writer.write_words("odd", &[5]).is_err());
        writer.write_floats("half", &[0.1, 65504.0]).unwrap();
        writer.finish().unwrap();
        let bytes = fs::read(place.path().join(SINGLE)).unwrap();
        let file = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("codes").unwrap().data()[12..], [255; 4]);
        let scales = file.tensor("scales").unwrap();
        assert_eq!(scales.dtype(), Dtype::U8);
        assert_eq!(scales.data(), [127, 1, 254]);
        // Ties go to the even number.
        assert_eq!(
            file.tensor("odd").unwrap().data(),
            [0x80, 0x3f, 0, 0xc0, 0x80, 0x3f]
        );
        assert_eq!(
            file.tensor("half").unwrap().data(),
            [0x66, 0x2e, 0xff, 0x7b]
        );
        let index = fs::read_to_string(place.path().join(INDEX)).unwrap();
        assert!(
            index.starts_with("{\n    \"metadata\": {\n        \"total_size\": 37,\n"),
            "{index}"
        );
    }

    #[test]
    fn a_shard_is_full_before_its_limit_and_a_gap_is_told() {
        let place = tempfile::tempdir().unwrap();
        let words = |name| tensor(name, Element::Word, &[4]);
        let tensors = [
            words("a"),
            words("b"),
            words("c"),
            tensor("large", Element::Word, &[100]),
        ];
        let mut writer = CheckpointWriter::create(place.path(), &tensors, 1, 40).unwrap();
        let shards: Vec<usize> = ["a", "b", "c", "large"]
            .map(|n| writer.places[n].shard)
            .into();
        assert_eq!(shards, [0, 0, 1, 2]);
        assert!(
            place
                .path()
                .join("model-00003-of-00003.safetensors")
                .exists()
        );
        writer.write_words("a", &[0; 4]).unwrap();
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.starts_with("16 bytes of "), "{error}");
    }
}
