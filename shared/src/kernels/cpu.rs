//! The CPU's side: a step of a model on numbers that are in the host's memory anyway.
//!
//! MLX's CPU backend multiplies 16-bit and packed matrices in plain loops, and every operation of it
//! is a task for another thread: an addition of 576 numbers costs 3 µs in a row of them, a norm 40, and
//! waiting for the last one 10 to 60 more (two cores of a server, n = 7). The same addition on the host takes
//! a quarter of a microsecond, the making of an MLX array included. So here an operation takes arrays whose
//! numbers are there and gives one whose numbers are there, and between the embedding and the logits
//! nobody waits. An array that was only described is evaluated first, which is such a wait.
//!
//! Numbers are computed in f32 and rounded to the type of the arrays after each operation, as MLX does.

mod between;
mod numbers;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use console::numbers::plural;
use cpu_kernels::{Float, Level, Packed, unpack};
use mlx_rs::{Array, Dtype, ops};

pub(crate) use self::between::{
    add, attention, norm, reshape, rotate, split, swiglu, transpose, turns,
};
use self::numbers::{array, floats, numbers};
use crate::machine::on_gpu;
use crate::weights::Matrix;

/// Rows up to which a matrix is read once for all of them. From there on a BLAS is faster, which keeps
/// blocks of both matrices in the caches.
pub(super) const FEW_ROWS: usize = 32;

/// Bytes of f32 that a matrix for a BLAS is widened to at a time.
const TILE: usize = 8 << 20;

thread_local! {
    /// Asked once: neither can change, and every operation of a step asks.
    static ON: Cell<bool> =
        Cell::new(!on_gpu() && std::env::var("SHARED_KERNELS").as_deref() != Ok("mlx"));
}

/// Whether this device is the CPU, and `SHARED_KERNELS=mlx` does not ask for MLX's own operations.
pub(crate) fn is_on() -> bool {
    ON.get()
}

/// For the card: the instructions and the threads of the loops.
pub(super) fn describe() -> String {
    let threads = cpu_kernels::threads();
    format!(
        "up to {FEW_ROWS} rows own loops, {}, {threads} {}; more rows BLAS",
        Level::best().name(),
        plural(threads, "thread"),
    )
}

/// Runs `work` with MLX's own operations.
#[cfg(feature = "testing")]
pub(super) fn without<T>(work: impl FnOnce() -> T) -> T {
    let on = ON.replace(false);
    let result = work();
    ON.set(on);
    result
}

/// `x Wᵀ + b`; None for many rows of f32, which MLX gives to the BLAS as they are.
pub(super) fn product(x: &Array, matrix: &Matrix, bias: Option<&Array>) -> Result<Option<Array>> {
    let Some(weight) = stored(matrix)? else {
        return widened(x, matrix, bias);
    };
    let columns = weight.columns();
    let last = x.shape().last().map_or(0, |size| *size as usize);
    ensure!(
        last == columns,
        "x {:?} times a matrix of {columns} columns",
        x.shape()
    );
    let rows = x.size() / columns.max(1);
    if rows > FEW_ROWS {
        return if weight_is_f32(&weight) {
            Ok(None)
        } else {
            by_blas(x, &weight, bias).map(Some)
        };
    }
    let Some(numbers) = numbers(x)? else {
        return Ok(None);
    };
    let mut y = cpu_kernels::product(Level::best(), &numbers, &weight);
    if let Some(bias) = bias {
        let bias = floats(bias)?.context("a bias that is no float")?.to_f32();
        for y in y.chunks_exact_mut(bias.len().max(1)) {
            cpu_kernels::add(Level::best(), y, &bias);
        }
    }
    array(&y, &with_last(x, weight.rows()), x.dtype()).map(Some)
}

/// The product with a matrix of a float mode, for which there is no loop here: MLX's, which adds up in the
/// type of x, with x in f32. None where that is its type anyway.
fn widened(x: &Array, matrix: &Matrix, bias: Option<&Array>) -> Result<Option<Array>> {
    let (Matrix::Quantized(packed), Dtype::Bfloat16 | Dtype::Float16) = (matrix, x.dtype()) else {
        return Ok(None);
    };
    let y = packed.product(&x.as_dtype(Dtype::Float32)?)?;
    let y = match bias {
        Some(bias) => y.add(bias.as_dtype(Dtype::Float32)?)?,
        None => y,
    };
    Ok(Some(y.as_dtype(x.dtype())?))
}

