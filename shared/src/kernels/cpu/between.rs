//! What stands between two products.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cpu_kernels::{Attention, Level, Turn};
use mlx_rs::{Array, transforms};

use super::is_on;
use super::numbers::{array, float, floats, is_float, numbers};
use crate::ffi::host;
use crate::layers::Mask;

/// Numbers up to which moving them on the host is cheaper than asking MLX for a view.
const FEW: usize = 1 << 16;

/// How long it is worth staying awake for a cache's views.
const PATIENCE: Duration = Duration::from_micros(200);

/// `a + b` of one shape.
pub(crate) fn add(a: &Array, b: &Array) -> Result<Option<Array>> {
    in_pairs(a, b, cpu_kernels::add)
}

/// `silu(gate) · up`
pub(crate) fn swiglu(gate: &Array, up: &Array) -> Result<Option<Array>> {
    in_pairs(gate, up, cpu_kernels::swiglu)
}

/// What `work` makes of the numbers of a, each with its own of b; both of one shape and type.
fn in_pairs(
    a: &Array,
    b: &Array,
    work: impl FnOnce(Level, &mut [f32], &[f32]),
) -> Result<Option<Array>> {
    if !is_on() || a.shape() != b.shape() || a.dtype() != b.dtype() {
        return Ok(None);
    }
    let (Some(mut y), Some(b)) = (numbers(a)?, numbers(b)?) else {
        return Ok(None);
    };
    work(Level::best(), &mut y, &b);
    array(&y, a.shape(), a.dtype()).map(Some)
}

/// RMS norm over the last axis.
pub(crate) fn norm(x: &Array, weight: &Array, eps: f32) -> Result<Option<Array>> {
    let width = weight.size();
    if !is_on() || x.shape().last() != Some(&(width as i32)) || x.dtype() != weight.dtype() {
        return Ok(None);
    }
    let (Some(mut y), Some(weight)) = (numbers(x)?, floats(weight)?) else {
        return Ok(None);
    };
    cpu_kernels::norm(Level::best(), &mut y, &weight.to_f32(), eps);
    array(&y, x.shape(), x.dtype()).map(Some)
}

/// x cut along its last axis before each of `at`, if it is a few numbers that are there.
pub(crate) fn split(x: &Array, at: &[i32]) -> Result<Option<Vec<Array>>> {
    if !is_here(x) {
        return Ok(None);
    }
    let (Some(numbers), Some(&width)) = (numbers(x)?, x.shape().last()) else {
        return Ok(None);
    };
    let begins = [&[0], at].concat();
    let ends = [at, &[width]].concat();
    let pieces = begins.iter().zip(ends).map(|(begin, end)| {
        let mut piece = Vec::with_capacity(numbers.len() / width as usize * (end - begin) as usize);
        for row in numbers.chunks_exact(width as usize) {
            piece.extend_from_slice(&row[*begin as usize..end as usize]);
        }
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = end - begin;
        }
        array(&piece, &shape, x.dtype())
    });
    pieces.collect::<Result<_>>().map(Some)
}

/// The same numbers in another shape, if they are few and there. One size may be −1.
pub(crate) fn reshape(x: &Array, shape: &[i32]) -> Result<Option<Array>> {
    if !is_here(x) {
        return Ok(None);
    }
    let known: i32 = shape.iter().filter(|size| **size >= 0).product();
    let size = x.size() as i32;
    if known == 0 || size % known != 0 {
        return Ok(None);
    }
    let whole = shape
        .iter()
        .map(|&part| if part < 0 { size / known } else { part });
    let shape: Vec<i32> = whole.collect();
    if shape.iter().product::<i32>() != size {
        return Ok(None);
    }
    let Some(numbers) = numbers(x)? else {
        return Ok(None);
    };
    array(&numbers, &shape, x.dtype()).map(Some)
}

/// The axes in another order, if that moves no number: with one token the heads are in order already.
pub(crate) fn transpose(x: &Array, axes: &[i32]) -> Result<Option<Array>> {
    let shape: Option<Vec<i32>> = axes
        .iter()
        .map(|&axis| x.shape().get(usize::try_from(axis).ok()?).copied())
        .collect();
    let Some(shape) = shape.filter(|shape| shape.len() == x.ndim()) else {
        return Ok(None);
    };
    let wide = |axis: &&i32| x.shape()[**axis as usize] != 1;
    let moved = axes.iter().filter(wide);
    if moved.is_sorted() {
        return reshape(x, &shape);
    }
    Ok(None)
}

/// Whether the operation is worth doing here: the numbers are there, and few.
fn is_here(x: &Array) -> bool {
    is_on() && x.size() <= FEW && is_float(x) && host::is_available(x)
}

/// Of each row of scores `[B, V]` the logarithm of their sum, f32 `[B, 1]`, and the likeliest id, u32 `[B]`: from
/// the log-probabilities as their type rounds them, the first one if several are equal.
pub(crate) fn greedy(scores: &Array) -> Result<Option<(Array, Array)>> {
    let &[rows, width] = scores.shape() else {
        return Ok(None);
    };
    if !is_on() || width == 0 {
        return Ok(None);
    }
    let (Some(float), Some(numbers)) = (float(scores.dtype()), numbers(scores)?) else {
        return Ok(None);
    };
    let each = numbers.chunks_exact(width as usize);
    let (totals, ids): (Vec<f32>, Vec<u32>) = each
        .map(|row| cpu_kernels::log_sum_and_best(Level::best(), row, float))
        .map(|(total, best)| (total, best as u32))
        .unzip();
    Ok(Some((
        Array::from_slice(&totals, &[rows, 1]),
        Array::from_slice(&ids, &[rows]),
    )))
}

