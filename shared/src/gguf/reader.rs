//! Bytes of a GGUF file → numbers, strings and entries, never beyond the end of the file.

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::types::{GgufTensor, GgufType, GgufValue};

/// Far above any vocabulary. Short integers grow to 64 bits here, and no file may fill the memory.
const MAX_LIST: u64 = 1 << 24;

/// Walks over the file; every method fails instead of reading past the end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
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

    pub(super) fn string(&mut self) -> Result<String> {
        let length = self.u64()?;
        let text = std::str::from_utf8(self.take(length)?).context("a string is not UTF-8")?;
        Ok(text.to_owned())
    }

    pub(super) fn value(&mut self) -> Result<GgufValue> {
        let kind = self.u32()?;
        Ok(match kind {
            8 => GgufValue::String(self.string()?),
            9 => self.list()?,
            kind => match self.numbers(kind, 1)? {
                GgufValue::Unsigneds(values) => GgufValue::Unsigned(values[0]),
                GgufValue::Signeds(values) => GgufValue::Signed(values[0]),
                GgufValue::Floats(values) => GgufValue::Float(values[0]),
                GgufValue::Bools(values) => GgufValue::Bool(values[0]),
                other => other,
            },
        })
    }

    fn list(&mut self) -> Result<GgufValue> {
        let (kind, count) = (self.u32()?, self.u64()?);
        ensure!(count <= MAX_LIST, "a list of {count} values is too long");
        match kind {
            8 => Ok(GgufValue::Strings(
                (0..count).map(|_| self.string()).collect::<Result<_>>()?,
            )),
            9 => bail!("lists of lists are not supported"),
            kind => self.numbers(kind, count),
        }
    }

    /// `count` values of a type of fixed width.
    fn numbers(&mut self, kind: u32, count: u64) -> Result<GgufValue> {
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10 | 11 => 8,
            // MLX's reader takes them for 32 bits wide and loses its place in the file.
            12 => bail!("64-bit floats in metadata are not supported"),
            kind => bail!("unknown value type {kind}"),
        };
        let bytes = self.take(count.saturating_mul(width))?;
        let values = bytes.chunks_exact(width as usize);
        Ok(match kind {
            0 | 2 | 4 | 10 => GgufValue::Unsigneds(values.map(unsigned).collect()),
            1 | 3 | 5 | 11 => GgufValue::Signeds(values.map(signed).collect()),
            6 => GgufValue::Floats(values.map(|v| f32::from_bits(unsigned(v) as u32)).collect()),
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
