//! Step 2: ids → vectors, and how the model knows their order.
//!
//! The embedding is a table with one row of E numbers for each of V tokens. Looking up a row is all
//! that happens here, so a word has the same vector in every sentence. Training has put tokens that
//! are used in similar ways near each other: `cosine(a, b) = a·b / (|a| |b|)` shows it.
//!
//! A row says what a token is, not where it stands. GPT-2 adds a second row for the position. Llama
//! and its relatives leave the stream alone and turn q and k in every layer instead (RoPE, Su et
//! al. 2021, arXiv 2104.09864): pair i of a head's D numbers is turned by `position · θ^(−2i/D)`,
//! so q·k depends on the distance of two tokens and not on where they are.

use std::collections::BTreeMap;

use anyhow::Result;
use mlx_rs::linalg::eigh;
use mlx_rs::{Array, Dtype, Stream, ops, with_stream};
use shared::layers::{ids_array, to_f32};
use shared::tokenizer::Tokenizer;

use crate::candidates::likeliest;
use crate::decoder::Decoder;
use crate::meanings::meanings;
use crate::order::order;
use crate::pass::Pass;
use crate::pictures::norms;
use crate::tokenize::name;
use crate::trace::{AddedPosition, Embedded, Embedding, Map, Neighbour, Point, Shifted};
use crate::widths::widths;

/// Neighbours that are looked up for each token.
const NEIGHBOURS: usize = 5;
/// Numbers of a vector that are shown.
const SHOWN: usize = 6;

/// The vectors of a prompt, their neighbours and a map of both.
pub fn embedding(decoder: &dyn Decoder, tokenizer: &Tokenizer, pass: &Pass) -> Result<Embedding> {
    let width = decoder.facts().width;
    let vectors = to_f32(&pass.embedded.tokens)?; // L·E
    let lengths = norms(&pass.embedded.tokens)?;
    let near = neighbours(decoder, tokenizer, &pass.ids)?;
    let tokens = pass.ids.iter().enumerate().map(|(position, id)| Embedded {
        norm: lengths[position],
        first: vectors[position * width..][..SHOWN.min(width)].to_vec(),
        neighbours: near[id].clone(),
    });
    Ok(Embedding {
        tokens: tokens.collect(),
        map: map(decoder, tokenizer, &pass.ids, &near)?,
        meanings: meanings(decoder, tokenizer)?,
        widths: widths(decoder),
        order: order(decoder, tokenizer)?,
        added_positions: added_positions(pass)?,
    })
}

/// For each different id, the rows of the table that point most nearly the same way.
fn neighbours(
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    ids: &[u32],
) -> Result<BTreeMap<u32, Vec<Neighbour>>> {
    let different: Vec<u32> = BTreeMap::from_iter(ids.iter().map(|id| (*id, ())))
        .into_keys()
        .collect();
    let table = unit_rows(&decoder.table()?)?; // [V, E]
    let rows = table
        .take_axis(ids_array(&different), 0)?
        .squeeze_axes(&[0])?; // [n, E]
    let cosines = to_f32(&ops::matmul(rows, table.t())?)?; // n·V
    let vocabulary = decoder.facts().vocabulary;
    let of = |(row, id): (usize, &u32)| {
        let cosines = &cosines[row * vocabulary..][..vocabulary];
        let found = likeliest(cosines, NEIGHBOURS + 1).into_iter();
        let others = found.filter(|(other, _)| other != id).take(NEIGHBOURS);
        let neighbour = |(id, cosine)| {
            Ok(Neighbour {
                id,
                piece: name(tokenizer, id)?,
                cosine,
            })
        };
        Ok((*id, others.map(neighbour).collect::<Result<_>>()?))
    };
    different.iter().enumerate().map(of).collect()
}

