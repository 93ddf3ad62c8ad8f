//! Dot products with rows of packed codes.
//!
//! With `w = scale · code + bias`, the sum over a group of `w · x` is `scale · Σ code·x + bias · Σ x`:
//! the codes are multiplied as they are, and `Σ x` is the same for every row of the matrix. Codes may be small
//! floats, too (`FLOATS`): those have no bias, and their scales are bytes.

use std::ops::Range;

use crate::dense::dot;
use crate::element::{Element, load};
use crate::level::Kernel;
use crate::vector::{Arrays, LANES, Vector};

/// Codes of one row of W, and where their groups begin.
pub(crate) struct PackedRow<'a, S, E> {
    pub(crate) codes: &'a [u32],
    pub(crate) scales: S,
    /// None for floats.
    pub(crate) biases: &'a [E],
}

/// The scales of some groups, however they are stored.
pub(crate) trait Scales: Copy + Send + Sync {
    /// The number; 0 beyond the last one.
    fn at(self, index: usize) -> f32;

    /// Those of a row.
    fn part(self, range: Range<usize>) -> Self;
}

impl<E: Element> Scales for &[E] {
    #[inline(always)]
    fn at(self, index: usize) -> f32 {
        self.get(index).map_or(0.0, |scale| scale.widen())
    }

    fn part(self, range: Range<usize>) -> Self {
        &self[range]
    }
}

/// Bytes, and what each of them stands for.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8], pub(crate) &'a [f32; 256]);

impl Scales for Bytes<'_> {
    #[inline(always)]
    fn at(self, index: usize) -> f32 {
        self.0
            .get(index)
            .map_or(0.0, |byte| self.1[usize::from(*byte)])
    }

    fn part(self, range: Range<usize>) -> Self {
        Self(&self.0[range], self.1)
    }
}

/// One row of x, as the loops want it.
pub(crate) struct PreparedRow {
    /// In the order in which codes are unpacked, with zeros up to a whole block.
    pub(crate) x: Vec<f32>,
    /// Σ x of each group; none for floats.
    pub(crate) sums: Vec<f32>,
}

impl PreparedRow {
    pub(crate) fn new(x: &[f32], bits: usize, group_size: usize) -> Self {
        let ones = vec![1.0; group_size];
        let sum = |group: &[f32]| dot(Arrays::<false>, group, &ones);
        Self {
            x: in_unpacked_order(x, bits),
            sums: x.chunks_exact(group_size).map(sum).collect(),
        }
    }

    /// For codes that are floats of 4 bits.
    pub(crate) fn for_floats(x: &[f32]) -> Self {
        Self {
            x: in_unpacked_order(x, 4),
            sums: Vec::new(),
        }
    }
}

/// Words of a block, which is unpacked as one.
const fn block_words(bits: usize) -> usize {
    if is_whole(bits) { LANES } else { bits }
}

/// Codes of a block.
pub(crate) const fn block_codes(bits: usize) -> usize {
    block_words(bits) * 32 / bits
}

/// Whether no code lies in two words. Then a vector holds 8 words and one shift unpacks a code of
/// each; else 32 codes are unpacked one after the other.
const fn is_whole(bits: usize) -> bool {
    32 % bits == 0
}

fn in_unpacked_order(x: &[f32], bits: usize) -> Vec<f32> {
    let block = block_codes(bits);
    let mut ordered = vec![0.0; x.len().div_ceil(block) * block];
    if !is_whole(bits) {
        ordered[..x.len()].copy_from_slice(x);
        return ordered;
    }
    let per_word = 32 / bits;
    for (at, x) in x.iter().enumerate() {
        let (word, code) = (at / per_word, at % per_word);
        ordered[word / LANES * block + code * LANES + word % LANES] = *x;
    }
    ordered
}

