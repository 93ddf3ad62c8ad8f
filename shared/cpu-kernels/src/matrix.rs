//! A matrix of weights, times a few rows.

use crate::element::{Element, Floats};
use crate::level::{Kernel, Level};
use crate::packed::{PackedRow, PreparedRow};
use crate::vector::Vector;
use crate::{columns, dense, packed, pool};

/// A matrix `[N, K]`, row after row.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// Numbers.
    Dense {
        /// `[N, K]`
        weight: Floats<'a>,
        /// K
        columns: usize,
    },
    /// Codes of a few bits.
    Packed(Packed<'a>),
}

/// A packed matrix `[N, K]` in MLX's layout: `w = scale · code + bias`, the codes of a row one
/// little-endian string of bits.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// `[N, K·bits/32]`
    pub codes: &'a [u32],
    /// `[N, K/G]`
    pub scales: Floats<'a>,
    /// `[N, K/G]`, of the same type.
    pub biases: Floats<'a>,
    /// Bits of a code: 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
    /// G: 32, 64 or 128.
    pub group_size: usize,
    /// K
    pub columns: usize,
}

impl Matrix<'_> {
    /// K
    pub fn columns(&self) -> usize {
        match self {
            Self::Dense { columns, .. } => *columns,
            Self::Packed(packed) => packed.columns,
        }
    }

    /// N
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense { weight, columns } => weight.len() / columns,
            Self::Packed(packed) => packed.codes.len() / packed.words(),
        }
    }

    /// Panics unless the lengths fit each other: a row would be cut off, or read from the middle of another.
    fn check(&self) {
        match self {
            Self::Dense { weight, columns } => {
                let whole = weight.len().is_multiple_of(*columns);
                assert!(whole, "{} numbers in rows of {columns}", weight.len());
            }
            Self::Packed(packed) => packed.check(),
        }
    }

    /// What a row takes in memory.
    fn row_bytes(&self) -> usize {
        match self {
            Self::Dense { weight, columns } => match weight {
                Floats::F32(_) => 4 * columns,
                _ => 2 * columns,
            },
            Self::Packed(packed) => 4 * packed.words(),
        }
    }
}

impl Packed<'_> {
    /// Whether there is a loop for it.
    pub fn is_supported(&self) -> bool {
        matches!(self.bits, 2 | 3 | 4 | 5 | 6 | 8)
            && matches!(self.group_size, 32 | 64 | 128)
            && self.columns.is_multiple_of(self.group_size)
            && self.scales.float() == self.biases.float()
    }

    fn check(&self) {
        let (bits, group) = (self.bits, self.group_size);
        assert!(
            self.is_supported(),
            "no loop for {bits} bits, groups of {group}"
        );
        let rows = self.codes.len() / self.words();
        let lengths = [self.codes.len(), self.scales.len(), self.biases.len()];
        let [words, groups] = [rows * self.words(), rows * self.groups()];
        assert_eq!(lengths, [words, groups, groups], "words, scales and biases");
    }

    fn words(&self) -> usize {
        self.columns * self.bits / 32
    }

    fn groups(&self) -> usize {
        self.columns / self.group_size
    }
}

/// `x Wᵀ`: x `[M, K]` → `[M, N]`. In which order a row is added up does not depend on the others.
///
/// # Cost
/// The matrix is read once: at the speed of memory for a few rows, which use what was loaded one after the other.
/// For many, some rows of the matrix at a time are widened and turned in the CPU's caches.
///
/// # Panics
/// If the lengths do not fit each other, or if [`Packed::is_supported`] says no.
pub fn product(level: Level, x: &[f32], matrix: &Matrix<'_>) -> Vec<f32> {
    matrix.check();
    let (numbers, columns) = (x.len(), matrix.columns());
    assert!(
        numbers.is_multiple_of(columns),
        "{numbers} numbers times {columns} columns"
    );
    let (m, n) = (numbers / columns, matrix.rows());
    let mut y = vec![0.0; m * n];
    if m >= MANY_ROWS {
        multiply_many(level, &Rows::new(x, matrix), matrix, &mut y);
    } else {
        let rows = Rows::new(x, matrix);
        pool::for_each_chunk(&mut y, m, matrix.row_bytes(), |first, out| {
            multiply(level, &rows, matrix, first, out);
        });
    }
    y
}

