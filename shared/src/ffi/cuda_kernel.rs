//! Kernels of our own in CUDA C++, which MLX compiles at their first use and runs in its own graph.
//!
//! mlx-rs wraps the same for Metal (`mlx_rs::fast::MetalKernel`), but not for CUDA.

use std::ffi::{CString, c_char};

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype, Stream};
use mlx_sys as sys;

use super::{SUCCESS, report_errors};

/// A kernel with one output.
#[derive(Debug)]
pub struct CudaKernel {
    raw: sys::mlx_fast_cuda_kernel,
}

impl CudaKernel {
    /// A kernel from its body. MLX writes the head: the inputs and the output as pointers under their
    /// names, and the shape of an input as `{name}_shape` if the body mentions it. When the kernel
    /// runs, all inputs are contiguous.
    ///
    /// # Errors
    ///
    /// If MLX was built without CUDA. Mistakes in the body show when it runs first.
    pub fn new(name: &str, inputs: &[&str], output: &str, body: &str) -> Result<Self> {
        report_errors()?;
        let (inputs, output) = (c_strings(inputs)?, c_strings(&[output])?);
        let (name, body) = (CString::new(name)?, CString::new(body)?);
        let (mut input_names, mut output_names) = (pointers(&inputs), pointers(&output));
        // SAFETY: all strings live to the end of this function, and MLX copies them; the two vectors
        // are ours from their making to their `free`.
        let raw = unsafe {
            let inputs =
                sys::mlx_vector_string_new_data(input_names.as_mut_ptr(), input_names.len());
            let outputs =
                sys::mlx_vector_string_new_data(output_names.as_mut_ptr(), output_names.len());
            let (name, body, header) = (name.as_ptr(), body.as_ptr(), c"".as_ptr());
            let (contiguous, shared_memory) = (true, 0);
            let raw = sys::mlx_fast_cuda_kernel_new(
                name,
                inputs,
                outputs,
                body,
                header,
                contiguous,
                shared_memory,
            );
            sys::mlx_vector_string_free(inputs);
            sys::mlx_vector_string_free(outputs);
            raw
        };
        ensure!(!raw.ctx.is_null(), "MLX cannot make a CUDA kernel");
        Ok(Self { raw })
    }

    /// The output of the kernel for `inputs`, lazy as that of any operation.
    ///
    /// # Errors
    ///
    /// If the number of inputs is not the kernel's.
    ///
    /// # Safety
    ///
    /// With these inputs and this launch the kernel must read only within its inputs, write every
    /// element of its output and nothing else, and have no two threads write to the same place.
    pub unsafe fn launch(&self, inputs: &[&Array], launch: &Launch) -> Result<Array> {
        let inputs: Vec<sys::mlx_array> = inputs.iter().map(|input| input.as_ptr()).collect();
        let stream = Stream::thread_local_or_default();
        // SAFETY: the arrays, the launch and the stream outlive the call, and MLX counts references to
        // the arrays from there on; the vectors are ours from their making to their `free`; `output`
        // is a new array, which becomes the caller's.
        unsafe {
            let inputs = sys::mlx_vector_array_new_data(inputs.as_ptr(), inputs.len());
            let mut outputs = sys::mlx_vector_array_new();
            let mut output = sys::mlx_array_new();
            let status = sys::mlx_fast_cuda_kernel_apply(
                &mut outputs,
                self.raw,
                inputs,
                launch.raw,
                stream.as_ptr(),
            );
            let is_done =
                status == SUCCESS && sys::mlx_vector_array_get(&mut output, outputs, 0) == SUCCESS;
            sys::mlx_vector_array_free(inputs);
            sys::mlx_vector_array_free(outputs);
            let output = Array::from_ptr(output);
            ensure!(is_done, "MLX refused to launch a CUDA kernel");
            Ok(output)
        }
    }
}

impl Drop for CudaKernel {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again; launches that are pending hold what they need.
        unsafe { sys::mlx_fast_cuda_kernel_free(self.raw) };
    }
}

/// How a kernel is launched: kept, because describing it anew costs as much host time as an operation.
#[derive(Debug)]
pub struct Launch {
    raw: sys::mlx_fast_cuda_kernel_config,
}

