//! The blocks that llama.cpp packs weights into.
//!
//! Some are MLX's affine quantization in another order: a group of 32 codes with one scale and one bias.
//! They are [repacked](repack), code by code, and nothing is rounded. The others have groups of 16, or codes
//! that stand for the entries of a table: they are [unpacked](unpack) to numbers.
//!
//! The layouts are those of ggml's `dequantize_row_*` (ggml/src/ggml-quants.c); the arithmetic is that of
//! its Python twin, `gguf.quants`, operation by operation, so that numbers are the same to the last bit.

mod affine;
mod numbers;

use half::f16;

use super::Repacked;

/// How a tensor's numbers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Kind {
    /// 4 bits and a scale of 16 bits for each 32 numbers.
    Q4_0,
    /// As Q4_0, with a minimum of 16 bits.
    Q4_1,
    /// 5 bits and a scale of 16 bits for each 32 numbers.
    Q5_0,
    /// As Q5_0, with a minimum of 16 bits.
    Q5_1,
    /// 8 bits and a scale of 16 bits for each 32 numbers.
    Q8_0,
    /// 2 bits; a scale and a minimum of 4 bits for each 16 numbers, and of 16 bits for each 256.
    Q2_K,
    /// 3 bits; a scale of 6 bits for each 16 numbers, and of 16 bits for each 256.
    Q3_K,
    /// 4 bits; a scale and a minimum of 6 bits for each 32 numbers, and of 16 bits for each 256.
    Q4_K,
    /// As Q4_K with 5 bits.
    Q5_K,
    /// 6 bits; a scale of 8 bits for each 16 numbers, and of 16 bits for each 256.
    Q6_K,
    /// 4 bits that stand for the entries of a table, and a scale of 16 bits for each 32 numbers.
    IQ4_NL,
    /// As IQ4_NL; a scale of 6 bits for each 32 numbers, and of 16 bits for each 256.
    IQ4_XS,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::IQ4_XS,
    ];

    /// The type of a name such as `Q4_K`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The type of a number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// llama.cpp's name of the type.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// ggml's number of the type, which stands in the files.
    pub const fn id(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2_K => 10,
            Self::Q3_K => 11,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::IQ4_NL => 20,
            Self::IQ4_XS => 23,
        }
    }

    /// Numbers in one block.
    pub const fn numbers(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::IQ4_NL => 32,
            _ => 256,
        }
    }

    /// Bytes of one block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::IQ4_NL => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2_K => 84,
            Self::Q3_K => 110,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::IQ4_XS => 136,
        }
    }

    /// What becomes of it in memory.
    pub const fn form(self) -> Form {
        let exact_in_16_bits = !matches!(self, Self::Q4_K | Self::Q5_K);
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => Form::Affine {
                bits: 4,
                exact_in_16_bits,
            },
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => Form::Affine {
                bits: 5,
                exact_in_16_bits,
            },
            Self::Q8_0 => Form::Affine {
                bits: 8,
                exact_in_16_bits,
            },
            _ => Form::Numbers,
        }
    }
}

/// What MLX can make of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Codes of so many bits in groups of 32, each with a scale and a bias.
    Affine {
        /// Of one code.
        bits: usize,
        /// Whether floats of 16 bits hold the scales and biases: those that the file has, and products of
        /// them with a power of two, but not the products of two numbers that a K-quant has.
        exact_in_16_bits: bool,
    },
    /// Numbers.
    Numbers,
}

/// Numbers that share a scale and a bias in every affine type.
pub const GROUP: usize = 32;

/// The codes of whole blocks in the order of their numbers; None for a type whose groups MLX does not have.
///
/// # Panics
/// If `bytes` are not whole blocks.
pub fn repack(kind: Kind, bytes: &[u8]) -> Option<Repacked> {
    let blocks = blocks(kind, bytes);
    affine::repack(kind, blocks)
}

/// The numbers of whole blocks, one block after the other.
///
/// # Panics
/// If `bytes` are not whole blocks.
pub fn unpack(kind: Kind, bytes: &[u8]) -> Vec<f32> {
    let mut numbers = vec![0.0; bytes.len() / kind.bytes() * kind.numbers()];
    unpack_into(kind, bytes, &mut numbers);
    numbers
}

/// As [`unpack`], into a place that is there.
///
/// # Panics
/// If `bytes` are not whole blocks, or `numbers` not as many as theirs.
pub fn unpack_into(kind: Kind, bytes: &[u8], numbers: &mut [f32]) {
    let blocks = blocks(kind, bytes);
    assert_eq!(
        blocks.len() * kind.numbers(),
        numbers.len(),
        "place for other blocks than {kind:?}"
    );
    for (block, numbers) in blocks.zip(numbers.chunks_exact_mut(kind.numbers())) {
        numbers::unpack(kind, block, numbers);
    }
}

fn blocks(kind: Kind, bytes: &[u8]) -> std::slice::ChunksExact<'_, u8> {
    assert!(
        bytes.len().is_multiple_of(kind.bytes()),
        "{} bytes are not whole blocks of {kind:?}",
        bytes.len()
    );
    bytes.chunks_exact(kind.bytes())
}

/// The 16-bit float at byte `at`.
fn float(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
