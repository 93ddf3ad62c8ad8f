//! AWQ and GPTQ: 4-bit codes of a matrix that is stored as `[in, out]`, with a scale and a zero for each
//! group of neighbouring inputs. A number is `scale · (code − zero)`.
//!
//! MLX has the rows of `[out, in]`, and a bias in place of the zero: `bias = −scale · zero`. Zeros that are
//! not stored are 8, the middle.

use super::Repacked;

/// Codes in a word.
pub const CODES: usize = 8;

/// Which nibble of an AWQ word, lowest first, is of which of eight columns: so its kernels on a GPU take
/// pairs of them.
const POSITIONS: [usize; CODES] = [0, 4, 1, 5, 2, 6, 3, 7];

/// How codes stand in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// AutoAWQ's GEMM version: codes `[in, out/8]`, zeros `[groups, out/8]`, both interleaved.
    Awq,
    /// Codes `[in/8, out]`, zeros `[groups, out/8]`, both in plain order.
    Gptq {
        /// What is added to the zeros: 1 in GPTQ's first version, which stores them less one.
        add: u32,
    },
}

/// A packed matrix as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// `[in, out/8]` or `[in/8, out]`, by the layout.
    pub codes: &'a [u32],
    /// `[groups, out/8]`
    pub zeros: Option<&'a [u32]>,
    /// `[groups, out]`
    pub scales: &'a [f32],
    /// Number of inputs, a multiple of eight.
    pub inputs: usize,
    /// Number of outputs, a multiple of eight.
    pub outputs: usize,
    /// How codes and zeros stand in words.
    pub layout: Layout,
}

/// Codes `[out, in/8]`, scales and biases `[out, groups]`.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn repack(matrix: &Columns) -> Repacked {
    let Columns {
        inputs, outputs, ..
    } = *matrix;
    let groups = matrix.scales.len() / outputs;
    assert!(
        inputs.is_multiple_of(CODES) && outputs.is_multiple_of(CODES),
        "[{inputs}, {outputs}] is not of whole words"
    );
    assert_eq!(matrix.codes.len(), inputs * outputs / CODES);
    assert_eq!(matrix.scales.len(), groups * outputs);
    let zeros = matrix.zeros;
    assert!(zeros.is_none_or(|zeros| zeros.len() == groups * outputs / CODES));
    let mut scales = vec![0.0; groups * outputs];
    let mut biases = scales.clone();
    for group in 0..groups {
        for output in 0..outputs {
            let scale = matrix.scales[group * outputs + output];
            let word = zeros.map(|zeros| zeros[(group * outputs + output) / CODES]);
            let zero = word.map_or(8, |word| zero(word, output % CODES, matrix.layout));
            scales[output * groups + group] = scale;
            biases[output * groups + group] = -(zero as f32) * scale;
        }
    }
    Repacked {
        codes: codes(matrix),
        scales,
        biases,
    }
}

fn zero(word: u32, column: usize, layout: Layout) -> u32 {
    match layout {
        Layout::Awq => nibble(word, POSITIONS[column]),
        Layout::Gptq { add } => nibble(word, column) + add,
    }
}

fn nibble(word: u32, at: usize) -> u32 {
    word >> (4 * at) & 15
}

fn codes(matrix: &Columns) -> Vec<u32> {
    let Columns {
        inputs, outputs, ..
    } = *matrix;
    let words = inputs / CODES;
    let mut codes = vec![0; outputs * words];
    match matrix.layout {
        // A word has eight inputs of one output, as MLX has them: only their order changes.
        Layout::Gptq { .. } => {
            for (at, word) in matrix.codes.iter().enumerate() {
                codes[at % outputs * words + at / outputs] = *word;
            }
        }
        // A word has eight outputs of one input: eight words become eight others.
        Layout::Awq => {
            let across = outputs / CODES;
            for (at, word) in matrix.codes.iter().enumerate() {
                let (input, first) = (at / across, at % across * CODES);
                for column in 0..CODES {
                    let place = &mut codes[(first + column) * words + input / CODES];
                    *place |= nibble(*word, POSITIONS[column]) << (4 * (input % CODES));
                }
            }
        }
    }
    codes
}