// SAFETY: plain numbers and texts that nothing else points to; what changes them takes the launch itself.
unsafe impl Send for Launch {}

impl Launch {
    /// `blocks` blocks of `threads` threads, for an output of `shape` and `dtype`.
    ///
    /// # Errors
    ///
    /// If there are more threads than an `i32` counts.
    pub fn new(shape: &[i32], dtype: Dtype, blocks: i32, threads: i32) -> Result<Self> {
        report_errors()?;
        let all = blocks
            .checked_mul(threads)
            .with_context(|| format!("{blocks} blocks of {threads} threads are too many"))?;
        // SAFETY: the configuration is ours until `drop`; `shape` is copied.
        unsafe {
            let raw = sys::mlx_fast_cuda_kernel_config_new();
            let launch = Self { raw };
            let status = [
                sys::mlx_fast_cuda_kernel_config_add_output_arg(
                    raw,
                    shape.as_ptr(),
                    shape.len(),
                    dtype.into(),
                ),
                sys::mlx_fast_cuda_kernel_config_set_grid(raw, all, 1, 1),
                sys::mlx_fast_cuda_kernel_config_set_thread_group(raw, threads, 1, 1),
            ];
            ensure!(status == [SUCCESS; 3], "MLX refused {blocks} blocks");
            Ok(launch)
        }
    }

    /// Defines `name` in the kernel as this type.
    ///
    /// # Errors
    ///
    /// If `name` contains a zero byte.
    pub fn with_type(self, name: &str, dtype: Dtype) -> Result<Self> {
        let text = CString::new(name)?;
        // SAFETY: the configuration is ours; the text is copied.
        let status = unsafe {
            sys::mlx_fast_cuda_kernel_config_add_template_arg_dtype(
                self.raw,
                text.as_ptr(),
                dtype.into(),
            )
        };
        ensure!(status == SUCCESS, "MLX refused the type {name}");
        Ok(self)
    }

    /// Defines `name` in the kernel as this number.
    ///
    /// # Errors
    ///
    /// If `name` contains a zero byte.
    pub fn with_number(self, name: &str, value: i32) -> Result<Self> {
        let text = CString::new(name)?;
        // SAFETY: as above.
        let status = unsafe {
            sys::mlx_fast_cuda_kernel_config_add_template_arg_int(self.raw, text.as_ptr(), value)
        };
        ensure!(status == SUCCESS, "MLX refused the number {name}");
        Ok(self)
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again.
        unsafe { sys::mlx_fast_cuda_kernel_config_free(self.raw) };
    }
}

fn c_strings(texts: &[&str]) -> Result<Vec<CString>> {
    let strings = texts.iter().map(|text| CString::new(*text));
    Ok(strings.collect::<Result<_, _>>()?)
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_cuda_a_kernel_is_an_error_and_no_crash() {
        let kernel = CudaKernel::new("twice", &["x"], "y", "y[threadIdx.x] = 2 * x[threadIdx.x];");
        assert_eq!(kernel.is_ok(), crate::ffi::cuda_is_available());
    }

    #[test]
    fn a_kernel_runs_in_the_graph_where_there_is_cuda() {
        let Ok(kernel) =
            CudaKernel::new("more", &["x"], "y", "y[threadIdx.x] = x[threadIdx.x] + N;")
        else {
            return;
        };
        let launch = Launch::new(&[3], Dtype::Float32, 1, 3).unwrap();
        let launch = launch.with_number("N", 2).unwrap();
        let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3]);
        // SAFETY: three threads, three numbers in, three out.
        let y = unsafe { kernel.launch(&[&x.add(&x).unwrap()], &launch) }.unwrap();
        assert_eq!(crate::layers::to_f32(&y).unwrap(), [4.0, 6.0, 8.0]);
        // SAFETY: refused before anything runs.
        assert!(unsafe { kernel.launch(&[&x, &x], &launch) }.is_err());
    }

    #[test]
    fn a_launch_of_too_many_threads_or_with_a_broken_name_is_refused() {
        assert!(Launch::new(&[1], Dtype::Float32, i32::MAX, 2).is_err());
        let launch = Launch::new(&[1], Dtype::Float32, 1, 1).unwrap();
        assert!(launch.with_number("a\0b", 1).is_err());
    }
}