/// Each row divided by its length.
pub(crate) fn unit_rows(table: &Array) -> Result<Array> {
    let table = table.as_dtype(Dtype::Float32)?;
    let length = table.square()?.sum_axis(-1, true)?.sqrt()?;
    // A row of zeros, which pads the table, stays one.
    Ok(table.divide(ops::maximum(length, Array::from_f32(f32::MIN_POSITIVE))?)?)
}

fn added_positions(pass: &Pass) -> Result<Vec<AddedPosition>> {
    let Some(positions) = &pass.embedded.positions else {
        return Ok(Vec::new());
    };
    let (before, after) = (&pass.embedded.tokens, &pass.stream);
    let cosines = to_f32(&cosine(before, after)?)?;
    let lengths = norms(positions)?
        .into_iter()
        .zip(norms(after)?)
        .zip(cosines);
    let added = |((norm, sum_norm), cosine)| AddedPosition {
        norm,
        sum_norm,
        cosine,
    };
    Ok(lengths.map(added).collect())
}

/// `a·b / (|a| |b|)` over the last axis.
pub fn cosine(a: &Array, b: &Array) -> Result<Array> {
    let product = unit_rows(a)?.multiply(unit_rows(b)?)?;
    Ok(product.sum_axis(-1, false)?)
}

/// The tokens and their neighbours on the plane on which they lie farthest apart: principal
/// component analysis.
fn map(
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    ids: &[u32],
    near: &BTreeMap<u32, Vec<Neighbour>>,
) -> Result<Map> {
    let mut different: Vec<u32> = Vec::new();
    let all = near.values().flatten().map(|neighbour| neighbour.id);
    for id in ids.iter().copied().chain(all) {
        if !different.contains(&id) {
            different.push(id);
        }
    }
    let rows = decoder.table()?.take_axis(ids_array(&different), 0)?; // [1, n, E]
    let rows = rows.squeeze_axes(&[0])?.as_dtype(Dtype::Float32)?;
    let (plane, explained) = principal_plane(&rows)?;
    let point = |(row, id): (usize, &u32)| {
        Ok(Point {
            id: *id,
            piece: name(tokenizer, *id)?,
            x: plane[row][0],
            y: plane[row][1],
            at: (0..ids.len())
                .filter(|position| ids[*position] == *id)
                .collect(),
        })
    };
    let points = different
        .iter()
        .enumerate()
        .map(point)
        .collect::<Result<_>>()?;
    Ok(Map { explained, points })
}

/// Coordinates of vectors `[n, E]` on their first two principal axes, and the share of the variance
/// that each axis shows: the eigenvectors of the products of all pairs of centred vectors,
/// `[n, n]`. The sign of an axis is free: the point farthest out gets a positive coordinate.
fn principal_plane(x: &Array) -> Result<(Vec<[f32; 2]>, [f32; 2])> {
    let n = x.dim(0) as usize;
    let x = x.subtract(x.mean_axis(0, true)?)?;
    let products = ops::matmul(&x, x.t())?; // [n, n]
    // MLX has this decomposition on the CPU only.
    let (values, vectors) = with_stream(&Stream::cpu(), || eigh(&products, None))?;
    let (values, vectors) = (to_f32(&values)?, to_f32(&vectors)?); // ascending; [n, n] in columns
    let total: f32 = values.iter().map(|value| value.max(0.0)).sum();
    let (mut plane, mut explained) = (vec![[0.0; 2]; n], [0.0; 2]);
    for axis in 0..n.min(2) {
        let column = n - 1 - axis;
        let variance = values[column].max(0.0);
        let along: Vec<f32> = (0..n)
            .map(|row| vectors[row * n + column] * variance.sqrt())
            .collect();
        let farthest = along
            .iter()
            .copied()
            .max_by(|a, b| a.abs().total_cmp(&b.abs()));
        let sign = farthest.unwrap_or(1.0).signum();
        for (point, value) in plane.iter_mut().zip(along) {
            point[axis] = value * sign;
        }
        explained[axis] = if total > 0.0 { variance / total } else { 0.0 };
    }
    Ok((plane, explained))
}

