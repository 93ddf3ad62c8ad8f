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
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use console::numbers::plural;
use cpu_kernels::{Level, Packed, SmallFloats};
use mlx_rs::{Array, Dtype};

pub(crate) use self::between::{
    add, attention, greedy, norm, reshape, rotate, split, swiglu, transpose, turns,
};
use self::numbers::{array, floats, numbers};
use crate::config::Mode;
use crate::machine::on_gpu;
use crate::weights::{Matrix, QuantizedTriple};

/// Rows up to which MLX multiplies with a matrix that there is no loop for: it unpacks a number anew for each row.
/// For more it is cheaper to unpack all numbers once.
const FEW_ROWS: usize = 32;

/// Bytes of f32 that such a matrix is unpacked to at a time.
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
        "own loops, {}, {threads} {}",
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

/// `x Wᵀ + b`; None for numbers that are no floats.
pub(super) fn product(x: &Array, matrix: &Matrix, bias: Option<&Array>) -> Result<Option<Array>> {
    let Some(weight) = stored(matrix)? else {
        return match matrix {
            Matrix::Quantized(packed) => without_loop(x, packed, bias),
            Matrix::Dense(_) => Ok(None),
        };
    };
    check_width(x, weight.columns())?;
    let Some(numbers) = numbers(x)? else {
        return Ok(None);
    };
    let y = cpu_kernels::product(Level::best(), &numbers, &weight);
    finish(y, x, weight.rows(), bias).map(Some)
}

fn check_width(x: &Array, columns: usize) -> Result<()> {
    let last = x.shape().last().map_or(0, |size| *size as usize);
    ensure!(
        last == columns,
        "x {:?} times a matrix of {columns} columns",
        x.shape()
    );
    Ok(())
}

/// Adds the bias to the numbers of a product with `rows` rows, and rounds to the type of x.
fn finish(mut y: Vec<f32>, x: &Array, rows: usize, bias: Option<&Array>) -> Result<Array> {
    if let Some(bias) = bias {
        let bias = floats(bias)?.context("a bias that is no float")?.to_f32();
        for y in y.chunks_exact_mut(bias.len().max(1)) {
            cpu_kernels::add(Level::best(), y, &bias);
        }
    }
    array(&y, &with_last(x, rows), x.dtype())
}

/// The product with a matrix for whose codes there is no loop here, as those of mxfp8.
fn without_loop(
    x: &Array,
    packed: &QuantizedTriple,
    bias: Option<&Array>,
) -> Result<Option<Array>> {
    let columns = packed.columns();
    if packed.mode == Mode::Affine || x.size() <= FEW_ROWS * columns {
        return widened(x, packed, bias);
    }
    check_width(x, columns)?;
    let Some(numbers) = numbers(x)? else {
        return Ok(None);
    };
    let rows = packed.weight.dim(0) as usize;
    let y = in_tiles(&numbers, packed, [rows, columns])?;
    finish(y, x, rows, bias).map(Some)
}

/// `x Wᵀ` with W `[rows, columns]` unpacked a tile after the other: no widened copy of the model.
fn in_tiles(x: &[f32], packed: &QuantizedTriple, [rows, columns]: [usize; 2]) -> Result<Vec<f32>> {
    let mut y = vec![0.0; x.len() / columns * rows];
    let most = (TILE / 4 / columns).max(1);
    for first in (0..rows).step_by(most) {
        let tile = first..rows.min(first + most);
        let weight = packed.unpack_rows(tile.clone(), Dtype::Float32)?;
        let weight = floats(&weight)?.context("a tile that is no float")?;
        let matrix = cpu_kernels::Matrix::Dense { weight, columns };
        let part = cpu_kernels::product(Level::best(), x, &matrix);
        let parts = part.chunks_exact(tile.len());
        for (y, part) in y.chunks_exact_mut(rows).zip(parts) {
            y[tile.clone()].copy_from_slice(part);
        }
    }
    Ok(y)
}

/// MLX's product, which adds up in the type of x, with x in f32. None where that is its type anyway.
fn widened(x: &Array, packed: &QuantizedTriple, bias: Option<&Array>) -> Result<Option<Array>> {
    if !matches!(x.dtype(), Dtype::Bfloat16 | Dtype::Float16) {
        return Ok(None);
    }
    let y = packed.product(&x.as_dtype(Dtype::Float32)?)?;
    let y = match bias {
        Some(bias) => y.add(bias.as_dtype(Dtype::Float32)?)?,
        None => y,
    };
    Ok(Some(y.as_dtype(x.dtype())?))
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
                return Ok(small_floats(q)?.map(cpu_kernels::Matrix::SmallFloats));
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
                columns: q.columns(),
            };
            Ok(packed
                .is_supported()
                .then_some(cpu_kernels::Matrix::Packed(packed)))
        }
    }
}

/// A matrix of mxfp4 or nvfp4; None for mxfp8, and where one number more is multiplied with.
fn small_floats(q: &QuantizedTriple) -> Result<Option<SmallFloats<'_>>> {
    let half_scales = match (q.mode, &q.global_scale) {
        (Mode::Mxfp4, None) => &HALF_POWERS,
        (Mode::Nvfp4, None) => &HALF_FLOATS,
        _ => return Ok(None),
    };
    Ok(Some(SmallFloats {
        codes: q.weight.try_as_slice::<u32>()?,
        scales: q.scales.try_as_slice::<u8>()?,
        half_scales,
        group_size: q.group_size as usize,
        columns: q.columns(),
    }))
}

/// Half of what the bytes of mxfp4 stand for: an exponent (E8M0). The last one should be no number, and MLX takes it as
/// infinity.
static HALF_POWERS: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|byte| match byte {
        255 => f32::INFINITY,
        byte => 2_f64.powi(byte as i32 - 128) as f32, // in f32 the smallest would become 0
    })
});

/// Half of what the bytes of nvfp4 stand for: a float with a sign, four bits of exponent and three more (E4M3). The last
/// one of either sign should be no number, and MLX takes it as 480.
static HALF_FLOATS: LazyLock<[f32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        let (exponent, digits) = (byte >> 3 & 15, (byte & 7) as f32 / 8.0);
        let size = match exponent {
            0 => digits * 2_f32.powi(-7),
            exponent => (1.0 + digits) * 2_f32.powi(exponent as i32 - 8),
        };
        if byte < 128 { size } else { -size }
    })
});

/// The shape of x with another last axis.
fn with_last(x: &Array, last: usize) -> Vec<i32> {
    let mut shape = x.shape().to_vec();
    if let Some(size) = shape.last_mut() {
        *size = last as i32;
    }
    shape
}
