//! What is done with arrays: MLX's operations, and those that `shared` has beside them.

use anyhow::{Result, bail, ensure};

use crate::array::{Array, Dtype};

/// Where MLX has its indexing.
pub mod indexing {
    pub use crate::array::TryIndexOp;
}

/// One after the other.
pub fn concatenate(arrays: &[&Array], axis: i32) -> Result<Array> {
    ensure!(!arrays.is_empty(), "nothing to concatenate");
    let axis = axis as usize;
    let mut shape = arrays[0].shape().to_vec();
    shape[axis] = arrays.iter().map(|array| array.shape()[axis]).sum();
    let outer: i32 = shape[..axis].iter().product();
    let mut data = Vec::with_capacity(shape.iter().product::<i32>() as usize);
    for at in 0..outer as usize {
        for array in arrays {
            let alike = array.shape().iter().zip(&shape).enumerate();
            let mut alike = alike.filter(|(other, _)| *other != axis);
            ensure!(
                alike.all(|(_, (own, size))| own == size),
                "{:?} in {shape:?}",
                array.shape()
            );
            let inner: i32 = array.shape()[axis..].iter().product();
            let inner = inner as usize;
            data.extend_from_slice(&array.numbers()[at * inner..(at + 1) * inner]);
        }
    }
    Ok(Array::new(data, &shape))
}

/// Numbers that would show if somebody took them for keys.
pub fn zeros_dtype(shape: &[i32], _: Dtype) -> Result<Array> {
    let size: i32 = shape.iter().product();
    Ok(Array::new(vec![0; size as usize], shape))
}

/// Packed caches are not simulated.
pub fn quantize(_: &Array, _: i32, _: i32) -> Result<(Array, Array, Array)> {
    bail!("nothing is packed here")
}

/// Packed caches are not simulated.
pub fn dequantize(_: &Array, _: &Array, _: &Array, _: i32, _: i32) -> Result<Array> {
    bail!("nothing is packed here")
}

/// Puts `new` at position `at` of an axis.
pub fn slice_update(array: &Array, new: &Array, at: i32, axis: usize) -> Result<Array> {
    let mut corner = [0; 4];
    corner[axis] = at;
    array.with(new, corner)
}

/// Puts `new` at a corner.
pub fn slice_update_at(array: &Array, new: &Array, corner: &[i32]) -> Result<Array> {
    let mut padded = [0; 4];
    padded[..corner.len()].copy_from_slice(corner);
    array.with(new, padded)
}

/// Where each row of a batch has its next position.
#[derive(Debug)]
pub struct Places(Vec<i32>);

impl Places {
    /// One place for each row.
    pub fn new(places: &[i32]) -> Self {
        Self::runs(places, 1)
    }

    /// The first place of several for each row.
    pub fn runs(firsts: &[i32], _: i32) -> Self {
        Self(firsts.to_vec())
    }

    /// New positions for each row, `[B, Hkv, L, D]`.
    pub fn write(&self, array: &Array, new: &Array) -> Result<Array> {
        ensure!(new.dim(0) as usize == self.0.len(), "places for other rows");
        let corners = (0..).zip(&self.0).map(|(row, at)| [row, 0, *at, 0]);
        array.with_rows(new, corners)
    }
}