/// Rows of x from which on it pays to turn W.
const MANY_ROWS: usize = 6;

/// The rows of x, as the loops of the matrix want them.
enum Rows<'a> {
    Plain(&'a [f32]),
    Prepared(Vec<PreparedRow>),
}

impl<'a> Rows<'a> {
    fn new(x: &'a [f32], matrix: &Matrix<'_>) -> Self {
        match matrix {
            Matrix::Dense { .. } => Self::Plain(x),
            Matrix::Packed(packed) => {
                let rows = x.chunks_exact(packed.columns);
                let prepare = |row| PreparedRow::new(row, packed.bits, packed.group_size);
                Self::Prepared(rows.map(prepare).collect())
            }
        }
    }
}

/// All rows of x with rows of W, from `first` on, as many as `out` has room for. A loop for each type and
/// width, and each translated as a function of its own.
fn multiply(level: Level, rows: &Rows<'_>, matrix: &Matrix<'_>, first: usize, out: &mut [f32]) {
    match (rows, *matrix) {
        (Rows::Plain(x), Matrix::Dense { weight, columns }) => {
            let n = out.len() / (x.len() / columns);
            let rows = first * columns..(first + n) * columns;
            match weight {
                Floats::F32(w) => level.run(DenseProducts(x, &w[rows], columns, out)),
                Floats::Bf16(w) => level.run(DenseProducts(x, &w[rows], columns, out)),
                Floats::F16(w) => level.run(DenseProducts(x, &w[rows], columns, out)),
            }
        }
        (Rows::Prepared(xs), Matrix::Packed(packed)) => match (packed.scales, packed.biases) {
            (Floats::F32(s), Floats::F32(b)) => packed_of(level, xs, &packed, s, b, first, out),
            (Floats::Bf16(s), Floats::Bf16(b)) => packed_of(level, xs, &packed, s, b, first, out),
            (Floats::F16(s), Floats::F16(b)) => packed_of(level, xs, &packed, s, b, first, out),
            _ => unreachable!("scales and biases are of one type"),
        },
        _ => unreachable!("the rows were prepared for this matrix"),
    }
}

/// The rows of x, those of W, K, and their products.
struct DenseProducts<'a, E>(&'a [f32], &'a [E], usize, &'a mut [f32]);

impl<E: Element> Kernel for DenseProducts<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self(x, weight, k, out) = self;
        if x.len() == k {
            for (weight, out) in weight.chunks_exact(k).zip(out) {
                *out = dense::dot(v, weight, x);
            }
            return;
        }
        let mut wide = vec![0.0; k];
        let m = x.len() / k;
        for (weight, out) in weight.chunks_exact(k).zip(out.chunks_exact_mut(m)) {
            for (wide, weight) in wide.iter_mut().zip(weight) {
                *wide = weight.widen();
            }
            for (x, out) in x.chunks_exact(k).zip(out) {
                *out = dense::dot(v, &wide, x);
            }
        }
    }
}

/// Many rows of x with all of W.
fn multiply_many(level: Level, rows: &Rows<'_>, matrix: &Matrix<'_>, y: &mut [f32]) {
    match (rows, *matrix) {
        (Rows::Plain(x), Matrix::Dense { weight, columns }) => match weight {
            Floats::F32(w) => columns::dense(level, x, w, columns, y),
            Floats::Bf16(w) => columns::dense(level, x, w, columns, y),
            Floats::F16(w) => columns::dense(level, x, w, columns, y),
        },
        (Rows::Prepared(xs), Matrix::Packed(packed)) => match (packed.scales, packed.biases) {
            (Floats::F32(s), Floats::F32(b)) => many_packed_of(level, xs, &packed, s, b, y),
            (Floats::Bf16(s), Floats::Bf16(b)) => many_packed_of(level, xs, &packed, s, b, y),
            (Floats::F16(s), Floats::F16(b)) => many_packed_of(level, xs, &packed, s, b, y),
            _ => unreachable!("scales and biases are of one type"),
        },
        _ => unreachable!("the rows were prepared for this matrix"),
    }
}

