//! A matrix of weights, times a few rows.

use crate::element::{Element, Floats};
use crate::level::{Kernel, Level};
use crate::packed::{Bytes, PackedRow, PreparedRow, Scales};
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
    /// Codes that are floats of 4 bits.
    SmallFloats(SmallFloats<'a>),
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

/// A matrix `[N, K]` in MLX's modes mxfp4 and nvfp4: `w = scale · code`, the codes floats of 4 bits (E2M1), eight in
/// a word, and the scales bytes.
#[derive(Debug, Clone, Copy)]
pub struct SmallFloats<'a> {
    /// `[N, K/8]`
    pub codes: &'a [u32],
    /// `[N, K/G]`
    pub scales: &'a [u8],
    /// Half of what each byte stands for: codes are multiplied as whole numbers, which are doubled floats.
    pub half_scales: &'a [f32; 256],
    /// G: 16 or 32.
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
            Self::SmallFloats(floats) => floats.columns,
        }
    }

    /// N
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense { weight, columns } => weight.len() / columns,
            Self::Packed(packed) => packed.codes.len() / packed.words(),
            Self::SmallFloats(floats) => floats.codes.len() / (floats.columns / 8),
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
            Self::SmallFloats(floats) => floats.check(),
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
            Self::SmallFloats(floats) => floats.columns / 2,
        }
    }
}

impl SmallFloats<'_> {
    fn check(&self) {
        let (size, columns) = (self.group_size, self.columns);
        assert!(
            matches!(size, 16 | 32) && columns.is_multiple_of(size),
            "no loop for groups of {size} in rows of {columns}"
        );
        let rows = self.codes.len() / (columns / 8);
        let lengths = [self.codes.len(), self.scales.len()];
        assert_eq!(
            lengths,
            [rows * columns / 8, rows * columns / size],
            "words and scales"
        );
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
const MANY_ROWS: usize = 12;

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
            Matrix::SmallFloats(floats) => {
                let rows = x.chunks_exact(floats.columns);
                Self::Prepared(rows.map(PreparedRow::for_floats).collect())
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
        (Rows::Prepared(xs), Matrix::SmallFloats(floats)) => {
            let scales = Bytes(floats.scales, floats.half_scales);
            let sizes = [floats.columns / 8, floats.columns / floats.group_size];
            let rows = packed_rows::<_, f32>(floats.codes, scales, None, sizes, first);
            let rows = rows.take(out.len() / xs.len());
            level.run(PackedProducts::<4, 8, true, _>(
                xs,
                rows,
                floats.group_size,
                out,
            ));
        }
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
        let mut wide = vec![0.0; dense::TILE * k];
        let near = dense::TILE * x.len() / k;
        for (weight, out) in weight.chunks(dense::TILE * k).zip(out.chunks_mut(near)) {
            let wide = &mut wide[..weight.len()];
            for (wide, weight) in wide.iter_mut().zip(weight) {
                *wide = weight.widen();
            }
            dense::tiles(v, x, wide, k, out);
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
        (Rows::Prepared(xs), Matrix::SmallFloats(floats)) => {
            let scales = Bytes(floats.scales, floats.half_scales);
            let sizes = [floats.columns / 8, floats.columns / floats.group_size];
            let row = |row| packed_row::<_, f32>(floats.codes, scales, None, sizes, row);
            let (groups, size) = (sizes[1], floats.group_size);
            columns::packed::<4, 8, true, _, _>(level, xs, row, groups, size, y);
        }
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
    let sizes = [packed.words(), packed.groups()];
    let row = |row| packed_row(packed.codes, scales, Some(biases), sizes, row);
    let (groups, size) = (packed.groups(), packed.group_size);
    match packed.bits {
        2 => columns::packed::<2, 8, false, _, _>(level, xs, row, groups, size, y),
        3 => columns::packed::<3, 3, false, _, _>(level, xs, row, groups, size, y),
        4 => columns::packed::<4, 8, false, _, _>(level, xs, row, groups, size, y),
        5 => columns::packed::<5, 5, false, _, _>(level, xs, row, groups, size, y),
        6 => columns::packed::<6, 6, false, _, _>(level, xs, row, groups, size, y),
        8 => columns::packed::<8, 8, false, _, _>(level, xs, row, groups, size, y),
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
    let sizes = [packed.words(), packed.groups()];
    let rows = packed_rows(packed.codes, scales, Some(biases), sizes, first);
    let rows = rows.take(out.len() / xs.len());
    let group_size = packed.group_size;
    match packed.bits {
        2 => level.run(PackedProducts::<2, 8, false, _>(xs, rows, group_size, out)),
        3 => level.run(PackedProducts::<3, 3, false, _>(xs, rows, group_size, out)),
        4 => level.run(PackedProducts::<4, 8, false, _>(xs, rows, group_size, out)),
        5 => level.run(PackedProducts::<5, 5, false, _>(xs, rows, group_size, out)),
        6 => level.run(PackedProducts::<6, 6, false, _>(xs, rows, group_size, out)),
        8 => level.run(PackedProducts::<8, 8, false, _>(xs, rows, group_size, out)),
        bits => unreachable!("codes of {bits} bits"),
    }
}

/// The rows of x, those of W, the size of a group, and their products.
struct PackedProducts<'a, const BITS: usize, const WORDS: usize, const FLOATS: bool, I>(
    &'a [PreparedRow],
    I,
    usize,
    &'a mut [f32],
);

impl<'a, const BITS: usize, const WORDS: usize, const FLOATS: bool, S, E, I> Kernel
    for PackedProducts<'_, BITS, WORDS, FLOATS, I>
where
    S: Scales,
    E: Element + 'a,
    I: Iterator<Item = PackedRow<'a, S, E>>,
{
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self(xs, rows, group_size, out) = self;
        if let [x] = xs {
            for (row, out) in rows.zip(out) {
                *out = packed::product::<V, BITS, WORDS, FLOATS, S, E>(v, &row, group_size, x);
            }
            return;
        }
        let mut codes = vec![0.0; xs[0].x.len()];
        for (row, out) in rows.zip(out.chunks_exact_mut(xs.len())) {
            packed::unpack_codes::<V, BITS, WORDS, FLOATS>(v, row.codes, &mut codes);
            packed::products::<V, BITS, FLOATS, S, E>(v, &row, group_size, &codes, xs, out);
        }
    }
}

/// The rows of a packed matrix from `first` on, each of so many words and groups.
#[inline(always)]
fn packed_rows<'a, S: Scales + 'a, E: Element>(
    codes: &'a [u32],
    scales: S,
    biases: Option<&'a [E]>,
    sizes: [usize; 2],
    first: usize,
) -> impl Iterator<Item = PackedRow<'a, S, E>> {
    let rows = first..codes.len() / sizes[0];
    rows.map(move |row| packed_row(codes, scales, biases, sizes, row))
}

#[inline(always)]
fn packed_row<'a, S: Scales, E: Element>(
    codes: &'a [u32],
    scales: S,
    biases: Option<&'a [E]>,
    [words, groups]: [usize; 2],
    row: usize,
) -> PackedRow<'a, S, E> {
    let part = row * groups..(row + 1) * groups;
    PackedRow {
        codes: &codes[row * words..][..words],
        scales: scales.part(part.clone()),
        biases: biases.map_or(&[], |biases| &biases[part]),
    }
}
