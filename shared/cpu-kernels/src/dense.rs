//! Dot products with rows of floats.

use crate::element::{Element, load};
use crate::level::Kernel;
use crate::vector::{LANES, Vector};

/// Rows of W and of x that are multiplied at once: twelve sums, so that AVX2's sixteen registers hold them and what
/// is loaded. A number that is loaded is used three or four times: the multipliers are busy, not the loads.
pub(crate) const TILE: usize = 3;
const TILE_OF_X: usize = 4;

/// Blocks of 32 numbers of each row that a tile works on before it goes on: what fits into the first cache.
const NEAR: usize = 32;

/// Up to three rows of W with M rows of x, `K` numbers each. The M products of a row of W are side by side.
#[inline(always)]
pub(crate) fn tiles<V: Vector>(v: V, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let m = x.len() / k;
    for (at, x) in x.chunks(TILE_OF_X * k).enumerate() {
        let out = &mut out[at * TILE_OF_X..];
        match (x.len() / k, w.len() / k) {
            (4, 3) => tile::<V, 4>(v, x, w, k, m, out),
            (3, 3) => tile::<V, 3>(v, x, w, k, m, out),
            (2, 3) => tile::<V, 2>(v, x, w, k, m, out),
            (1, 3) => tile::<V, 1>(v, x, w, k, m, out),
            _ => {
                for (i, x) in x.chunks_exact(k).enumerate() {
                    for (j, w) in w.chunks_exact(k).enumerate() {
                        out[j * m + i] = dot(v, w, x);
                    }
                }
            }
        }
    }
}

/// `M` rows of x with three rows of W.
#[inline(always)]
fn tile<V: Vector, const M: usize>(
    v: V,
    x: &[f32],
    w: &[f32],
    k: usize,
    m: usize,
    out: &mut [f32],
) {
    let mut sums = [[[[0.0; LANES]; TILE]; M]; 4];
    let mut rows_of_x = [x; M];
    for (row, x_row) in rows_of_x.iter_mut().enumerate() {
        *x_row = &x[row * k..][..k];
    }
    let rows_of_w = [&w[..k], &w[k..2 * k], &w[2 * k..3 * k]];
    v.apart(AddProducts {
        x: rows_of_x,
        w: rows_of_w,
        sums: &mut sums,
    });
    let whole = k / (4 * LANES) * 4 * LANES;
    for (i, x) in rows_of_x.iter().enumerate() {
        for (j, w) in rows_of_w.iter().enumerate() {
            let four = [
                v.floats(sums[0][i][j]),
                v.floats(sums[1][i][j]),
                v.floats(sums[2][i][j]),
                v.floats(sums[3][i][j]),
            ];
            out[j * m + i] = total(v, four, &w[whole..], &x[whole..]);
        }
    }
}

/// The four sums of [`dot`] of each product: those of all products come one after the other instead of the four of
/// one side by side. So each is added up in the same order, and the registers hold a quarter of all at a time.
struct AddProducts<'a, const M: usize> {
    x: [&'a [f32]; M],
    w: [&'a [f32]; TILE],
    sums: &'a mut [[[[f32; LANES]; TILE]; M]; 4],
}

impl<const M: usize> Kernel for AddProducts<'_, M> {
    type Output = ();

    /// Loops instead of closures: what is not inlined is not translated for the level.
    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Self { x, w, sums } = self;
        let [w0, w1, w2] = [blocks(w[0]), blocks(w[1]), blocks(w[2])];
        let n = w0.len();
        let mut x_blocks = [w0; M];
        for row in 0..M {
            x_blocks[row] = blocks(x[row]);
        }
        for from in (0..n).step_by(NEAR) {
            let to = n.min(from + NEAR);
            let (w0, w1, w2) = (&w0[from..to], &w1[from..to], &w2[from..to]);
            let mut x = x_blocks;
            for x in &mut x {
                *x = &x[from..to];
            }
            for (at, sums) in sums.iter_mut().enumerate() {
                add_products(v, &x, [w0, w1, w2], at, sums);
            }
        }
    }
}

/// Adds the products of the `at`-th eight of each block.
#[inline(always)]
fn add_products<V: Vector, const M: usize>(
    v: V,
    x: &[&[[f32; 4 * LANES]]; M],
    [w0, w1, w2]: [&[[f32; 4 * LANES]]; TILE],
    at: usize,
    sums: &mut [[[f32; LANES]; TILE]; M],
) {
    let mut near = [[v.zero(); TILE]; M];
    for (near, sums) in near.iter_mut().zip(sums.iter()) {
        for (near, sum) in near.iter_mut().zip(sums) {
            *near = v.floats(*sum);
        }
    }
    for block in 0..w0.len() {
        let a = load(v, &w0[block], at);
        let b = load(v, &w1[block], at);
        let c = load(v, &w2[block], at);
        for row in 0..M {
            let x = load(v, &x[row][block], at);
            near[row][0] = v.multiply_add(a, x, near[row][0]);
            near[row][1] = v.multiply_add(b, x, near[row][1]);
            near[row][2] = v.multiply_add(c, x, near[row][2]);
        }
    }
    for (near, sums) in near.iter().zip(sums) {
        for (near, sum) in near.iter().zip(sums) {
            *sum = v.numbers(*near);
        }
    }
}

#[inline(always)]
fn blocks(row: &[f32]) -> &[[f32; 4 * LANES]] {
    row.as_chunks().0
}

/// Multiplies one row of W with one of x. In which order is added up is the same everywhere in this file.
#[inline(always)]
pub(crate) fn dot<V: Vector, E: Element>(v: V, weight: &[E], x: &[f32]) -> f32 {
    let (blocks, rest) = weight.as_chunks::<{ 4 * LANES }>();
    let (x_blocks, x_rest) = x.as_chunks::<{ 4 * LANES }>();
    // Four sums, because one waits four cycles for the addition before it.
    let [mut a, mut b, mut c, mut d] = [v.zero(); 4];
    for (w, x) in blocks.iter().zip(x_blocks) {
        a = v.multiply_add(load(v, w, 0), load(v, x, 0), a);
        b = v.multiply_add(load(v, w, 1), load(v, x, 1), b);
        c = v.multiply_add(load(v, w, 2), load(v, x, 2), c);
        d = v.multiply_add(load(v, w, 3), load(v, x, 3), d);
    }
    total(v, [a, b, c, d], rest, x_rest)
}

/// The four sums and what is left of the rows, fewer than 32 numbers.
#[inline(always)]
fn total<V: Vector, E: Element>(
    v: V,
    [mut a, b, c, d]: [V::Floats; 4],
    weight: &[E],
    x: &[f32],
) -> f32 {
    let (blocks, rest) = weight.as_chunks::<LANES>();
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    for (w, x) in blocks.iter().zip(x_blocks) {
        a = v.multiply_add(load(v, w, 0), load(v, x, 0), a);
    }
    let total = v.sum(v.add(v.add(a, b), v.add(c, d)));
    let rest = rest.iter().zip(x_rest);
    rest.fold(total, |total, (weight, x)| total + weight.widen() * x)
}
