//! A matrix of weights, times a few rows.

use crate::element::{Element, Floats};
use crate::level::{Kernel, Level};
use crate::packed::{PackedRow, PreparedRow};
use crate::vector::Vector;
use crate::{dense, packed, pool};

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

/// `x Wᵀ`: x `[M, K]` → `[M, N]`.
///
/// # Cost
/// Reads the matrix once, for up to some 32 rows; with more of them a BLAS is faster, which keeps
/// blocks of both in the CPU's caches.
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
    let m = numbers / columns;
    let mut y = vec![0.0; m * matrix.rows()];
    let rows = Rows::new(x, matrix);
    pool::for_each_chunk(&mut y, m, matrix.row_bytes(), |first, out| {
        multiply(level, &rows, matrix, first, out);
    });
    y
}

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

/// All rows of x with some rows of W, from `first` on: the M products of one row of W side by side in
/// `out`. A loop for each type and width, and each translated as a function of its own.
fn multiply(level: Level, rows: &Rows<'_>, matrix: &Matrix<'_>, first: usize, out: &mut [f32]) {
    match (rows, *matrix) {
        (Rows::Plain(x), Matrix::Dense { weight, columns }) => {
            let m = x.len() / columns;
            match weight {
                Floats::F32(w) => level.run(DenseProducts::new(x, m, &w[first * columns..], out)),
                Floats::Bf16(w) => level.run(DenseProducts::new(x, m, &w[first * columns..], out)),
                Floats::F16(w) => level.run(DenseProducts::new(x, m, &w[first * columns..], out)),
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

struct DenseProducts<'a, E> {
    x: &'a [f32],
    m: usize,
    /// From the first row on that is multiplied.
    weight: &'a [E],
    out: &'a mut [f32],
}

impl<'a, E> DenseProducts<'a, E> {
    fn new(x: &'a [f32], m: usize, weight: &'a [E], out: &'a mut [f32]) -> Self {
        Self { x, m, weight, out }
    }
}

impl<E: Element> Kernel for DenseProducts<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let columns = self.x.len() / self.m;
        let mut wide = vec![0.0; columns];
        let weights = self.weight.chunks_exact(columns);
        for (weight, out) in weights.zip(self.out.chunks_exact_mut(self.m)) {
            dense::dots(v, weight, self.x, &mut wide, out);
        }
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
    let rows = packed_rows(packed, scales, biases, first);
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

/// The rows of x, those of W, the size of a group, and where the products go.
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
        let unpacked = &mut Vec::new();
        for (row, out) in rows.zip(out.chunks_exact_mut(xs.len())) {
            packed::dots::<V, BITS, WORDS, E>(v, &row, group_size, xs, unpacked, out);
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

/// The rows from `first` on as f32, as many as `out` has room for: `[n, K]`.
///
/// # Panics
/// As [`product`].
pub fn unpack(level: Level, matrix: &Matrix<'_>, first: usize, out: &mut [f32]) {
    matrix.check();
    let (columns, rows) = (matrix.columns(), matrix.rows());
    assert!(
        out.len().is_multiple_of(columns),
        "{} numbers for rows of {columns}",
        out.len()
    );
    let n = out.len() / columns;
    assert!(first + n <= rows, "{n} rows from {first} on, of {rows}");
    pool::in_pieces(out, columns, n, matrix.row_bytes(), |row, out| {
        widen(level, matrix, first + row, out);
    });
}

/// The same for one thread.
fn widen(level: Level, matrix: &Matrix<'_>, first: usize, out: &mut [f32]) {
    match *matrix {
        Matrix::Dense { weight, columns } => {
            weight.widen(level, first * columns, out);
        }
        Matrix::Packed(packed) => match (packed.scales, packed.biases) {
            (Floats::F32(s), Floats::F32(b)) => unpack_of(level, &packed, s, b, first, out),
            (Floats::Bf16(s), Floats::Bf16(b)) => unpack_of(level, &packed, s, b, first, out),
            (Floats::F16(s), Floats::F16(b)) => unpack_of(level, &packed, s, b, first, out),
            _ => unreachable!("scales and biases are of one type"),
        },
    }
}

fn unpack_of<E: Element>(
    level: Level,
    packed: &Packed<'_>,
    scales: &[E],
    biases: &[E],
    first: usize,
    out: &mut [f32],
) {
    let rows = packed_rows(packed, scales, biases, first);
    let (columns, group_size) = (packed.columns, packed.group_size);
    match packed.bits {
        2 => level.run(Unpack::<2, _>(rows, columns, group_size, out)),
        3 => level.run(Unpack::<3, _>(rows, columns, group_size, out)),
        4 => level.run(Unpack::<4, _>(rows, columns, group_size, out)),
        5 => level.run(Unpack::<5, _>(rows, columns, group_size, out)),
        6 => level.run(Unpack::<6, _>(rows, columns, group_size, out)),
        8 => level.run(Unpack::<8, _>(rows, columns, group_size, out)),
        bits => unreachable!("codes of {bits} bits"),
    }
}

/// The rows of W, K, the size of a group, and where the numbers go.
struct Unpack<'a, const BITS: usize, I>(I, usize, usize, &'a mut [f32]);

impl<'a, const BITS: usize, E, I> Kernel for Unpack<'_, BITS, I>
where
    E: Element + 'a,
    I: Iterator<Item = PackedRow<'a, E>>,
{
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Self(rows, columns, group_size, out) = self;
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            packed::unpack::<BITS, E>(&row, group_size, out);
        }
    }
}
