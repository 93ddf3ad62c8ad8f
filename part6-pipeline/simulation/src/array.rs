//! Arrays of whole numbers with up to four axes, under the names that MLX has for what is done with them.

use std::ops::{Range, RangeFrom, RangeFull};
use std::rc::Rc;

use anyhow::{Result, ensure};

/// An array. What MLX would only describe is computed at once.
#[derive(Debug, Clone)]
pub struct Array {
    shape: [i32; 4],
    axes: usize,
    data: Rc<Vec<u32>>,
}

/// The one type of numbers there is.
#[derive(Debug, Clone, Copy)]
pub struct Dtype;

/// What an array can be made of.
pub trait Element: Copy {
    /// Its bits.
    fn bits(self) -> u32;
}

impl Element for u32 {
    fn bits(self) -> u32 {
        self
    }
}

impl Element for i32 {
    fn bits(self) -> u32 {
        self as u32
    }
}

impl Array {
    pub(crate) fn new(data: Vec<u32>, shape: &[i32]) -> Self {
        let mut padded = [1; 4];
        padded[..shape.len()].copy_from_slice(shape);
        let size: i32 = shape.iter().product();
        assert_eq!(size as usize, data.len(), "{shape:?}");
        Self {
            shape: padded,
            axes: shape.len(),
            data: Rc::new(data),
        }
    }

    pub(crate) fn from_slice<T: Element>(data: &[T], shape: &[i32]) -> Self {
        Self::new(data.iter().map(|number| number.bits()).collect(), shape)
    }

    pub(crate) fn numbers(&self) -> &[u32] {
        &self.data
    }

    pub(crate) fn shape(&self) -> &[i32] {
        &self.shape[..self.axes]
    }

    pub(crate) fn dim(&self, axis: i32) -> i32 {
        self.shape()[axis as usize]
    }

    pub(crate) fn dtype(&self) -> Dtype {
        Dtype
    }

    pub(crate) fn nbytes(&self) -> usize {
        self.data.len() * 4
    }

    /// One size may be −1.
    pub(crate) fn reshape(&self, shape: &[i32]) -> Result<Self> {
        let known: i32 = shape.iter().filter(|size| **size >= 0).product();
        let rest = self.data.len() as i32 / known.max(1);
        let shape: Vec<i32> = shape
            .iter()
            .map(|size| if *size < 0 { rest } else { *size })
            .collect();
        let size: i32 = shape.iter().product();
        ensure!(
            size as usize == self.data.len(),
            "{:?} as {shape:?}",
            self.shape()
        );
        let mut new = Self {
            axes: shape.len(),
            shape: [1; 4],
            data: Rc::clone(&self.data),
        };
        new.shape[..shape.len()].copy_from_slice(&shape);
        Ok(new)
    }

    pub(crate) fn contiguous(&self) -> Result<Self> {
        Ok(self.clone())
    }

    pub(crate) fn split_equal(&self, parts: i32, axis: i32) -> Result<Vec<Self>> {
        let size = self.dim(axis);
        ensure!(parts > 0 && size % parts == 0, "{size} in {parts} parts");
        let each = size / parts;
        let mut ranges: [Range<i32>; 4] = self.shape.map(|size| 0..size);
        (0..parts)
            .map(|part| {
                ranges[axis as usize] = part * each..(part + 1) * each;
                self.cut(&ranges)
            })
            .collect()
    }

    /// Without axes that have one place.
    pub(crate) fn squeeze_axes(&self, axes: &[i32]) -> Result<Self> {
        let left = (0..)
            .zip(self.shape())
            .filter(|(axis, _)| !axes.contains(axis));
        let shape: Vec<i32> = left.map(|(_, size)| *size).collect();
        self.reshape(&shape)
    }

    /// Of the first axis, these.
    pub(crate) fn take_axis(&self, which: &Self, axis: i32) -> Result<Self> {
        ensure!(axis == 0, "axis {axis}");
        let mut all = Vec::new();
        for at in which.numbers() {
            let mut ranges = self.shape.map(|size| 0..size);
            ranges[0] = *at as i32..*at as i32 + 1;
            all.extend_from_slice(self.cut(&ranges)?.numbers());
        }
        let mut shape = self.shape;
        shape[0] = which.numbers().len() as i32;
        Ok(Self::new(all, &shape[..self.axes]))
    }

