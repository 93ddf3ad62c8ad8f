//! Bytes of a GGUF file → numbers, strings and entries, never beyond the end of the file.

use std::borrow::Cow;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::types::{GgufTensor, GgufType, GgufValue};

/// Far above any vocabulary.
const MAX_LIST: u64 = 1 << 24;

/// What all values of a file may take in memory, in bytes: many times as much as those of a model with
/// a large vocabulary. Short integers grow to 64 bits here, and no file may fill the memory.
const BUDGET: u64 = 1 << 28;

/// The number of the type uint32.
pub(super) const UINT32: u32 = 4;

/// Walks over the file; every method fails instead of reading past the end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes of memory that values may still take.
    budget: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            budget: BUDGET,
        }
    }

    fn spend(&mut self, bytes: u64) -> Result<()> {
        let left = self.budget.checked_sub(bytes);
        self.budget = left.context("the metadata is larger than that of any model")?;
        Ok(())
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let found = usize::try_from(count)
            .ok()
            .and_then(|count| rest.get(..count));
        let found = found.ok_or_else(|| {
            let (at, left) = (self.at, rest.len());
            anyhow!(
                "{count} bytes wanted at byte {at}, but only {left} are left: download it again"
            )
        })?;
        self.at += found.len();
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A name, which must be UTF-8.
    pub(super) fn string(&mut self) -> Result<String> {
        let (text, utf8) = self.text()?;
        ensure!(utf8, "a string is not UTF-8");
        Ok(text)
    }

    /// A text, and whether it is UTF-8. Bytes that are not become U+FFFD.
    fn text(&mut self) -> Result<(String, bool)> {
        let length = self.u64()?;
        let bytes = self.take(length)?;
        self.spend(length + size_of::<String>() as u64)?;
        let text = String::from_utf8_lossy(bytes);
        let utf8 = matches!(text, Cow::Borrowed(_));
        Ok((text.into_owned(), utf8))
    }

    /// The value of the type `kind`, and whether its texts are UTF-8.
    pub(super) fn value(&mut self, kind: u32) -> Result<(GgufValue, bool)> {
        let value = match kind {
            8 => {
                let (text, utf8) = self.text()?;
                return Ok((GgufValue::String(text), utf8));
            }
            9 => return self.list(),
            kind => match self.numbers(kind, 1)? {
                GgufValue::Unsigneds(values) => GgufValue::Unsigned(values[0]),
                GgufValue::Signeds(values) => GgufValue::Signed(values[0]),
                GgufValue::Floats(values) => GgufValue::Float(values[0]),
                GgufValue::Bools(values) => GgufValue::Bool(values[0]),
                other => other,
            },
        };
        Ok((value, true))
    }

    fn list(&mut self) -> Result<(GgufValue, bool)> {
        let (kind, count) = (self.u32()?, self.u64()?);
        ensure!(count <= MAX_LIST, "a list of {count} values is too long");
        match kind {
            8 => {
                let (mut texts, mut all) = (Vec::new(), true);
                for _ in 0..count {
                    let (text, utf8) = self.text()?;
                    texts.push(text);
                    all &= utf8;
                }
                Ok((GgufValue::Strings(texts), all))
            }
            9 => bail!("lists of lists are not supported"),
            kind => Ok((self.numbers(kind, count)?, true)),
        }
    }

    /// `count` values of a type of fixed width.
    fn numbers(&mut self, kind: u32, count: u64) -> Result<GgufValue> {
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            kind => bail!("unknown value type {kind}"),
        };
        let bytes = self.take(count.saturating_mul(width))?;
        self.spend(count * size_of::<u64>() as u64)?;
        let values = bytes.chunks_exact(width as usize);
        Ok(match kind {
            0 | 2 | 4 | 10 => GgufValue::Unsigneds(values.map(unsigned).collect()),
            1 | 3 | 5 | 11 => GgufValue::Signeds(values.map(signed).collect()),
            6 => GgufValue::Floats(values.map(|v| f32::from_bits(unsigned(v) as u32)).collect()),
            12 => GgufValue::Floats(values.map(|v| f64::from_bits(unsigned(v)) as f32).collect()),
            _ => GgufValue::Bools(values.map(|value| value[0] != 0).collect()),
        })
    }

    pub(super) fn tensor(&mut self) -> Result<GgufTensor> {
        let name = self.string()?;
        let printable = !name.contains(char::is_control) && name.len() <= 256;
        ensure!(
            printable,
            "{:?} is not a name",
            name.chars().take(40).collect::<String>()
        );
        let rank = self.u32()?;
        ensure!(
            (1..=4).contains(&rank),
            "tensor {name} has {rank} axes, expected 1 to 4"
        );
        let mut shape = Vec::new();
        for _ in 0..rank {
            let size = self.u64()?;
            let fits = (1..=i32::MAX as u64).contains(&size);
            ensure!(fits, "tensor {name} has an axis of size {size}");
            shape.insert(0, size as usize);
        }
        let (kind, offset) = (GgufType::from_id(self.u32()?), self.u64()?);
        let bytes = stored_bytes(&name, kind, &shape)?;
        Ok(GgufTensor {
            name,
            shape,
            kind,
            offset,
            bytes,
        })
    }
}

/// Little-endian bytes, at most eight of them.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len() as u32;
    (unsigned(bytes) << unused) as i64 >> unused
}

fn stored_bytes(name: &str, kind: GgufType, shape: &[usize]) -> Result<u64> {
    let Some((block, block_bytes)) = kind.block() else {
        return Ok(0);
    };
    let row = *shape.last().unwrap_or(&1) as u64;
    ensure!(
        row.is_multiple_of(block),
        "tensor {name} has rows of {row}, not in blocks of {block}"
    );
    ensure!(
        block == 1 || name.ends_with(".weight"),
        "tensor {name} must not be quantized"
    );
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let bytes = elements.and_then(|elements| (elements / block).checked_mul(block_bytes));
    bytes.with_context(|| format!("tensor {name} is impossibly large: {shape:?}"))
}
