//! One row times a 4-bit matrix on an NVIDIA GPU, the product that a decode step is made of.
//!
//! With one row no number of the matrix is used twice, so the time is that of reading it. In the
//! products of a 7B model, MLX's kernel for one row reads a quarter of what an H100 can, this one 45 %
//! (results/NOTES.md). On a Mac and on a CPU, for several rows and for codes of other widths MLX's own
//! kernels are used. What it costs: MLX compiles it when a process needs it first, 1.4 seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype};

use crate::config::Mode;
use crate::ffi;
use crate::ffi::cuda_kernel::{CudaKernel, Launch};
use crate::machine::on_gpu;
use crate::weights::QuantizedTriple;

/// Rows that a block of the kernel takes, as in its source.
const ROWS_PER_BLOCK: i32 = 4;

/// Numbers of x that a thread keeps, as in the kernel's source.
const COLUMNS_PER_THREAD: i32 = 32;

/// A block has all of x, and its threads share the registers of one multiprocessor.
const MAX_COLUMNS: i32 = 896 * COLUMNS_PER_THREAD;

/// The product, if x is one row and the kernel can do it: x `[1, 1, K]` times packed `[N, K]` →
/// `[1, 1, N]`.
///
/// # Errors
/// If the parts of the matrix do not fit each other, or if MLX refuses the launch.
pub(super) fn product(x: &Array, matrix: &QuantizedTriple) -> Result<Option<Array>> {
    if !is_available() {
        return Ok(None);
    }
    let Some(biases) = &matrix.biases else {
        return Ok(None);
    };
    let shape = Shape::of(matrix);
    if !shape.is_supported(matrix) || !shape.takes(x) {
        return Ok(None);
    }
    let (n, k, groups) = (shape.rows, shape.columns, shape.columns / shape.group_size);
    let inputs = [x, &matrix.weight, &matrix.scales, biases];
    let shapes = inputs.map(Array::shape);
    ensure!(
        shapes[1..] == [[n, k / 8], [n, groups], [n, groups]],
        "{shapes:?} are not one row and the matrix [{n}, {k}]"
    );
    STATE.with_borrow_mut(|state| {
        let State { kernel, launches } = state;
        let kernel = kernel.as_ref().context("MLX was built without CUDA")?;
        let launch = match launches.entry(shape) {
            Entry::Occupied(launch) => launch.into_mut(),
            Entry::Vacant(place) => place.insert(shape.launch()?),
        };
        // SAFETY: the shapes are those of the launch (checked), the types those of the matrix
        // that it was made for. Its codes begin where memory was allocated, which is aligned for
        // loads of 16 bytes: a loaded or joined matrix is no view. There is a block for every 4
        // of the N rows; a thread reads what belongs to its 32 of the K columns, and row n is
        // written by one thread.
        unsafe { kernel.launch(&inputs, launch) }.map(Some)
    })
}

/// What the launch depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// N
    rows: i32,
    /// K
    columns: i32,
    /// G
    group_size: i32,
    dtype: Dtype,
}

impl Shape {
    fn of(matrix: &QuantizedTriple) -> Self {
        Self {
            rows: matrix.weight.dim(0),
            columns: matrix.weight.dim(1) * 32 / matrix.bits,
            group_size: matrix.group_size,
            dtype: matrix.scales.dtype(),
        }
    }

    fn is_supported(&self, matrix: &QuantizedTriple) -> bool {
        matrix.bits == 4
            && self.group_size % COLUMNS_PER_THREAD == 0
            && self.columns <= MAX_COLUMNS
            && matrix.mode == Mode::Affine
            && matrix.biases.as_ref().map(Array::dtype) == Some(self.dtype)
    }

    /// Whether x is one row of the matrix's type, `[1, 1, K]`.
    fn takes(&self, x: &Array) -> bool {
        x.shape() == [1, 1, self.columns] && x.dtype() == self.dtype
    }

    fn launch(&self) -> Result<Launch> {
        let blocks = (self.rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
        let threads = (self.columns / COLUMNS_PER_THREAD + 31) / 32 * 32; // whole warps
        Launch::new(&[1, 1, self.rows], self.dtype, blocks, threads)?
            .with_type("T", self.dtype)?
            .with_number("G", self.group_size)
    }
}

/// The kernel, compiled by MLX once for each type and group size, and how it was launched: a model
/// has a handful of shapes, and describing a launch anew for each product would cost host time.
struct State {
    kernel: Option<CudaKernel>,
    launches: HashMap<Shape, Launch>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State {
        kernel: kernel(),
        launches: HashMap::new(),
    });
    /// Asked once: the answer cannot change, and every product of a decode step asks.
    static AVAILABLE: bool = on_gpu() && ffi::cuda_is_available();
}