    /// MLX checks no bounds; here they are checked.
    fn cut(&self, ranges: &[Range<i32>; 4]) -> Result<Self> {
        for (range, size) in ranges.iter().zip(self.shape) {
            let inside = 0 <= range.start && range.start <= range.end && range.end <= size;
            ensure!(inside, "{ranges:?} of {:?}", self.shape());
        }
        let shape = [0, 1, 2, 3].map(|axis: usize| ranges[axis].end - ranges[axis].start);
        let mut data = Vec::with_capacity(shape.iter().product::<i32>() as usize);
        each_run(self.shape, ranges, |run| {
            data.extend_from_slice(&self.data[run]);
        });
        Ok(Self::new(data, &shape[..self.axes]))
    }

    /// The same with other numbers from a corner on.
    pub(crate) fn with(&self, new: &Self, corner: [i32; 4]) -> Result<Self> {
        let mut data = self.data.to_vec();
        self.write(&mut data, new, 0..new.shape[0], corner)?;
        Ok(Self::new(data, self.shape()))
    }

    /// The same with each row of `new` from a corner of its own on.
    pub(crate) fn with_rows(
        &self,
        new: &Self,
        corners: impl Iterator<Item = [i32; 4]>,
    ) -> Result<Self> {
        let mut data = self.data.to_vec();
        for (row, corner) in (0..).zip(corners) {
            self.write(&mut data, new, row..row + 1, corner)?;
        }
        Ok(Self::new(data, self.shape()))
    }

    /// Puts some rows of `new` at a corner of these numbers, which have this shape.
    fn write(
        &self,
        data: &mut [u32],
        new: &Self,
        rows: Range<i32>,
        corner: [i32; 4],
    ) -> Result<()> {
        let mut shape = new.shape;
        shape[0] = rows.end - rows.start;
        let ranges = [0, 1, 2, 3].map(|axis: usize| corner[axis]..corner[axis] + shape[axis]);
        for (range, size) in ranges.iter().zip(self.shape) {
            let inside = 0 <= range.start && range.end <= size;
            ensure!(inside, "{ranges:?} of {:?} are written", self.shape());
        }
        let each: i32 = new.shape[1..].iter().product();
        let mut at = (rows.start * each) as usize;
        each_run(self.shape, &ranges, |run| {
            let length = run.len();
            data[run].copy_from_slice(&new.data[at..at + length]);
            at += length;
        });
        Ok(())
    }
}

/// The pieces of the memory of an array of this shape that make up a part of it, in their order.
fn each_run(shape: [i32; 4], ranges: &[Range<i32>; 4], mut run: impl FnMut(Range<usize>)) {
    let [_, b, c, d] = shape.map(|size| size as usize);
    let [first, second, third, fourth] = ranges
        .clone()
        .map(|range| range.start as usize..range.end as usize);
    for i in first {
        for j in second.clone() {
            let row = (i * b + j) * c;
            if fourth.len() == d {
                run((row + third.start) * d..(row + third.end) * d);
                continue;
            }
            for k in third.clone() {
                let at = (row + k) * d;
                run(at + fourth.start..at + fourth.end);
            }
        }
    }
}

/// A part of an axis.
pub trait Part {
    /// Of an axis of this size.
    fn of(self, size: i32) -> Range<i32>;
}

impl Part for Range<i32> {
    fn of(self, _: i32) -> Range<i32> {
        self
    }
}

impl Part for RangeFrom<i32> {
    fn of(self, size: i32) -> Range<i32> {
        self.start..size
    }
}

impl Part for RangeFull {
    fn of(self, size: i32) -> Range<i32> {
        0..size
    }
}

/// A part of an array.
pub trait TryIndexOp<I> {
    /// A part of each axis.
    fn try_index(&self, index: I) -> Result<Array>;
}

impl<A: Part, B: Part, C: Part> TryIndexOp<(A, B, C)> for Array {
    fn try_index(&self, (a, b, c): (A, B, C)) -> Result<Array> {
        self.try_index((a, b, c, ..))
    }
}

impl<A: Part, B: Part, C: Part, D: Part> TryIndexOp<(A, B, C, D)> for Array {
    fn try_index(&self, (a, b, c, d): (A, B, C, D)) -> Result<Array> {
        let shape = self.shape;
        self.cut(&[
            a.of(shape[0]),
            b.of(shape[1]),
            c.of(shape[2]),
            d.of(shape[3]),
        ])
    }
}