/// The matrix in tiles of f32, each multiplied by the BLAS behind MLX: as fast as f32, without a widened
/// copy of the model.
fn by_blas(x: &Array, weight: &cpu_kernels::Matrix<'_>, bias: Option<&Array>) -> Result<Array> {
    let (columns, rows) = (weight.columns(), weight.rows());
    let wide = x.as_dtype(Dtype::Float32)?;
    let each = (TILE / 4 / columns).clamp(1, rows);
    let mut tile = vec![0.0; each * columns];
    let mut parts = Vec::new();
    for first in (0..rows).step_by(each) {
        let n = each.min(rows - first);
        let tile = &mut tile[..n * columns];
        unpack(Level::best(), weight, first, tile);
        let tile = Array::from_slice(tile, &[n as i32, columns as i32]);
        let part = ops::matmul(&wide, tile.t())?;
        part.eval()?; // else all tiles would be in memory at once
        parts.push(part);
    }
    let y = ops::concatenate(&parts.iter().collect::<Vec<_>>(), -1)?;
    let y = match bias {
        Some(bias) => y.add(bias.as_dtype(Dtype::Float32)?)?,
        None => y,
    };
    Ok(y.as_dtype(x.dtype())?)
}

/// The rows of `ids` `[B, L]` of a table of numbers, `[B, L, in]`; None for a packed one: MLX rounds
/// its numbers twice while it unpacks them, and so does whoever is compared with it.
///
/// # Errors
/// If an id is beyond the last row.
pub(crate) fn rows(matrix: &Matrix, ids: &Array) -> Result<Option<Array>> {
    let Matrix::Dense(dense) = matrix else {
        return Ok(None);
    };
    let (Some(weight), Dtype::Uint32) = (floats(&dense.weight)?, ids.dtype()) else {
        return Ok(None);
    };
    let (n, columns) = (dense.weight.dim(0) as usize, dense.weight.dim(1) as usize);
    let flat = ids.contiguous()?;
    let mut y = vec![0.0; ids.size() * columns];
    let rows = y.chunks_exact_mut(columns.max(1));
    for (id, row) in flat.try_as_slice::<u32>()?.iter().zip(rows) {
        let id = *id as usize;
        ensure!(id < n, "id {id} of a table of {n} rows");
        weight.widen(Level::best(), id * columns, row);
    }
    let shape = [ids.shape(), &[columns as i32]].concat();
    array(&y, &shape, dense.weight.dtype()).map(Some)
}

/// The matrix where MLX keeps it; None if there is no loop for it.
fn stored(matrix: &Matrix) -> Result<Option<cpu_kernels::Matrix<'_>>> {
    match matrix {
        Matrix::Dense(dense) => {
            let columns = dense.weight.dim(1) as usize;
            let matrix = |weight| cpu_kernels::Matrix::Dense { weight, columns };
            Ok(floats(&dense.weight)?.map(matrix))
        }
        Matrix::Quantized(q) => {
            let Some(biases) = &q.biases else {
                return Ok(None); // a float mode
            };
            let (Some(scales), Some(biases)) = (floats(&q.scales)?, floats(biases)?) else {
                return Ok(None);
            };
            let packed = Packed {
                codes: q.weight.try_as_slice::<u32>()?,
                scales,
                biases,
                bits: q.bits as usize,
                group_size: q.group_size as usize,
                columns: q.weight.dim(1) as usize * 32 / q.bits as usize,
            };
            Ok(packed
                .is_supported()
                .then_some(cpu_kernels::Matrix::Packed(packed)))
        }
    }
}

fn weight_is_f32(weight: &cpu_kernels::Matrix<'_>) -> bool {
    match weight {
        cpu_kernels::Matrix::Dense { weight, .. } => weight.float() == Float::F32,
        cpu_kernels::Matrix::Packed(_) => false,
    }
}

/// The shape of x with another last axis.
fn with_last(x: &Array, last: usize) -> Vec<i32> {
    let mut shape = x.shape().to_vec();
    if let Some(size) = shape.last_mut() {
        *size = last as i32;
    }
    shape
}
