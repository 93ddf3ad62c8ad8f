//! The few calls into MLX that mlx-rs does not wrap, behind safe functions.
//!
//! All of the project's `unsafe` about MLX itself is in this module, but for the launch of the one
//! kernel that is our own. MLX must be used from one thread: no array is kept here.

pub mod cuda_kernel;
pub mod host;
pub mod quantized;
pub mod slices;

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use mlx_rs::Device;
use mlx_sys::{
    mlx_cuda_is_available, mlx_device_free, mlx_device_info_free, mlx_device_info_get,
    mlx_device_info_get_size, mlx_device_info_get_string, mlx_device_info_has_key,
    mlx_device_info_is_string, mlx_device_info_new, mlx_get_default_device, mlx_string_data,
    mlx_string_free, mlx_string_new, mlx_version,
};

/// What mlx-c's functions return when all went well.
const SUCCESS: i32 = 0;

/// Version of the MLX library that is linked, such as `0.32.2`.
///
/// # Errors
///
/// If MLX does not tell.
pub fn version() -> Result<String> {
    report_errors()?;
    // SAFETY: the string is ours from `new` to `free`; its data is copied in between.
    unsafe {
        let mut text = mlx_string_new();
        let status = mlx_version(&mut text);
        let version = copied(mlx_string_data(text));
        mlx_string_free(text);
        ensure!(
            status == SUCCESS,
            "asking MLX for its version failed with status {status}"
        );
        version.context("MLX gave no version")
    }
}

/// Whether MLX was built with CUDA and found a GPU for it.
pub fn cuda_is_available() -> bool {
    // SAFETY: writes one bool, keeps nothing.
    asked(|answer| unsafe { mlx_cuda_is_available(answer) })
}

/// What MLX says of its default device under `key`, such as `device_name`. Which keys there are
/// depends on the backend; None if there is no such text.
pub fn device_text(key: &str) -> Option<String> {
    device_value(key, true, |info, key| {
        let mut value = std::ptr::null();
        // SAFETY: the key is there and a string (checked by the caller); the data lives as long as
        // `info` does and is copied here.
        unsafe { (mlx_device_info_get_string(&mut value, info, key) == SUCCESS).then_some(())? };
        unsafe { copied(value) }
    })
}

/// What MLX says of its default device under `key`, such as `memory_size`, in bytes.
pub fn device_size(key: &str) -> Option<usize> {
    device_value(key, false, |info, key| {
        let mut value = 0;
        // SAFETY: the key is there and a size (checked by the caller); a plain number is written.
        unsafe { (mlx_device_info_get_size(&mut value, info, key) == SUCCESS).then_some(value) }
    })
}

/// Reads one entry of the default device's information, if it is there and of the wanted kind.
fn device_value<T>(
    key: &str,
    text: bool,
    read: impl FnOnce(mlx_sys::mlx_device_info, *const std::ffi::c_char) -> Option<T>,
) -> Option<T> {
    report_errors().ok()?;
    let key = CString::new(key).ok()?;
    // SAFETY: device and information are ours from their making to their `free`; `key` outlives
    // both; nothing of them leaves this block but what `read` copied.
    unsafe {
        let mut device = mlx_sys::mlx_device {
            ctx: std::ptr::null_mut(),
        };
        let mut info = mlx_device_info_new();
        let found = mlx_get_default_device(&mut device) == SUCCESS
            && mlx_device_info_get(&mut info, device) == SUCCESS
            && asked(|there| mlx_device_info_has_key(there, info, key.as_ptr()))
            && asked(|string| mlx_device_info_is_string(string, info, key.as_ptr())) == text;
        let value = if found {
            read(info, key.as_ptr())
        } else {
            None
        };
        mlx_device_info_free(info);
        mlx_device_free(device);
        value
    }
}

/// A yes or no of mlx-c; a failed question is a no.
fn asked(question: impl FnOnce(*mut bool) -> i32) -> bool {
    let mut answer = false;
    report_errors().is_ok() && question(&mut answer) == SUCCESS && answer
}

/// Without a handler, mlx-c ends the process at the first error. mlx-rs installs one at its first
/// fallible call, and this is such a call.
fn report_errors() -> Result<()> {
    static ARE_REPORTED: AtomicBool = AtomicBool::new(false);
    if !ARE_REPORTED.load(Ordering::Relaxed) {
        Device::try_default().context("asking MLX for its default device")?;
        ARE_REPORTED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Copies a C string; None for null.
///
/// # Safety
///
/// `text` must be null or point to a string that ends in a zero byte.
unsafe fn copied(text: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: not null here; the rest is the caller's promise.
    (!text.is_null()).then(|| {
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mlx_says_its_version_as_three_numbers() {
        let version = version().unwrap();
        assert_eq!(
            version
                .split('.')
                .filter(|part| part.parse::<u32>().is_ok())
                .count(),
            3
        );
    }

    #[test]
    fn a_key_that_is_unknown_or_of_the_other_kind_gives_nothing() {
        assert!(device_text("device_name").is_some() || device_text("architecture").is_some());
        assert_eq!(device_size("architecture"), None);
        assert_eq!(device_text("no such key"), None);
        assert_eq!(device_text("nul\0inside"), None);
    }
}
