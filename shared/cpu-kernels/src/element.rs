//! The float types that numbers are stored in.

use half::{bf16, f16};

use crate::level::{Kernel, Level};
use crate::pool;
use crate::vector::{LANES, Vector};

/// A stored number, which is widened to f32 before anything is done with it.
pub(crate) trait Element: Copy + Default + Send + Sync {
    /// The same number as f32, without a branch: loops over it become vector code.
    fn widen(self) -> f32;

    /// The nearest number of this type, ties to even.
    fn round(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    /// bf16 is the upper half of an f32.
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding could turn a NaN into infinity.
        let quiet = (bits >> 16) | 0x40;
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        Self::from_bits(if is_nan { quiet } else { rounded } as u16)
    }
}

impl Element for f16 {
    /// The bits, moved to where f32 has them, give a number that is 2¹¹² too small, subnormal ones
    /// included; only infinities and NaN need their exponent set.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let number = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
        let is_finite = bits & 0x7c00 != 0x7c00;
        let exponent = if is_finite { 0 } else { 0xff << 23 };
        f32::from_bits(number.to_bits() | exponent | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Which of the three types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32.
    Bf16,
    /// 16 bits with more digits and a narrow range.
    F16,
}

/// Numbers as they are stored.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// See [`Float::F32`].
    F32(&'a [f32]),
    /// See [`Float::Bf16`].
    Bf16(&'a [bf16]),
    /// See [`Float::F16`].
    F16(&'a [f16]),
}

impl Floats<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn float(&self) -> Float {
        match self {
            Self::F32(_) => Float::F32,
            Self::Bf16(_) => Float::Bf16,
            Self::F16(_) => Float::F16,
        }
    }

    /// The same numbers as f32.
    pub fn to_f32(self) -> Vec<f32> {
        let mut wide = vec![0.0; self.len()];
        self.widen(Level::best(), 0, &mut wide);
        wide
    }

    /// As many as `to` has room for, from `first` on, as f32.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn widen(self, level: Level, first: usize, to: &mut [f32]) {
        let range = first..first + to.len();
        match self {
            Self::F32(numbers) => to.copy_from_slice(&numbers[range]),
            Self::Bf16(numbers) => widen(level, &numbers[range], to),
            Self::F16(numbers) => widen(level, &numbers[range], to),
        }
    }
}

/// The `at`-th eight of the numbers, widened.
#[inline(always)]
pub(crate) fn load<V: Vector, E: Element>(v: V, from: &[E], at: usize) -> V::Floats {
    let from = &from[at * LANES..(at + 1) * LANES];
    let mut numbers = [0.0; LANES];
    copy(from, &mut numbers);
    v.floats(numbers)
}

#[inline(always)]
fn copy<E: Element>(numbers: &[E], to: &mut [f32]) {
    for (to, number) in to.iter_mut().zip(numbers) {
        *to = number.widen();
    }
}

/// Widens all of `numbers` into `to`.
fn widen<E: Element>(level: Level, numbers: &[E], to: &mut [f32]) {
    let n = to.len();
    pool::in_pieces(to, 1, n, 4, |first, to| {
        let numbers = &numbers[first..][..to.len()];
        level.run(Widen { numbers, to });
    });
}

struct Widen<'a, E> {
    numbers: &'a [E],
    to: &'a mut [f32],
}

impl<E: Element> Kernel for Widen<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        copy(self.numbers, self.to);
    }
}

/// The nearest numbers of bf16.
pub fn to_bf16(values: &[f32]) -> Vec<bf16> {
    round(values)
}

/// The nearest numbers of f16.
pub fn to_f16(values: &[f32]) -> Vec<f16> {
    round(values)
}

/// Not for others: they would translate it without optimising it.
fn round<E: Element>(values: &[f32]) -> Vec<E> {
    let mut rounded = vec![E::default(); values.len()];
    pool::in_pieces(&mut rounded, 1, values.len(), 4, |first, to| {
        let values = &values[first..][..to.len()];
        Level::best().run(Round { values, to });
    });
    rounded
}

struct Round<'a, E> {
    values: &'a [f32],
    to: &'a mut [E],
}

impl<E: Element> Kernel for Round<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        for (to, value) in self.to.iter_mut().zip(self.values) {
            *to = E::round(*value);
        }
    }
}
