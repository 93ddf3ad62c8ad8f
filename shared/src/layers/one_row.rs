//! One row times a 4-bit matrix on an NVIDIA GPU, the product that a decode step is made of.
//!
//! With one row no number of the matrix is used twice, so the time is that of reading it. In the
//! products of a 7B model, MLX's kernel for one row reads a quarter of what an H100 can, this one 45 %
//! (README of part 3). On a Mac and on a CPU, for several rows and for codes of other widths MLX's own
//! kernels are used. What it costs: MLX compiles it when a process needs it first, 1.4 seconds.

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype};

use crate::ffi;
use crate::ffi::cuda_kernel::{CudaKernel, Launch};
use crate::weights::QuantizedTriple;

/// Rows that a block of the kernel takes, as in its source.
const ROWS_PER_BLOCK: i32 = 4;

/// Numbers of x that a thread keeps, as in the kernel's source.
const COLUMNS_PER_THREAD: i32 = 32;

/// A block has all of x, and its threads share the registers of one multiprocessor.
const MAX_COLUMNS: i32 = 896 * COLUMNS_PER_THREAD;

/// How the kernel is launched for one matrix.
#[derive(Debug)]
pub(super) struct OneRow {
    launch: Launch,
    /// N
    rows: i32,
    /// K
    columns: i32,
    /// G
    group_size: i32,
    dtype: Dtype,
}

impl OneRow {
    /// None if MLX's own kernel is to be used.
    ///
    /// # Errors
    /// If MLX refuses the launch.
    pub(super) fn of(matrix: &QuantizedTriple) -> Result<Option<Self>> {
        let (rows, columns) = (
            matrix.weight.dim(0),
            matrix.weight.dim(1) * 32 / matrix.bits,
        );
        let dtype = matrix.scales.dtype();
        let fits = matrix.bits == 4
            && matrix.group_size % COLUMNS_PER_THREAD == 0
            && columns <= MAX_COLUMNS
            && matrix.biases.dtype() == dtype
            && is_available();
        if !fits {
            return Ok(None);
        }
        let blocks = (rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK;
        let threads = (columns / COLUMNS_PER_THREAD + 31) / 32 * 32; // whole warps
        let launch = Launch::new(&[1, 1, rows], dtype, blocks, threads)?
            .with_type("T", dtype)?
            .with_number("G", matrix.group_size)?;
        Ok(Some(Self {
            launch,
            rows,
            columns,
            group_size: matrix.group_size,
            dtype,
        }))
    }

    /// Whether x is one row of the matrix's type, `[1, 1, K]`.
    pub(super) fn takes(&self, x: &Array) -> bool {
        x.shape() == [1, 1, self.columns] && x.dtype() == self.dtype
    }

    /// x `[1, 1, K]`, which it [takes](Self::takes), times the matrix that it was made for →
    /// `[1, 1, N]`
    ///
    /// # Errors
    /// If either is another one, or if MLX refuses the launch.
    pub(super) fn forward(&self, x: &Array, matrix: &QuantizedTriple) -> Result<Array> {
        let (n, k, groups) = (self.rows, self.columns, self.columns / self.group_size);
        let shapes = [x, &matrix.weight, &matrix.scales, &matrix.biases].map(Array::shape);
        ensure!(
            self.takes(x) && shapes[1..] == [[n, k / 8], [n, groups], [n, groups]],
            "{shapes:?} are not one row and the matrix [{n}, {k}]"
        );
        let inputs = [x, &matrix.weight, &matrix.scales, &matrix.biases];
        KERNEL.with(|kernel| {
            let kernel = kernel.as_ref().context("MLX was built without CUDA")?;
            // SAFETY: the shapes are those of the launch (checked), the types those of the matrix
            // that it was made for. Its codes begin where memory was allocated, which is aligned for
            // loads of 16 bytes: a loaded or joined matrix is no view. There is a block for every 4
            // of the N rows; a thread reads what belongs to its 32 of the K columns, and row n is
            // written by one thread.
            unsafe { kernel.launch(&inputs, &self.launch) }
        })
    }
}

thread_local! {
    /// One for all matrices; MLX compiles it once for each type and group size.
    static KERNEL: Option<CudaKernel> = kernel();
}

fn kernel() -> Option<CudaKernel> {
    let inputs = ["x", "w", "scales", "biases"];
    CudaKernel::new("one_row", &inputs, "y", include_str!("one_row.cu")).ok()
}

fn is_available() -> bool {
    super::on_gpu() && ffi::cuda_is_available()
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
        QuantizedTriple {
            weight,
            scales,
            biases,
            group_size,
            bits: 4,
        }
    }

    /// The product in f32, without a matrix product: MLX may take one with fewer digits on a GPU.
    fn exact(x: &Array, q: &QuantizedTriple) -> Vec<f32> {
        let float = |x: &Array| x.as_dtype(Dtype::Float32).unwrap();
        let (scales, biases) = (float(&q.scales), float(&q.biases));
        let dense = ops::dequantize(&q.weight, scales, &biases, q.group_size, q.bits).unwrap();
        let products = dense.multiply(float(x)).unwrap(); // [1, N, K]
        to_f32(&products.sum_axis(-1, None).unwrap()).unwrap()
    }

    /// On a machine without CUDA there is nothing to compare.
    fn assert_multiplies(x: &Array, q: &QuantizedTriple) {
        let Some(one_row) = OneRow::of(q).unwrap() else {
            return;
        };
        let rounding = match x.dtype() {
            Dtype::Bfloat16 => 1.0 / 256.0,
            Dtype::Float16 => 1.0 / 2048.0,
            _ => 0.0,
        };
        let adding_up = 1e-5 * (x.size() as f32).sqrt();
        let product = to_f32(&one_row.forward(x, q).unwrap()).unwrap();
        for (y, exact) in product.iter().zip(exact(x, q)) {
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
            let one_row = OneRow::of(&packed(8, 64, 64, dtype)).unwrap();
            assert_eq!(one_row.is_some(), is_available());
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
            assert!(OneRow::of(&matrix).unwrap().is_none());
        }
    }

    #[test]
    fn several_rows_other_lengths_and_other_types_are_left_to_mlx() {
        let Some(one_row) = OneRow::of(&packed(8, 64, 64, Dtype::Float32)).unwrap() else {
            return; // without CUDA all is left to MLX
        };
        for shape in [vec![1, 2, 64], vec![1, 1, 32], vec![64]] {
            assert!(!one_row.takes(&normal(&shape, Dtype::Float32)));
        }
        assert!(!one_row.takes(&normal(&[1, 1, 64], Dtype::Bfloat16)));
        assert!(one_row.takes(&normal(&[1, 1, 64], Dtype::Float32)));
    }
}