/// Cosines and sines of some positions, one after the other.
pub(crate) type Turns = Rc<Vec<Turn>>;

thread_local! {
    /// Those of the last call: all layers of a model rotate by the same angles.
    static LAST: RefCell<Option<(TurnsKey, Turns)>> = const { RefCell::new(None) };
}

/// What turns depend on.
#[derive(Debug, Clone, PartialEq)]
struct TurnsKey {
    /// Radians from one position to the next, one per pair.
    frequencies: Vec<f32>,
    magnitude: f32,
    firsts: Vec<i32>,
    n: usize,
}

/// The turns of `n` positions from each of `firsts` on.
pub(crate) fn turns(frequencies: &[f32], magnitude: f32, firsts: &[i32], n: usize) -> Turns {
    LAST.with_borrow_mut(|last| {
        let fits = |key: &TurnsKey| {
            (key.n, key.magnitude) == (n, magnitude)
                && key.firsts == firsts
                && key.frequencies == frequencies
        };
        if let Some((key, turns)) = last
            && fits(key)
        {
            return turns.clone();
        }
        let turn = |position: i32| {
            let angles = frequencies
                .iter()
                .map(|frequency| position as f32 * frequency);
            let (sin, cos) = angles
                .map(|angle| (magnitude * angle.sin(), magnitude * angle.cos()))
                .unzip();
            Turn { cos, sin }
        };
        let positions = firsts.iter().flat_map(|first| *first..first + n as i32);
        let turns: Turns = Rc::new(positions.map(turn).collect());
        let key = TurnsKey {
            frequencies: frequencies.to_vec(),
            magnitude,
            firsts: firsts.to_vec(),
            n,
        };
        *last = Some((key, turns.clone()));
        turns
    })
}

/// x `[B, H, L, D]` with each position turned by its own of `turns`: L of them for all rows, or B · L.
pub(crate) fn rotate(x: &Array, turns: &[Turn], neighbours: bool) -> Result<Option<Array>> {
    let Some(mut y) = numbers(x)? else {
        return Ok(None);
    };
    let [b, h, l, d] = [0, 1, 2, 3].map(|axis| x.dim(axis) as usize);
    ensure!(
        turns.len() == l || turns.len() == b * l,
        "{b} rows of {l} positions and {} turns",
        turns.len()
    );
    if y.is_empty() {
        return array(&y, x.shape(), x.dtype()).map(Some);
    }
    let of_rows = turns.chunks_exact(l).cycle();
    for (row, turns) in y.chunks_exact_mut(h * l * d).zip(of_rows) {
        for positions in row.chunks_exact_mut(l * d) {
            for (head, turn) in positions.chunks_exact_mut(d).zip(turns) {
                cpu_kernels::rotate(head, turn, neighbours);
            }
        }
    }
    array(&y, x.shape(), x.dtype()).map(Some)
}

/// Attention. None: MLX's own.
pub(crate) fn attention(
    q: &Array,
    k: &Array,
    v: &Array,
    scale: f32,
    mask: &Mask,
) -> Result<Option<Array>> {
    let same = q.dtype() == k.dtype() && q.dtype() == v.dtype() && k.dim(3) == v.dim(3);
    if !is_on() || !is_float(q) || !same {
        return Ok(None);
    }
    // The wait of a layer: a cache hands out views.
    wait_for([k, v])?;
    attend(q, k, v, scale, mask)
}

/// Evaluates arrays for which MLX's thread has a few microseconds of work. It is asked again and again whether
/// they are there, since to fall asleep and be woken takes longer than the work; the core is free for whoever
/// wants it meanwhile.
fn wait_for(arrays: [&Array; 2]) -> Result<()> {
    transforms::async_eval(arrays)?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE && !arrays.iter().all(|array| host::is_available(array)) {
        thread::yield_now();
    }
    Ok(transforms::eval(arrays)?)
}

fn attend(q: &Array, k: &Array, v: &Array, scale: f32, mask: &Mask) -> Result<Option<Array>> {
    let (k, v) = (&head_by_head(k)?, &head_by_head(v)?);
    let (Some(keys), Some(values)) = (host::heads(k), host::heads(v)) else {
        return Ok(None);
    };
    let Some(numbers) = numbers(q)? else {
        return Ok(None);
    };
    let (b, l, s) = (q.dim(0), q.dim(2), k.dim(2));
    let (lengths, window) = match mask {
        Mask::Spans(spans) => (&*spans.lengths, spans.window),
        Mask::None | Mask::Causal => (&[s][..], None),
    };
    let fits = |length: &i32| (l..=s).contains(length);
    ensure!(
        [1, b as usize].contains(&lengths.len()) && lengths.iter().all(fits),
        "{b} rows of {l} queries and {s} positions of which {lengths:?} are to be seen"
    );
    let wide = |length: &i32| *length as usize;
    let lengths: Vec<usize> = lengths.iter().map(wide).collect();
    let call = Attention {
        q: &numbers,
        keys,
        values,
        head_dim: q.dim(3) as usize,
        queries: q.dim(2) as usize,
        scale,
        lengths: &lengths,
        causal: !matches!(mask, Mask::None),
        window: window.as_ref().map(wide),
    };
    let y = cpu_kernels::attention(Level::best(), &call);
    array(&y, q.shape(), q.dtype()).map(Some)
}

/// `[B, H, S, D]` with the numbers of each head next to each other; a cache that stores what it is given may
/// have them position by position.
fn head_by_head(x: &Array) -> Result<Array> {
    if host::heads(x).is_some() {
        return Ok(x.clone());
    }
    let x = x.contiguous()?;
    x.eval()?;
    Ok(x)
}
