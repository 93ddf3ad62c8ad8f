//! Dot products with rows of floats.

use crate::element::{Element, load};
use crate::vector::{LANES, Vector};

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
