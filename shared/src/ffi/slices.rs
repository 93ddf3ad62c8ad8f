//! Writing a part of an array.
//!
//! mlx-rs has it as an assignment to an index (`try_index_mut`), which takes whatever an index may be.
//! For that it gives the update another shape and then its own again: two operations more for each
//! write, and a step of a model writes twice in each layer.

use anyhow::{Result, ensure};
use mlx_rs::{Array, Stream};
use mlx_sys as sys;

use super::{SUCCESS, report_errors};

/// `array` with `update` in place of what it has from position `at` of `axis` on.
///
/// # Errors
/// If the update does not fit there.
pub fn slice_update(array: &Array, update: &Array, at: i32, axis: usize) -> Result<Array> {
    report_errors()?;
    let (shape, new) = (array.shape(), update.shape());
    let end = new.get(axis).and_then(|n| n.checked_add(at));
    let fits = shape.len() == new.len()
        && at >= 0
        && end.is_some_and(|end| end <= shape[axis])
        && (0..new.len()).all(|i| i == axis || new[i] == shape[i]);
    ensure!(
        fits,
        "{new:?} from position {at} of axis {axis} on does not fit into {shape:?}"
    );
    let mut start = vec![0; shape.len()];
    let (mut stop, strides) = (shape.to_vec(), vec![1; shape.len()]);
    (start[axis], stop[axis]) = (at, at + new[axis]);
    let stream = Stream::thread_local_or_default();
    // SAFETY: the arrays, the stream and the three lists, each as long as there are axes, outlive the
    // call, which copies or counts what it keeps; `written` is a new array, which becomes the caller's.
    unsafe {
        let mut written = sys::mlx_array_new();
        let status = sys::mlx_slice_update(
            &mut written,
            array.as_ptr(),
            update.as_ptr(),
            start.as_ptr(),
            start.len(),
            stop.as_ptr(),
            stop.len(),
            strides.as_ptr(),
            strides.len(),
            stream.as_ptr(),
        );
        let written = Array::from_ptr(written);
        ensure!(
            status == SUCCESS,
            "MLX refused to write {new:?} into {shape:?}"
        );
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::to_f32;
    use mlx_rs::ops;
    use mlx_rs::ops::indexing::TryIndexMutOp;

    fn numbers(shape: &[i32]) -> Array {
        let n = shape.iter().product::<i32>();
        Array::from_iter((1..=n).map(|i| i as f32), shape)
    }

    #[test]
    fn a_part_is_written_as_by_an_index() {
        let update = numbers(&[1, 2, 3, 4]);
        for at in [0, 2, 5] {
            let mut indexed = ops::zeros::<f32>(&[1, 2, 8, 4]).unwrap();
            let written = slice_update(&indexed, &update, at, 2).unwrap();
            let range = at..at + 3;
            indexed.try_index_mut((.., .., range, ..), &update).unwrap();
            assert_eq!(to_f32(&written).unwrap(), to_f32(&indexed).unwrap());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let array = numbers(&[1, 2, 8, 4]);
        let write = |shape: &[i32], at, axis| slice_update(&array, &numbers(shape), at, axis);
        assert!(write(&[1, 2, 3, 4], 6, 2).is_err());
        assert!(write(&[1, 2, 3, 4], -1, 2).is_err());
        assert!(write(&[1, 2, 3, 4], i32::MAX, 2).is_err());
        assert!(write(&[1, 1, 3, 4], 0, 2).is_err());
        assert!(write(&[2, 3, 4], 0, 1).is_err());
        assert!(write(&[1, 2, 3, 4], 0, 4).is_err());
    }
}