fn many_packed_of<E: Element>(
    level: Level,
    xs: &[PreparedRow],
    packed: &Packed<'_>,
    scales: &[E],
    biases: &[E],
    y: &mut [f32],
) {
    let (words, groups) = (packed.words(), packed.groups());
    let row = |row: usize| PackedRow {
        codes: &packed.codes[row * words..][..words],
        scales: &scales[row * groups..][..groups],
        biases: &biases[row * groups..][..groups],
    };
    let group_size = packed.group_size;
    match packed.bits {
        2 => columns::packed::<2, 8, _>(level, xs, row, group_size, y),
        3 => columns::packed::<3, 3, _>(level, xs, row, group_size, y),
        4 => columns::packed::<4, 8, _>(level, xs, row, group_size, y),
        5 => columns::packed::<5, 5, _>(level, xs, row, group_size, y),
        6 => columns::packed::<6, 6, _>(level, xs, row, group_size, y),
        8 => columns::packed::<8, 8, _>(level, xs, row, group_size, y),
        bits => unreachable!("codes of {bits} bits"),
    }
}

fn packed_of<E: Element>(
    level: Level,
    xs: &[PreparedRow],
    packed: &Packed<'_>,
    scales: &[E],
    biases: &[E],
    first: usize,
    out: &mut [f32],
) {
    let rows = packed_rows(packed, scales, biases, first).take(out.len() / xs.len());
    let group_size = packed.group_size;
    match packed.bits {
        2 => level.run(PackedProducts::<2, 8, _>(xs, rows, group_size, out)),
        3 => level.run(PackedProducts::<3, 3, _>(xs, rows, group_size, out)),
        4 => level.run(PackedProducts::<4, 8, _>(xs, rows, group_size, out)),
        5 => level.run(PackedProducts::<5, 5, _>(xs, rows, group_size, out)),
        6 => level.run(PackedProducts::<6, 6, _>(xs, rows, group_size, out)),
        8 => level.run(PackedProducts::<8, 8, _>(xs, rows, group_size, out)),
        bits => unreachable!("codes of {bits} bits"),
    }
}

/// The rows of x, those of W, the size of a group, and their products.
struct PackedProducts<'a, const BITS: usize, const WORDS: usize, I>(
    &'a [PreparedRow],
    I,
    usize,
    &'a mut [f32],
);

impl<'a, const BITS: usize, const WORDS: usize, E, I> Kernel for PackedProducts<'_, BITS, WORDS, I>
where
    E: Element + 'a,
    I: Iterator<Item = PackedRow<'a, E>>,
{
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self(xs, rows, group_size, out) = self;
        for (row, out) in rows.zip(out.chunks_exact_mut(xs.len())) {
            for (x, out) in xs.iter().zip(out) {
                *out = packed::product::<V, BITS, WORDS, E>(v, &row, group_size, x);
            }
        }
    }
}

/// The rows of a packed matrix from `first` on.
#[inline(always)]
fn packed_rows<'a, E: Element>(
    packed: &Packed<'a>,
    scales: &'a [E],
    biases: &'a [E],
    first: usize,
) -> impl Iterator<Item = PackedRow<'a, E>> {
    let (words, groups) = (packed.words(), packed.groups());
    let codes = packed.codes[first * words..].chunks_exact(words);
    let scales = scales[first * groups..].chunks_exact(groups);
    let biases = biases[first * groups..].chunks_exact(groups);
    let rows = codes.zip(scales).zip(biases);
    rows.map(|((codes, scales), biases)| PackedRow {
        codes,
        scales,
        biases,
    })
}
