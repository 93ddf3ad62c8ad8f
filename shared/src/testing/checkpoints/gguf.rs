//! GGUF files written value by value, so that each value can be a wrong one.

/// The parts of a GGUF file.
#[derive(Debug, Clone)]
pub struct GgufFile {
    /// Number of the format's version; 2 and 3 have the same layout.
    pub version: u32,
    /// Metadata: key, number of the type, encoded value.
    pub metadata: Vec<(String, u32, Vec<u8>)>,
    /// Tensors: name, sizes (innermost first), number of the type, offset.
    pub tensors: Vec<(String, Vec<u64>, u32, u64)>,
    /// Tensors begin at multiples of it; [`GgufFile::align`] writes it into the metadata, too.
    alignment: usize,
    data: Vec<u8>,
}

impl Default for GgufFile {
    /// No metadata, no tensors.
    fn default() -> Self {
        Self {
            version: 3,
            metadata: vec![],
            tensors: vec![],
            alignment: 32,
            data: vec![],
        }
    }
}

impl GgufFile {
    /// Metadata of a small Llama: 1 layer, width 64, 4 query and 2 key/value heads, 3 tokens.
    pub fn llama() -> Self {
        let mut file = Self::default();
        file.text("general.architecture", "llama");
        for (key, size) in [
            ("block_count", 1),
            ("embedding_length", 64),
            ("feed_forward_length", 96),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("context_length", 128),
        ] {
            file.uint(&format!("llama.{key}"), size);
        }
        file.float("llama.attention.layer_norm_rms_epsilon", 1e-5);
        file.texts("tokenizer.ggml.tokens", &["<s>", "a", "b"]);
        file
    }

    /// Sets a value; `kind` and `value` need not fit each other.
    pub fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.metadata.retain(|(other, ..)| other != key);
        self.metadata.push((key.to_owned(), kind, value));
    }

    /// Sets a uint32.
    pub fn uint(&mut self, key: &str, value: u32) {
        self.set(key, 4, value.to_le_bytes().to_vec());
    }

    /// Sets a float32.
    pub fn float(&mut self, key: &str, value: f32) {
        self.set(key, 6, value.to_le_bytes().to_vec());
    }

    /// Sets a string.
    pub fn text(&mut self, key: &str, value: &str) {
        self.set(key, 8, string(value));
    }

    /// Sets a list of strings.
    pub fn texts(&mut self, key: &str, values: &[&str]) {
        let mut encoded = 8u32.to_le_bytes().to_vec();
        encoded.extend((values.len() as u64).to_le_bytes());
        encoded.extend(values.iter().flat_map(|value| string(value)));
        self.set(key, 9, encoded);
    }

    /// Sets a list of int32.
    pub fn ints(&mut self, key: &str, values: &[i32]) {
        let mut encoded = 5u32.to_le_bytes().to_vec();
        encoded.extend((values.len() as u64).to_le_bytes());
        encoded.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.set(key, 9, encoded);
    }

    /// Lets tensors begin at other multiples than 32; to be called before the first tensor.
    pub fn align(&mut self, alignment: usize) {
        self.uint("general.alignment", alignment as u32);
        self.alignment = alignment;
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(other, ..)| other != key);
    }

    /// Adds a tensor: sizes innermost first, as the file has them.
    pub fn tensor(&mut self, name: &str, sizes: &[u64], kind: u32, data: &[u8]) {
        self.tensors.push((
            name.to_owned(),
            sizes.to_vec(),
            kind,
            self.data.len() as u64,
        ));
        self.data.extend(data);
        self.data
            .resize(self.data.len().next_multiple_of(self.alignment), 0);
    }

    /// Adds a float32 tensor: sizes innermost first, as the file has them.
    pub fn floats(&mut self, name: &str, sizes: &[u64], values: &[f32]) {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensor(name, sizes, 0, &data);
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.metadata {
            bytes.extend(string(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        for (name, sizes, kind, offset) in &self.tensors {
            bytes.extend(string(name));
            bytes.extend((sizes.len() as u32).to_le_bytes());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// 1 as a 16-bit float.
const ONE: [u8; 2] = 0x3c00u16.to_le_bytes();

/// Whole numbers from -8 to 7 as Q4_0, in blocks of 32 with the scale 1.
///
/// A byte holds the codes of two elements that are 16 apart (ggml's `dequantize_row_q4_0`).
pub fn q4_0(values: &[f32]) -> Vec<u8> {
    let block = |values: &[f32]| {
        let code = |at: usize| (values[at] + 8.0) as u8;
        let codes = (0..16).map(move |at| code(at) | code(at + 16) << 4);
        ONE.into_iter().chain(codes).collect::<Vec<u8>>()
    };
    values.chunks_exact(32).flat_map(block).collect()
}

/// Whole numbers from -32 to 31 as Q6_K, in blocks of 256 with all scales 1.
///
/// Each half of a block has 64 bytes with the low 4 bits of its 128 codes and 32 bytes with the high 2
/// (ggml's `dequantize_row_q6_K`).
pub fn q6_k(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in values.chunks_exact(256) {
        let (mut low, mut high) = ([0; 128], [0; 64]);
        for (at, value) in block.iter().enumerate() {
            let code = (value + 32.0) as u8;
            let (half, quarter, place) = (at / 128, at % 128 / 32, at % 32);
            low[64 * half + 32 * (quarter % 2) + place] |= (code & 15) << (4 * (quarter / 2));
            high[32 * half + place] |= (code >> 4) << (2 * quarter);
        }
        bytes.extend(low);
        bytes.extend(high);
        bytes.extend([1; 16]);
        bytes.extend(ONE);
    }
    bytes
}
