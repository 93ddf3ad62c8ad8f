//! A matrix of weights, times a few rows.

use crate::dense::Strides;
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

/// `x Wᵀ`: x `[M, K]` → `[M, N]`. In which order a row is added up does not depend on the others.
///
/// # Cost
/// A few rows read the matrix once, at the speed of memory. Of a prompt each thread takes some rows of x, and
/// widens the matrix a few rows at a time into the CPU's caches.
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
        let to = Strides { x: n, w: 1 };
        pool::in_pieces(&mut y, n, m, n * columns, |first, out| {
            let x = &x[first * columns..][..out.len() / n * columns];
            multiply(level, &Rows::new(x, matrix), matrix, 0, to, out);
        });
    } else {
        let rows = Rows::new(x, matrix);
        let to = Strides { x: 1, w: m };
        pool::for_each_chunk(&mut y, m, matrix.row_bytes(), |first, out| {
            multiply(level, &rows, matrix, first, to, out);
        });
    }
    y
}

/// Rows of x from which on threads share them, and no longer the rows of W.
const MANY_ROWS: usize = 48;

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
fn multiply(
    level: Level,
    rows: &Rows<'_>,
    matrix: &Matrix<'_>,
    first: usize,
    to: Strides,
    out: &mut [f32],
) {
    match (rows, *matrix) {
        (Rows::Plain(x), Matrix::Dense { weight, columns }) => {
            let n = out.len() / (x.len() / columns);
            let rows = first * columns..(first + n) * columns;
            match weight {
                Floats::F32(w) => level.run(DenseProducts(x, &w[rows], columns, to, out)),
                Floats::Bf16(w) => level.run(DenseProducts(x, &w[rows], columns, to, out)),
                Floats::F16(w) => level.run(DenseProducts(x, &w[rows], columns, to, out)),
            }
        }
        (Rows::Prepared(xs), Matrix::Packed(packed)) => match (packed.scales, packed.biases) {
            (Floats::F32(s), Floats::F32(b)) => packed_of(level, xs, &packed, s, b, first, to, out),
            (Floats::Bf16(s), Floats::Bf16(b)) => {
                packed_of(level, xs, &packed, s, b, first, to, out)
            }
            (Floats::F16(s), Floats::F16(b)) => packed_of(level, xs, &packed, s, b, first, to, out),
            _ => unreachable!("scales and biases are of one type"),
        },
        _ => unreachable!("the rows were prepared for this matrix"),
    }
}

/// The rows of x, those of W, K, and where the products go.
struct DenseProducts<'a, E>(&'a [f32], &'a [E], usize, Strides, &'a mut [f32]);

impl<E: Element> Kernel for DenseProducts<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self(x, weight, k, to, out) = self;
        if x.len() == k {
            for (weight, out) in weight.chunks_exact(k).zip(out) {
                *out = dense::dot(v, weight, x);
            }
            return;
        }
        let mut wide = vec![0.0; dense::WIDE * k];
        for (tile, weight) in weight.chunks(dense::WIDE * k).enumerate() {
            let wide = &mut wide[..weight.len()];
            for (wide, weight) in wide.iter_mut().zip(weight) {
                *wide = weight.widen();
            }
            dense::products(v, x, wide, k, to, &mut out[tile * dense::WIDE * to.w..]);
        }
    }
}

#[expect(clippy::too_many_arguments)]
fn packed_of<E: Element>(
    level: Level,
    xs: &[PreparedRow],
    packed: &Packed<'_>,
    scales: &[E],
    biases: &[E],
    first: usize,
    to: Strides,
    out: &mut [f32],
) {
    let rows = packed_rows(packed, scales, biases, first).take(out.len() / xs.len());
    let group_size = packed.group_size;
    match packed.bits {
        2 => level.run(PackedProducts::<2, 8, _>(xs, rows, group_size, to, out)),
        3 => level.run(PackedProducts::<3, 3, _>(xs, rows, group_size, to, out)),
        4 => level.run(PackedProducts::<4, 8, _>(xs, rows, group_size, to, out)),
        5 => level.run(PackedProducts::<5, 5, _>(xs, rows, group_size, to, out)),
        6 => level.run(PackedProducts::<6, 6, _>(xs, rows, group_size, to, out)),
        8 => level.run(PackedProducts::<8, 8, _>(xs, rows, group_size, to, out)),
        bits => unreachable!("codes of {bits} bits"),
    }
}

/// The rows of x, those of W, the size of a group, and where the products go.
struct PackedProducts<'a, const BITS: usize, const WORDS: usize, I>(
    &'a [PreparedRow],
    I,
    usize,
    Strides,
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
        let Self(xs, rows, group_size, to, out) = self;
        if let [x] = xs {
            for (row, out) in rows.zip(out) {
                *out = packed::product::<V, BITS, WORDS, E>(v, &row, group_size, x);
            }
            return;
        }
        let rows: Vec<_> = rows.collect();
        let k = xs[0].len();
        let near = dense::near_rows(k);
        let mut codes = vec![0.0; dense::WIDE * k];
        let mut products = vec![0.0; near];
        for (at, rows) in rows.chunks(dense::WIDE).enumerate() {
            for (row, codes) in rows.iter().zip(codes.chunks_exact_mut(k)) {
                packed::unpack_codes::<V, BITS, WORDS>(v, row.codes, codes);
            }
            for (near_at, xs) in xs.chunks(near).enumerate() {
                let out = &mut out[near_at * near * to.x + at * dense::WIDE * to.w..];
                for (n, (row, codes)) in rows.iter().zip(codes.chunks_exact(k)).enumerate() {
                    let products = &mut products[..xs.len()];
                    packed::products::<V, BITS, E>(v, row, group_size, codes, xs, products);
                    for (m, product) in products.iter().enumerate() {
                        out[m * to.x + n * to.w] = *product;
                    }
                }
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