/// The codes of a row as floats, with zeros up to a whole block. `WORDS` is [`block_words`].
#[inline(always)]
pub(crate) fn unpack_codes<V: Vector, const BITS: usize, const WORDS: usize, const FLOATS: bool>(
    v: V,
    codes: &[u32],
    to: &mut [f32],
) {
    let (blocks, rest) = codes.as_chunks::<WORDS>();
    let mut to = to.chunks_exact_mut(block_codes(BITS));
    for (words, to) in blocks.iter().zip(&mut to) {
        unpack_block::<V, BITS, WORDS, FLOATS>(v, words, to);
    }
    if let Some(to) = to.next() {
        unpack_block::<V, BITS, WORDS, FLOATS>(v, &padded(rest), to);
    }
}

/// Multiplies one row of W with one row of x.
#[inline(always)]
pub(crate) fn product<
    V: Vector,
    const BITS: usize,
    const WORDS: usize,
    const FLOATS: bool,
    S: Scales,
    E: Element,
>(
    v: V,
    row: &PackedRow<'_, S, E>,
    group_size: usize,
    x: &PreparedRow,
) -> f32 {
    let (codes, scales) = (row.codes, row.scales);
    let sum = match Blocks::of(BITS, group_size) {
        Blocks::Quarters if BITS == 2 || FLOATS => {
            scaled_dot::<V, BITS, WORDS, FLOATS>(v, codes, x, Parts::<4, S>(scales))
        }
        Blocks::Halves if BITS == 2 || BITS == 4 => {
            scaled_dot::<V, BITS, WORDS, FLOATS>(v, codes, x, Parts::<2, S>(scales))
        }
        blocks => scaled_dot::<V, BITS, WORDS, FLOATS>(v, codes, x, Whole(scales, blocks.shift())),
    };
    sum + dot(v, row.biases, &x.sums)
}

/// Multiplies one row of W, whose codes were unpacked, with every row of x → M numbers in `out`. Added up as in
/// [`product`].
#[inline(always)]
pub(crate) fn products<V: Vector, const BITS: usize, const FLOATS: bool, S: Scales, E: Element>(
    v: V,
    row: &PackedRow<'_, S, E>,
    group_size: usize,
    unpacked: &[f32],
    xs: &[PreparedRow],
    out: &mut [f32],
) {
    let scales = row.scales;
    match Blocks::of(BITS, group_size) {
        Blocks::Quarters if BITS == 2 || FLOATS => {
            scaled_dots::<V, BITS>(v, unpacked, xs, out, Parts::<4, S>(scales));
        }
        Blocks::Halves if BITS == 2 || BITS == 4 => {
            scaled_dots::<V, BITS>(v, unpacked, xs, out, Parts::<2, S>(scales));
        }
        blocks => scaled_dots::<V, BITS>(v, unpacked, xs, out, Whole(scales, blocks.shift())),
    }
    for (x, out) in xs.iter().zip(out) {
        *out += dot(v, row.biases, &x.sums);
    }
}

/// How many groups a block has parts of.
#[derive(Clone, Copy)]
pub(crate) enum Blocks {
    Quarters,
    Halves,
    /// One, which has `2^shift` blocks.
    Whole(u32),
}

impl Blocks {
    #[inline(always)]
    pub(crate) fn of(bits: usize, group_size: usize) -> Self {
        match block_codes(bits) / group_size {
            4 => Self::Quarters,
            2 => Self::Halves,
            _ => Self::Whole((group_size / block_codes(bits)).max(1).trailing_zeros()),
        }
    }

    /// The group of a lane of a block.
    #[inline(always)]
    pub(crate) fn group(self, block: usize, lane: usize) -> usize {
        match self {
            Self::Quarters => 4 * block + lane / 2,
            Self::Halves => 2 * block + lane / 4,
            Self::Whole(shift) => block >> shift,
        }
    }

    #[inline(always)]
    fn shift(self) -> u32 {
        match self {
            Self::Whole(shift) => shift,
            _ => 0,
        }
    }
}

