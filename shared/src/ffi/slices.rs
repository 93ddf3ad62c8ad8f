//! Writing a part of an array.
//!
//! mlx-rs has it as an assignment to an index (`try_index_mut`), which takes whatever an index may be.
//! For that it gives the update another shape and then its own again: two operations more for each
//! write, and a step of a model writes twice in each layer.

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::{Array, Stream};
use mlx_sys as sys;

use super::{SUCCESS, report_errors};

/// `array` with `update` in place of what it has from position `at` of `axis` on.
///
/// # Errors
/// If the update does not fit there.
pub fn slice_update(array: &Array, update: &Array, at: i32, axis: usize) -> Result<Array> {
    let (shape, new) = (array.shape(), update.shape());
    let whole = |i: usize| i == axis || shape.get(i) == new.get(i);
    ensure!(
        axis < shape.len() && (0..shape.len()).all(whole),
        "{new:?} from position {at} of axis {axis} on does not fit into {shape:?}"
    );
    let mut start = vec![0; shape.len()];
    start[axis] = at;
    slice_update_at(array, update, &start)
}

/// `array` with `update` in place of what it has from `start` on, a position on each axis.
///
/// # Errors
/// If the update does not fit there.
pub fn slice_update_at(array: &Array, update: &Array, start: &[i32]) -> Result<Array> {
    report_errors()?;
    let (shape, new) = (array.shape(), update.shape());
    let ends = start.iter().zip(new).map(|(at, n)| at.checked_add(*n));
    let stop: Option<Vec<i32>> = ends.collect();
    let within = |(stop, size): (&i32, &i32)| stop <= size;
    let fits = start.len() == shape.len() && new.len() == shape.len();
    let stop = stop.filter(|stop| {
        fits && start.iter().all(|at| *at >= 0) && stop.iter().zip(shape).all(within)
    });
    let stop =
        stop.with_context(|| format!("{new:?} from {start:?} on does not fit into {shape:?}"))?;
    let strides = vec![1; shape.len()];
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

/// L places in each of the first B rows of arrays `[rows, H, N, …]`: made once, for all arrays of a step.
#[derive(Debug, Clone)]
pub struct Places {
    /// The rows and the positions, i32 `[B · L]` each.
    rows: Array,
    positions: Array,
    /// L
    each: i32,
    /// The range that the positions are from: MLX checks no bounds.
    first: i32,
    last: i32,
}

impl Places {
    /// Position `positions[b]` of row b.
    pub fn new(positions: &[i32]) -> Self {
        Self::runs(positions, 1)
    }

    /// The `l` positions of row b that begin with `firsts[b]`.
    pub fn runs(firsts: &[i32], l: i32) -> Self {
        let rows = firsts.len() as i32;
        let all: Vec<i32> = (firsts.iter())
            .flat_map(|first| (0..l).map(move |at| first.saturating_add(at)))
            .collect();
        let of_rows = (0..rows).flat_map(|row| (0..l).map(move |_| row));
        Self {
            rows: Array::from_iter(of_rows, &[rows * l]),
            positions: Array::from_slice(&all, &[rows * l]),
            each: l,
            first: all.iter().copied().min().unwrap_or(0),
            last: all.iter().copied().max().unwrap_or(0),
        }
    }

    /// `array` `[rows, H, N, D]` with `update` `[B, H, L, D]` at these places: one operation, in place if nothing
    /// else holds the array or a view of it. (The other one that could, `put_along_axis`, needs an update for
    /// each row that the array has, and on a CPU took 3 to 10 times as long.)
    ///
    /// # Errors
    /// If a place is outside of the array, or if the update is not one for each of them.
    pub fn write(&self, array: &Array, update: &Array) -> Result<Array> {
        report_errors()?;
        let (shape, new) = (array.shape(), update.shape());
        let (&[rows, h, n, d], &[b, new_h, l, new_d]) = (shape, new) else {
            bail!("{new:?} are no positions of {shape:?}");
        };
        let places = self.rows.dim(0);
        let fits = b * l == places && l == self.each && b <= rows && (h, d) == (new_h, new_d);
        ensure!(
            fits && self.first >= 0 && self.last < n,
            "{new:?} at positions {} to {} of {} rows does not fit into {shape:?}",
            self.first,
            self.last,
            places / self.each.max(1)
        );
        let by_place = if l == 1 {
            update.clone()
        } else {
            crate::ops::transpose_axes(update, &[0, 2, 1, 3])?
        };
        let update = crate::ops::reshape(&by_place, &[places, 1, h, 1, d])?;
        let (axes, stream) = ([0, 2], Stream::thread_local_or_default());
        // SAFETY: the arrays, the axes and the stream outlive the call, which counts what it keeps; the
        // vector is ours until it is freed; `written` is a new array, which becomes the caller's.
        unsafe {
            let indices = [self.rows.as_ptr(), self.positions.as_ptr()];
            let indices = sys::mlx_vector_array_new_data(indices.as_ptr(), indices.len());
            let mut written = sys::mlx_array_new();
            let status = sys::mlx_scatter(
                &mut written,
                array.as_ptr(),
                indices,
                update.as_ptr(),
                axes.as_ptr(),
                axes.len(),
                stream.as_ptr(),
            );
            sys::mlx_vector_array_free(indices);
            let written = Array::from_ptr(written);
            ensure!(
                status == SUCCESS,
                "MLX refused to write {new:?} into rows of {shape:?}"
            );
            Ok(written)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::to_f32;
    use mlx_rs::ops;
    use mlx_rs::ops::indexing::{IndexOp, TryIndexMutOp};

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

    #[test]
    fn a_part_of_several_axes_is_written_as_by_an_index() {
        let update = numbers(&[1, 2, 3, 4]);
        let mut indexed = ops::zeros::<f32>(&[5, 2, 8, 4]).unwrap();
        let written = slice_update_at(&indexed, &update, &[3, 0, 5, 0]).unwrap();
        indexed
            .try_index_mut((3..4, .., 5..8, ..), &update)
            .unwrap();
        assert_eq!(to_f32(&written).unwrap(), to_f32(&indexed).unwrap());
        for start in [
            [5, 0, 0, 0],
            [0, 0, 6, 0],
            [0, -1, 0, 0],
            [0, 0, 0, i32::MAX],
        ] {
            assert!(slice_update_at(&indexed, &update, &start).is_err());
        }
        assert!(slice_update_at(&indexed, &update, &[0, 0, 0]).is_err());
    }

    #[test]
    fn each_row_is_written_at_its_own_place_and_the_rows_after_them_stay() {
        let update = numbers(&[3, 2, 1, 4]);
        let mut indexed = ops::zeros::<f32>(&[5, 2, 8, 4]).unwrap();
        let places = [7, 0, 5];
        let written = Places::new(&places).write(&indexed, &update).unwrap();
        for (row, at) in (0..).zip(places) {
            let of_row = update.index((row..row + 1, .., .., ..));
            let range = at..at + 1;
            indexed
                .try_index_mut((row..row + 1, .., range, ..), &of_row)
                .unwrap();
        }
        assert_eq!(to_f32(&written).unwrap(), to_f32(&indexed).unwrap());
    }

    #[test]
    fn several_positions_of_each_row_are_written_from_its_own_place_on() {
        let update = numbers(&[3, 2, 2, 4]);
        let mut indexed = ops::zeros::<f32>(&[4, 2, 8, 4]).unwrap();
        let places = [6, 0, 5];
        let written = Places::runs(&places, 2).write(&indexed, &update).unwrap();
        for (row, at) in (0..).zip(places) {
            let of_row = update.index((row..row + 1, .., .., ..));
            let range = at..at + 2;
            indexed
                .try_index_mut((row..row + 1, .., range, ..), &of_row)
                .unwrap();
        }
        assert_eq!(to_f32(&written).unwrap(), to_f32(&indexed).unwrap());
        let write = |places: &[i32], shape: &[i32]| {
            Places::runs(places, 2).write(&numbers(&[3, 2, 8, 4]), &numbers(shape))
        };
        assert!(write(&[7, 0], &[2, 2, 2, 4]).is_err());
        assert!(write(&[6, 0], &[2, 2, 1, 4]).is_err());
        assert!(write(&[6, 0], &[4, 2, 1, 4]).is_err());
        assert!(write(&[i32::MAX, 0], &[2, 2, 2, 4]).is_err());
    }

    #[test]
    fn places_outside_of_the_array_are_refused() {
        let array = numbers(&[3, 2, 8, 4]);
        let write =
            |places: &[i32], shape: &[i32]| Places::new(places).write(&array, &numbers(shape));
        assert!(write(&[7, 0], &[2, 2, 1, 4]).is_ok());
        assert!(write(&[8, 0], &[2, 2, 1, 4]).is_err());
        assert!(write(&[-1, 0], &[2, 2, 1, 4]).is_err());
        assert!(write(&[0, 0, 0, 0], &[4, 2, 1, 4]).is_err());
        assert!(write(&[0, 0], &[3, 2, 1, 4]).is_err());
        assert!(write(&[0, 0], &[2, 1, 1, 4]).is_err());
        assert!(write(&[0, 0], &[2, 2, 2, 4]).is_err());
        assert!(write(&[0, 0], &[2, 2, 4]).is_err());
    }
}
