//! What a decoder does with a few rows, on the CPU, at the speed of memory.
//!
//! A decode step multiplies one row with every matrix of the model, and no weight is used twice: the
//! time should be that of reading the weights, and fewer bits should be faster. What stands between
//! two products (a norm, a sum, the gate, a rotation) is a few hundred numbers, a microsecond each.
//!
//! The crate knows slices and nothing of MLX: it is tried on plain numbers, and a dev build optimises
//! it without the rest. All sums are in f32 and in one order, whatever the number of rows: a row gives
//! the same bits alone and in a batch, which BLAS libraries do not promise.

mod attention;
mod between;
mod columns;
mod dense;
mod element;
mod level;
mod matrix;
mod packed;
mod pool;
mod roof;
mod vector;

pub use self::attention::{Attention, attention};
pub use self::between::{Turn, add, log_sum_and_best, norm, rotate, swiglu};
pub use self::element::{Float, Floats, to_bf16, to_f16};
pub use self::level::Level;
pub use self::matrix::{Matrix, Packed, SmallFloats, product};
pub use self::pool::threads;
pub use self::roof::bandwidth;
