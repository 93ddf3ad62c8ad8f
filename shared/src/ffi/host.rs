//! The numbers of an array that MLX keeps in the host's memory.

use cpu_kernels::Floats;
use mlx_rs::{Array, Dtype};

/// Whether the array has its numbers, so that they can be read without a wait.
pub fn is_available(array: &Array) -> bool {
    // SAFETY: writes one bool, keeps nothing.
    super::asked(|answer| unsafe { mlx_sys::_mlx_array_is_available(answer, array.as_ptr()) })
}

/// The matrices `[S, D]` of an available array `[B, H, S, D]` on the CPU, one of each head; None if the
/// numbers of one are not next to each other, or no floats.
pub fn heads(array: &Array) -> Option<Vec<Floats<'_>>> {
    let (&[b, h, s, d], &[b_stride, h_stride, s_stride, d_stride]) =
        (array.shape(), array.strides())
    else {
        return None;
    };
    let [b, h, s, d] = [b, h, s, d].map(|size| size as usize);
    let is_dense = (d == 1 || d_stride == 1) && (s == 1 || s_stride == d);
    if !is_available(array) || !is_dense {
        return None;
    }
    let begins = (0..b).flat_map(|row| (0..h).map(move |head| row * b_stride + head * h_stride));
    // SAFETY: the array is evaluated and of the type that is asked for; its shape and strides are
    // MLX's own, so each head begins within its buffer and goes on for S·D numbers, as they are next to
    // each other. The buffer lives as long as `array` does, and MLX writes to none that can be read.
    // A 16-bit float of MLX's and one of `half` are both 16 bits without padding.
    let head = |begin| unsafe {
        let pointer = array.as_ptr();
        let n = s * d;
        Some(match array.dtype() {
            Dtype::Float32 => {
                Floats::F32(slice(mlx_sys::mlx_array_data_float32(pointer), begin, n))
            }
            Dtype::Bfloat16 => Floats::Bf16(slice(
                mlx_sys::mlx_array_data_bfloat16(pointer).cast(),
                begin,
                n,
            )),
            Dtype::Float16 => Floats::F16(slice(
                mlx_sys::mlx_array_data_float16(pointer).cast(),
                begin,
                n,
            )),
            _ => return None,
        })
    };
    begins.map(head).collect()
}

/// # Safety
///
/// `n` numbers from `begin` on must be within what `first` points to, and stay there for `'a`.
unsafe fn slice<'a, T>(first: *const T, begin: usize, n: usize) -> &'a [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first.add(begin), n) }
}