/// Vectors, one after the other. Not a closure, which cannot be told to be inlined: where it is not, it is
/// translated without the level's instructions, and each of them is a call.
trait Vectors {
    fn at<V: Vector>(&self, v: V, index: usize) -> V::Floats;
}

/// The scale of each block, of which `2^shift` make a group.
struct Whole<S>(S, u32);

impl<S: Scales> Vectors for Whole<S> {
    #[inline(always)]
    fn at<V: Vector>(&self, v: V, index: usize) -> V::Floats {
        v.splat(self.0.at(index >> self.1))
    }
}

/// The scales of blocks that have parts of `PARTS` groups.
struct Parts<const PARTS: usize, S>(S);

impl<const PARTS: usize, S: Scales> Vectors for Parts<PARTS, S> {
    #[inline(always)]
    fn at<V: Vector>(&self, v: V, index: usize) -> V::Floats {
        scale_lanes::<V, PARTS, S>(v, self.0, index)
    }
}

/// The codes of a block.
struct Words<'a, const BITS: usize, const WORDS: usize, const FLOATS: bool>(&'a [u32; WORDS]);

impl<const BITS: usize, const WORDS: usize, const FLOATS: bool> Vectors
    for Words<'_, BITS, WORDS, FLOATS>
{
    #[inline(always)]
    fn at<V: Vector>(&self, v: V, index: usize) -> V::Floats {
        unpack_vector::<V, BITS, WORDS, FLOATS>(v, self.0, index)
    }
}

/// `Σ scale · Σ code · x` over the blocks.
#[inline(always)]
fn scaled_dot<V: Vector, const BITS: usize, const WORDS: usize, const FLOATS: bool>(
    v: V,
    codes: &[u32],
    x: &PreparedRow,
    scale: impl Vectors,
) -> f32 {
    let (blocks, rest) = codes.as_chunks::<WORDS>();
    let mut total = v.zero();
    let mut xs = x.x.chunks_exact(block_codes(BITS));
    for (index, (words, x)) in blocks.iter().zip(&mut xs).enumerate() {
        let sum = block_sum::<V, BITS>(v, x, Words::<BITS, WORDS, FLOATS>(words));
        total = v.multiply_add(sum, scale.at(v, index), total);
    }
    if let Some(x) = xs.next() {
        let words = padded::<WORDS>(rest);
        let sum = block_sum::<V, BITS>(v, x, Words::<BITS, WORDS, FLOATS>(&words));
        total = v.multiply_add(sum, scale.at(v, blocks.len()), total);
    }
    v.sum(total)
}

/// The same for each x, of codes that were unpacked.
#[inline(always)]
fn scaled_dots<V: Vector, const BITS: usize>(
    v: V,
    unpacked: &[f32],
    xs: &[PreparedRow],
    out: &mut [f32],
    scale: impl Vectors,
) {
    for (xs, out) in xs.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
        if let ([a, b, c, d], Ok(out)) = (xs, <&mut [f32; ROWS]>::try_from(&mut *out)) {
            v.apart(Several::<BITS, ROWS, _> {
                xs: [&a.x, &b.x, &c.x, &d.x],
                unpacked,
                out,
                scale: &scale,
            });
            continue;
        }
        for (x, out) in xs.iter().zip(out) {
            v.apart(Several::<BITS, 1, _> {
                xs: [&x.x],
                unpacked,
                out: std::array::from_mut(out),
                scale: &scale,
            });
        }
    }
}

/// Rows of x that share what is loaded of a row of W: four, with three sums each.
const ROWS: usize = 4;

/// M rows of x at once.
struct Several<'a, const BITS: usize, const M: usize, S> {
    xs: [&'a [f32]; M],
    unpacked: &'a [f32],
    out: &'a mut [f32; M],
    scale: &'a S,
}