fn kernel() -> Option<CudaKernel> {
    let inputs = ["x", "w", "scales", "biases"];
    CudaKernel::new("one_row", &inputs, "y", include_str!("one_row.cu")).ok()
}

/// Whether MLX's arrays are on an NVIDIA GPU.
pub(super) fn is_available() -> bool {
    AVAILABLE.with(|available| *available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{split, to_f32};
    use mlx_rs::{ops, random};

    const TYPES: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

    fn normal(shape: &[i32], dtype: Dtype) -> Array {
        let key = random::key(7).unwrap();
        let numbers = random::normal::<f32>(shape, None, None, &key).unwrap();
        numbers.as_dtype(dtype).unwrap()
    }

    fn packed(rows: i32, columns: i32, group_size: i32, dtype: Dtype) -> QuantizedTriple {
        let dense = normal(&[rows, columns], dtype);
        let (weight, scales, biases) = ops::quantize(&dense, group_size, 4).unwrap();
        QuantizedTriple::affine(weight, scales, biases, group_size, 4)
    }

    /// The product in f32, without a matrix product: MLX may take one with fewer digits on a GPU.
    fn exact(x: &Array, q: &QuantizedTriple) -> Vec<f32> {
        let float = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
        let (scales, biases) = (float(&q.scales), float(q.biases.as_ref().unwrap()));
        let dense = ops::dequantize(&q.weight, scales, &biases, q.group_size, q.bits).unwrap();
        let products = dense.multiply(float(x)).unwrap(); // [1, N, K]
        to_f32(&products.sum_axis(-1, None).unwrap()).unwrap()
    }

    /// On a machine without CUDA there is nothing to compare.
    fn assert_multiplies(x: &Array, q: &QuantizedTriple) {
        let Some(y) = product(x, q).unwrap() else {
            assert!(!is_available(), "{:?}", x.shape());
            return;
        };
        let rounding = match x.dtype() {
            Dtype::Bfloat16 => 1.0 / 256.0,
            Dtype::Float16 => 1.0 / 2048.0,
            _ => 0.0,
        };
        let adding_up = 1e-5 * (x.size() as f32).sqrt();
        let y = to_f32(&y).unwrap();
        for (y, exact) in y.iter().zip(exact(x, q)) {
            let allowed = rounding * exact.abs() + adding_up;
            let (dtype, shape) = (x.dtype(), q.scales.shape());
            assert!(
                (y - exact).abs() <= allowed,
                "{dtype:?} {shape:?}: {y}, not {exact}"
            );
        }
    }

    #[test]
    fn only_cuda_has_a_kernel_of_our_own() {
        for dtype in TYPES {
            let y = product(&normal(&[1, 1, 64], dtype), &packed(8, 64, 64, dtype)).unwrap();
            assert_eq!(y.is_some(), is_available());
        }
    }

    #[test]
    fn one_row_times_a_matrix_of_any_size_and_type_is_the_product() {
        let sizes = [(1, 32, 32), (7, 576, 64), (258, 4096, 128), (5, 28672, 64)];
        for (dtype, (rows, columns, group_size)) in TYPES
            .into_iter()
            .flat_map(|dtype| sizes.map(|size| (dtype, size)))
        {
            let x = normal(&[1, 1, columns], dtype);
            assert_multiplies(&x, &packed(rows, columns, group_size, dtype));
        }
    }

    #[test]
    fn a_row_that_is_a_view_into_a_longer_one_is_multiplied_too() {
        for dtype in TYPES {
            let long = normal(&[1, 1, 100], dtype);
            let [_, x, _] = split(&long, &[1, 65], 2).unwrap();
            assert_multiplies(&x, &packed(6, 64, 32, dtype));
        }
    }

    #[test]
    fn other_widths_and_long_rows_are_left_to_mlx() {
        let eight_bits = QuantizedTriple {
            bits: 8,
            ..packed(8, 64, 64, Dtype::Float32)
        };
        let long = packed(1, MAX_COLUMNS + 32, 32, Dtype::Float32);
        for matrix in [eight_bits, long] {
            let shape = Shape::of(&matrix);
            assert!(!shape.is_supported(&matrix));
            let x = normal(&[1, 1, shape.columns], shape.dtype);
            assert!(product(&x, &matrix).unwrap().is_none());
        }
    }

    #[test]
    fn several_rows_other_lengths_and_other_types_are_left_to_mlx() {
        let matrix = packed(8, 64, 64, Dtype::Float32);
        let takes = |x: Array| Shape::of(&matrix).takes(&x);
        for shape in [vec![1, 2, 64], vec![1, 1, 32], vec![64]] {
            assert!(!takes(normal(&shape, Dtype::Float32)));
        }
        assert!(!takes(normal(&[1, 1, 64], Dtype::Bfloat16)));
        assert!(takes(normal(&[1, 1, 64], Dtype::Float32)));
    }
}
