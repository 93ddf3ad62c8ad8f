//! What a GGUF header consists of: values, entries, and the types that tensors are stored in.

use repacking::blocks::Kind;

/// One metadata value. Integers are widened to 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// uint8 to uint64.
    Unsigned(u64),
    /// int8 to int64.
    Signed(i64),
    /// float32.
    Float(f32),
    /// bool.
    Bool(bool),
    /// A UTF-8 string.
    String(String),
    /// A list of unsigned integers.
    Unsigneds(Vec<u64>),
    /// A list of signed integers.
    Signeds(Vec<i64>),
    /// A list of float32.
    Floats(Vec<f32>),
    /// A list of bools.
    Bools(Vec<bool>),
    /// A list of UTF-8 strings.
    Strings(Vec<String>),
}

/// One entry of the tensor list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// llama.cpp's name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Outermost axis first, as in safetensors (the file has it the other way round).
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub kind: GgufType,
    /// Bytes from [`GgufHeader::data_offset`](super::GgufHeader::data_offset).
    pub offset: u64,
    /// Size in the file; 0 for [`GgufType::Other`].
    pub bytes: u64,
}

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    BF16,
    /// Codes in blocks.
    Packed(Kind),
    /// A type that cannot be loaded, by its number.
    Other(u32),
}

/// Names of the types that exist but cannot be loaded, for the error message.
const OTHER_TYPES: [(u32, &str); 19] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl GgufType {
    /// From the number in the file.
    pub fn from_id(id: u32) -> Self {
        match id {
            0 => Self::F32,
            1 => Self::F16,
            30 => Self::BF16,
            id => Kind::from_id(id).map_or(Self::Other(id), Self::Packed),
        }
    }

    /// llama.cpp's name of the type.
    pub fn name(self) -> String {
        let known = |id| OTHER_TYPES.iter().find(|(other, _)| *other == id);
        match self {
            Self::Other(id) => known(id).map_or(format!("type {id}"), |(_, name)| (*name).into()),
            Self::Packed(kind) => kind.name(),
            floats => format!("{floats:?}"),
        }
    }

    /// Elements and bytes of one block; `None` for types that cannot be loaded.
    pub(super) fn block(self) -> Option<(u64, u64)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::F16 | Self::BF16 => Some((1, 2)),
            Self::Packed(kind) => Some((kind.numbers() as u64, kind.bytes() as u64)),
            Self::Other(_) => None,
        }
    }

    /// Whether it can be loaded.
    pub fn is_loadable(self) -> bool {
        self.block().is_some()
    }
}
