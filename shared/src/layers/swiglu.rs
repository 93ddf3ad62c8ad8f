//! The gate of the MLP, as one kernel where that is worth something.

use std::cell::RefCell;

use anyhow::Result;
use mlx_rs::error::Exception;
use mlx_rs::transforms::compile::compile;
use mlx_rs::{Array, ops};

use crate::kernels::cpu;
use crate::machine::on_gpu;

/// `silu(gate) · up`, `silu(x) = x · sigmoid(x)`. Shazeer 2020 (arXiv 2002.05202).
///
/// # Cost
/// Three operations, which MLX compiles into one kernel where there is a GPU: a short step of a
/// small model is mostly the starting of kernels. On the CPU nothing is started, and compiling would
/// call a C++ compiler at run time. Not `nn::silu`, which compiles anew at each call and throws it
/// away: 16 µs of host time instead of 0.8 µs, per layer and token.
///
/// # Errors
/// If the shapes differ.
pub fn swiglu(gate: &Array, up: &Array) -> Result<Array> {
    if let Some(gated) = cpu::swiglu(gate, up)? {
        return Ok(gated);
    }
    let fused = FUSED_SWIGLU.with(|fused| Some(fused.as_ref()?.borrow_mut()((gate, up))));
    Ok(fused.unwrap_or_else(|| plain_swiglu((gate, up)))?)
}

type Binary = Box<dyn for<'a> FnMut((&'a Array, &'a Array)) -> Result<Array, Exception>>;

thread_local! {
    // Kept, because a compiled function is only cheap when it is called again; one for each thread,
    // because MLX keeps what it compiled by thread.
    static FUSED_SWIGLU: Option<RefCell<Binary>> =
        on_gpu().then(|| RefCell::new(compiled_swiglu()));
}

/// Whatever the shapes are: one compilation serves prompts of every length.
fn compiled_swiglu() -> Binary {
    Box::new(compile(plain_swiglu, true))
}

fn plain_swiglu((gate, up): (&Array, &Array)) -> Result<Array, Exception> {
    gate.multiply(ops::sigmoid(gate)?)?.multiply(up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::to_f32;

    #[test]
    fn swiglu_is_the_same_compiled_and_plain_for_every_length() {
        let mut compiled = compiled_swiglu();
        for length in [1, 3, 1] {
            let gate = Array::from_iter((0..length * 8).map(|i| i as f32 - 9.0), &[1, length, 8]);
            let up = gate.multiply(Array::from_f32(0.3)).unwrap();
            let plain = to_f32(&plain_swiglu((&gate, &up)).unwrap()).unwrap();
            let fused = to_f32(&compiled((&gate, &up)).unwrap()).unwrap();
            for (a, b) in plain.iter().zip(&fused) {
                assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} and {b}");
            }
        }
    }
}