/// RoPE in single steps: pair i at position p is turned by `p · frequencies[i]`.
///
/// ```text
/// a' = a·cos − b·sin
/// b' = a·sin + b·cos
/// ```
///
/// # Shapes
/// x `[1, heads, L, D]`, whose first position is `offset`; frequencies `[D/2]` → as x. A pair is
/// `(i, i + D/2)`, or `(2i, 2i + 1)` if `interleaved`.
///
/// # Errors
/// If D is not twice the number of frequencies.
pub fn rotate(x: &Array, offset: usize, frequencies: &[f32], interleaved: bool) -> Result<Array> {
    let (l, half) = (x.dim(2), frequencies.len() as i32);
    let positions = offset..offset + l as usize;
    let angles: Vec<f32> = positions
        .flat_map(|p| {
            frequencies
                .iter()
                .map(move |frequency| p as f32 * frequency)
        })
        .collect();
    let angles = Array::from_slice(&angles, &[l, half, 1]);
    let (cos, sin) = (
        angles.cos()?.as_dtype(x.dtype())?,
        angles.sin()?.as_dtype(x.dtype())?,
    );

    let pairs = if interleaved {
        x.reshape(&[1, x.dim(1), l, half, 2])?
    } else {
        x.reshape(&[1, x.dim(1), l, 2, half])?.swap_axes(-1, -2)?
    }; // [1, heads, L, D/2, 2]
    let halves = ops::split_at_indices(&pairs, &[1], -1)?;
    let (a, b) = (&halves[0], &halves[1]);
    let turned = [
        a.multiply(&cos)?.subtract(b.multiply(&sin)?)?,
        a.multiply(&sin)?.add(b.multiply(&cos)?)?,
    ];
    let pairs = ops::concatenate(&[&turned[0], &turned[1]], -1)?; // [1, heads, L, D/2, 2]
    let pairs = if interleaved {
        pairs
    } else {
        pairs.swap_axes(-1, -2)?
    };
    Ok(pairs.reshape(x.shape())?)
}

/// q·k of one query and one key at several positions: the product stays where the distance stays.
pub fn same_distance(
    decoder: &dyn Decoder,
    length: usize,
    q: &Array,
    k: &Array,
) -> Result<Vec<Shifted>> {
    let last = length.saturating_sub(1);
    let places = [
        (last, 0),
        (last + 10, 10),
        (last + 500, 500),
        (last + 1, 0),
        (last + 20, 0),
    ];
    let product = |(query, key)| {
        let (q, k) = (decoder.rotate(q, query)?, decoder.rotate(k, key)?);
        let product = to_f32(&q.multiply(k)?.as_dtype(Dtype::Float32)?.sum(false)?)?;
        Ok(Shifted {
            query,
            key,
            product: product.first().copied().unwrap_or_default(),
        })
    };
    places.into_iter().map(product).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_need_one_axis() {
        let values = [0.0_f32, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 6.0, 6.0];
        let (plane, explained) = principal_plane(&Array::from_slice(&values, &[3, 3])).unwrap();
        assert!(
            (explained[0] - 1.0).abs() < 1e-5 && explained[1] < 1e-5,
            "{explained:?}"
        );
        let x: Vec<f32> = plane.iter().map(|point| point[0]).collect();
        assert!(
            (x[1] - x[0] - 3.0).abs() < 1e-5 && (x[2] - x[1] - 6.0).abs() < 1e-5,
            "{x:?}"
        );
    }

    #[test]
    fn one_point_is_in_the_middle() {
        let (plane, explained) =
            principal_plane(&Array::from_slice(&[1.0_f32, 2.0, 3.0], &[1, 3])).unwrap();
        assert_eq!((plane[0], explained), ([0.0, 0.0], [0.0, 0.0]));
    }
}