impl<const BITS: usize, const M: usize, S: Vectors> Kernel for Several<'_, BITS, M, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let n = block_codes(BITS);
        let mut totals = [v.zero(); M];
        for (index, codes) in self.unpacked.chunks_exact(n).enumerate() {
            // As `block_sum`, for all rows.
            let [mut even, mut odd] = [[v.zero(); M]; 2];
            let mut xs = [codes; M];
            for (near, x) in xs.iter_mut().zip(&self.xs) {
                *near = &x[index * n..][..n];
            }
            for pair in 0..n / LANES / 2 {
                let (first, second) = (load(v, codes, 2 * pair), load(v, codes, 2 * pair + 1));
                for row in 0..M {
                    even[row] = v.multiply_add(first, load(v, xs[row], 2 * pair), even[row]);
                    odd[row] = v.multiply_add(second, load(v, xs[row], 2 * pair + 1), odd[row]);
                }
            }
            let scale = self.scale.at(v, index);
            for row in 0..M {
                totals[row] = v.multiply_add(v.add(even[row], odd[row]), scale, totals[row]);
            }
        }
        for (out, total) in self.out.iter_mut().zip(totals) {
            *out = v.sum(total);
        }
    }
}

/// `Σ code · x` of a block, in lanes; `codes` has eight of them at a time.
#[inline(always)]
fn block_sum<V: Vector, const BITS: usize>(v: V, x: &[f32], codes: impl Vectors) -> V::Floats {
    // Two sums, because one waits four cycles for the addition before it.
    let [mut even, mut odd] = [v.zero(); 2];
    for pair in 0..block_codes(BITS) / LANES / 2 {
        let at = 2 * pair;
        even = v.multiply_add(codes.at(v, at), load(v, x, at), even);
        odd = v.multiply_add(codes.at(v, at + 1), load(v, x, at + 1), odd);
    }
    v.add(even, odd)
}

/// All codes of a block as floats.
#[inline(always)]
fn unpack_block<V: Vector, const BITS: usize, const WORDS: usize, const FLOATS: bool>(
    v: V,
    words: &[u32; WORDS],
    to: &mut [f32],
) {
    for (at, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        *to = v.numbers(unpack_vector::<V, BITS, WORDS, FLOATS>(v, words, at));
    }
}

/// The scale of each lane of a block that has parts of `PARTS` groups. The last block of a row may
/// have fewer.
#[inline(always)]
fn scale_lanes<V: Vector, const PARTS: usize, S: Scales>(
    v: V,
    scales: S,
    block: usize,
) -> V::Floats {
    let parts: [f32; PARTS] = std::array::from_fn(|part| scales.at(block * PARTS + part));
    v.floats(std::array::from_fn(|lane| parts[lane * PARTS / LANES]))
}

/// The last words of a row, with zeros up to a whole block.
fn padded<const WORDS: usize>(rest: &[u32]) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    words[..rest.len()].copy_from_slice(rest);
    words
}

/// 8 codes of a block as floats: code `at` of each of 8 words, or the `at`-th 8 of 32.
#[inline(always)]
fn unpack_vector<V: Vector, const BITS: usize, const WORDS: usize, const FLOATS: bool>(
    v: V,
    words: &[u32; WORDS],
    at: usize,
) -> V::Floats {
    let mask = (1 << BITS) - 1;
    if is_whole(BITS) {
        let words = std::array::from_fn(|lane| words[lane]);
        if FLOATS {
            return v.small_floats(words, (BITS * at) as u32);
        }
        return v.codes(words, [(BITS * at) as u32; LANES], mask);
    }
    // 8 codes are at most 48 bits, and they begin at most 24 bits into a word.
    let (word, shift) = (at * 8 * BITS / 32, at * 8 * BITS % 32);
    let next = if word + 1 < WORDS { words[word + 1] } else { 0 };
    let bits = (u64::from(words[word]) | u64::from(next) << 32) >> shift;
    let (low, high) = (bits as u32, (bits >> (4 * BITS)) as u32);
    let shifts = std::array::from_fn(|lane| (BITS * (lane % 4)) as u32);
    v.codes([low, low, low, low, high, high, high, high], shifts, mask)
}
